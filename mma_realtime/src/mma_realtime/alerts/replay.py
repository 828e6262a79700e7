"""Replay strain into alerts: python -m mma_realtime.alerts.replay FILE... --store alerts.db --bus bus.db

Strain is pushed a hop at a time through the search; what it finds goes into the store, and from there onto the bus.
Killed at any time and started again, the same command goes on where the store is, and tells nothing twice that a
subscriber would count twice. Every notice says that it is a test.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from shared.errors import one_line_errors

from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.outbox import keep_relaying, relay
from mma_realtime.alerts.pipeline import AlertPipeline, StrainSource
from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import Bus
from mma_realtime.bus.log import SqliteLog
from mma_realtime.data.strain import read_strain
from mma_realtime.search import report
from mma_realtime.search.scores import conditioner_for, informed


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mma_realtime.alerts.replay", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("strain", type=Path, nargs="+", help=".npz or HDF5 files of one stretch")
    parser.add_argument("--store", type=Path, required=True, help="file of what was found; made where there is none")
    parser.add_argument("--bus", type=Path, required=True, help="file of the bus; made where there is none")
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument("--hop", type=float, default=1.0, help="s of strain at a time: 1, 0.5 or 0.25")
    parser.add_argument("--speed", type=float, help="times real time; default: as fast as it goes")
    return parser


@contextlib.contextmanager
def relaying(store: Store, bus: Bus) -> Iterator[None]:
    """Relays in a thread of its own, so that a slow bus delays no search; what is left is sent at the end.

    Raises:
        BusError: the bus does not take the rest, which stays in the store.
    """
    stop = threading.Event()
    thread = threading.Thread(target=keep_relaying, args=(store, bus, stop.wait), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    relay(store, bus)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    torch.set_num_threads(1)  # windows of a hop are few: threads only wait for each other
    console = Console()
    model = report.load_model(args.checkpoint)
    strain = read_strain(*args.strain)
    conditioner = informed(conditioner_for(model, strain.sample_rate), strain, "auto")
    with Store(args.store) as store, SqliteLog(args.bus) as bus, relaying(store, bus):
        pipeline = AlertPipeline(store, model, conditioner, StrainSource(strain, args.hop), Origin.REPLAYED)
        begin = time.monotonic()
        for hop, told in enumerate(pipeline.run(), 1):
            for event in told:
                best = event.preferred
                bound = "< " if best.far_is_upper_limit else ""
                console.print(
                    f"{event.id} version {event.version} {event.state}: {best.utc}, statistic {best.statistic:.1f}, "
                    f"FAR {bound}{best.far:.3g} Hz",
                    soft_wrap=True,
                )
            if args.speed:
                time.sleep(max(0.0, begin + hop * args.hop / args.speed - time.monotonic()))
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
