"""What the bus costs: durable appends, the wait of a reader in another process, and a log of a million records.

    python mma_realtime/benchmarks/bench_bus.py

Wall-clock times, because most of them wait for the disk; `load` says how busy the machine was. `append` appends records
of 1 kB, so many in a transaction, each transaction on disk (fsync) before the next; beside it `floor` writes and syncs
the same bytes to a plain file. `wake` is from before an append to after the fetch of a reader in another process that
had waited for it. `recovery` kills the writer of a million records, then opens the log and fetches. `kafka` is the mock
cluster on loopback, which keeps its records in memory. Writes `bus.json`; exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mma_realtime.bus.kafka import KafkaBus
from mma_realtime.bus.kafka_config import KafkaConfig
from mma_realtime.bus.log import SqliteLog

APPEND_TARGET, RECOVERY_TARGET = 5000.0, 2.0  # records/s in batches; s
VALUE = bytes(range(256)) * 4
READER = """
import sys, time
from mma_realtime.bus.log import SqliteLog
log = SqliteLog(sys.argv[1])
for _ in range(int(sys.argv[2])):
    print("waiting", flush=True)
    assert log.fetch("gw.notices", "reader", timeout=60)
    print(time.monotonic(), flush=True)
print(time.process_time(), flush=True)
log.fetch("nothing", "reader", timeout=10)
print(time.process_time(), flush=True)
"""
WRITER = """
import sys
from mma_realtime.bus.log import SqliteLog
log = SqliteLog(sys.argv[1])
for _ in range(int(sys.argv[2]) // 10000):
    log.append_many("survey.alerts", [("key", b"x" * 100, {})] * 10000)
print("done", flush=True)
sys.stdin.read()
"""
CLUSTER = """
import sys
from confluent_kafka import Producer
producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
broker, = producer.list_topics(timeout=20).brokers.values()
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def appends(folder: Path, batch: int, seconds: float) -> dict[str, Any]:
    def rate(write: Any) -> float:
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            write()
            done += batch
        return done / (time.perf_counter() - begin)

    rows = [("S260131a", VALUE, {"version": "1"})] * batch
    with SqliteLog(folder / f"append{batch}.db") as log, (folder / "plain").open("wb") as plain:

        def floor() -> None:
            plain.write(VALUE * batch)
            plain.flush()
            os.fsync(plain.fileno())

        ours, theirs = rate(lambda: log.append_many("gw.notices", rows)), rate(floor)
    row: dict[str, Any] = {"what": f"durable appends of 1 kB, {batch} in a transaction", "per_second": ours,
                           "plain_file_per_second": theirs}  # fmt: skip
    if batch >= 100:
        row |= {"target": APPEND_TARGET, "met": ours >= APPEND_TARGET}
    return row


def wake(folder: Path, count: int) -> dict[str, Any]:
    took = []
    with SqliteLog(folder / "wake.db") as log:
        reader = started(READER, log.path, count)
        for number in range(count):
            line_of(reader)
            time.sleep(0.05 + 0.01 * (number % 10))
            begin = time.monotonic()
            log.append("gw.notices", "S260131a", VALUE)
            took.append(1e3 * (float(line_of(reader)) - begin))
        idle = -float(line_of(reader)) + float(line_of(reader))
        reader.wait()
    return {"what": "append until a waiting reader of another process has the record", "milliseconds":
            {"median": statistics.median(took), "p95": statistics.quantiles(took, n=20)[-1], "worst": max(took)},
            "cpu_share_of_a_waiting_reader": idle / 10}  # fmt: skip


def recovery(folder: Path, count: int) -> dict[str, Any]:
    path = folder / "million.db"
    begin = time.perf_counter()
    writer = started(WRITER, path, count)
    assert line_of(writer) == "done"
    wrote = time.perf_counter() - begin
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    begin = time.perf_counter()
    with SqliteLog(path) as log:
        assert len(log.fetch("survey.alerts", "new")) == 100
        took = time.perf_counter() - begin
        assert log.end("survey.alerts") == count
        begin = time.perf_counter()
        log.seek("new", "survey.alerts", time=time.time() - 1)
        sought = time.perf_counter() - begin
    return {"what": f"log of {count:,} records after kill -9: open and first fetch", "seconds": took,
            "target": RECOVERY_TARGET, "met": took <= RECOVERY_TARGET, "seek_by_time_milliseconds": 1e3 * sought,
            "written_per_second": count / wrote, "megabytes": path.stat().st_size / 1e6}  # fmt: skip


def kafka(batch: int, seconds: float) -> dict[str, Any]:
    cluster = started(CLUSTER)
    bus = KafkaBus(KafkaConfig((line_of(cluster),), "plaintext"))
    rows = [("S260131a", VALUE, {"version": "1"})] * batch
    bus.append_many("gw.notices", rows)
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        bus.append_many("gw.notices", rows)
        done += batch
    took = time.perf_counter() - begin
    bus.close()
    cluster.kill()
    return {"what": f"Kafka's mock cluster: acknowledged appends of 1 kB, {batch} at a time", "per_second": done / took}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each rate (default 3)")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the log that recovers (default a million)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [appends(folder, batch, options.seconds) for batch in (1, 100, 1000)]
        rows += [wake(folder, 100), recovery(folder, options.records)]
        rows += [kafka(batch, options.seconds) for batch in (1, 100)]
    for row in rows:
        print(json.dumps(row))
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": load},
        "sqlite": sqlite3.sqlite_version,
        "rows": rows,
    }
    Path(__file__).with_name("bus.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row.get("met", True) for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
