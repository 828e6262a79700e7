"""How many survey alerts a second pass the filter, through the durable log, beside a search and beside a survey.

    python mma_realtime/benchmarks/survey.py

Packets like those of ZTF (their size is in the result) against the regions of three superevents. `drained`: packets
that wait, while another process searches strain in real time; the target is held against the wall clock. `beside a
producer`: the producer appends at a fixed rate in batches, the filter keeps up or falls behind; `lag` is how long the
last packet of each batch had waited. Writes `survey.json`; exit status 1 where the target is missed.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from mma_realtime.bus.base import SURVEY
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.filter import BATCH, SurveyFilter
from mma_realtime.evaluation.survey import SIZE, filter_rate, regions

TARGET = 5000.0  # alerts/s by the clock
LSST_MEAN, SECONDS = 350.0, 15.0  # alerts/s over a night of 8 h; that the producer goes on
PRODUCER = """
import sys, time
from mma_realtime.bus.base import SURVEY
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.made_up import packets
path, rate, seconds, size = sys.argv[1], *map(float, sys.argv[2:])
log, batch = SqliteLog(path), max(int(rate / 10), 1)
rows = [("ztf", content, {}) for content, _ in packets(batch, 2, 1187008882.43, int(size))]
print("ready", flush=True)
begin, done = time.monotonic(), 0
while time.monotonic() - begin < seconds:
    log.append_many(SURVEY, rows)
    done += batch
    time.sleep(max(0.0, begin + done / rate - time.monotonic()))
print(done / (time.monotonic() - begin), flush=True)
"""


def drained(folder: Path) -> dict[str, Any]:
    found = filter_rate(folder)
    return {
        "what": "drained", "alerts": int(found["survey/packets"]), "matched": int(found["survey/matched"]),
        "bytes_an_alert": found["survey/packet_bytes"],
        "per_second_by_wall_clock": found["alerts_per_second"],
        "per_second_of_a_core": found["survey/alerts_per_core_second"], "target": TARGET,
        "search_real_time": found["survey/search_real_time"], "met": found["alerts_per_second"] >= TARGET,
    }  # fmt: skip


def beside_a_producer(folder: Path, rate: float) -> dict[str, Any]:
    path = folder / f"produced_{rate:.0f}.db"
    with SqliteLog(path) as log:
        command = [sys.executable, "-c", PRODUCER, *map(str, (path, rate, SECONDS, SIZE))]
        producer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert producer.stdout is not None
        producer.stdout.readline()
        worker = SurveyFilter(log, regions(), batch=BATCH)
        lags, waiting, done, begin = [], 0, 0, time.perf_counter()
        while producer.poll() is None or worker.bus.end(SURVEY) > done:
            step = worker.step(0.1)
            done, waiting = done + step.read, max(waiting, step.waiting)
            if step.read:
                lags.append(step.lag)
        wall, produced = time.perf_counter() - begin, float(producer.stdout.readline())
    return {
        "what": "beside a producer", "asked_per_second": rate, "produced_per_second": produced,
        "filtered_per_second": done / wall, "most_waiting": waiting,
        "lag_s": {"median": float(np.median(lags)), "p99": float(np.quantile(lags, 0.99)), "worst": max(lags)},
    }  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        load = os.getloadavg()[0]
        rows = [drained(folder), *(beside_a_producer(folder, rate) for rate in (LSST_MEAN, 2 * LSST_MEAN))]
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "load": load},
        "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0 if rows[0]["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
