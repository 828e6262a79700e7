"""E3 and the speed of E9: how many seconds of two detectors a second of one core searches."""

from __future__ import annotations

import time

import numpy as np

from mma_realtime.data.strain import Strain
from mma_realtime.gw.units import Seconds
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import conditioner_for, score_strain
from mma_realtime.search.stream import StreamEngine

MONTH: Seconds = 31 * 86400.0  # August 2017, the month of the anchor


def real_time_factors(model: SearchModel, strain: Strain, hops: int = 60) -> dict[str, float]:
    """Of the offline search and of the stream in hops of a second, with conditioning; and the time of a hop.

    Returns:
        `speed/offline` and `speed/stream` (seconds of strain of all detectors per second), `speed/month_minutes`
        (offline, one core), `speed/hop_ms_median`, `speed/hop_ms_p99`.
    """
    conditioner = conditioner_for(model, strain.sample_rate)
    score_strain(model, strain.slice(strain.gps_start, strain.gps_start + 16), conditioner)  # warm
    begin = time.perf_counter()
    score_strain(model, strain, conditioner)
    offline = strain.duration / (time.perf_counter() - begin)
    engine = StreamEngine(model, conditioner, strain.detectors, strain.gps_start)
    spent = []
    for second in range(min(hops + 16, strain.duration)):
        block = strain.values[:, second * strain.sample_rate : (second + 1) * strain.sample_rate]
        begin = time.perf_counter()
        engine.push(block)
        spent.append(time.perf_counter() - begin)
    busy = np.array(spent[16:])  # once the spectrum is known and every hop has windows
    return {
        "speed/offline": offline,
        "speed/stream": 1 / float(busy.mean()),
        "speed/month_minutes": MONTH / offline / 60,
        "speed/hop_ms_median": 1e3 * float(np.median(busy)),
        "speed/hop_ms_p99": 1e3 * float(np.quantile(busy, 0.99)),
    }
