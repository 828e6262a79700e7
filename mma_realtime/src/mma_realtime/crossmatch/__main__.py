"""Superevents beside other messengers: joint false-alarm rates of notices, or the worker of a running system.

    python -m mma_realtime.crossmatch --gw notice.json --external burst.xml
    python -m mma_realtime.crossmatch --gw-map map.fits --gps 1187008882.43 --far 1e-9 --external burst.json
    python -m mma_realtime.crossmatch --bus bus.db --store store.db

The first two print what a pair has in common. The third tells it: the store's relay sends what the worker writes.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from shared.errors import one_line_errors

from mma_realtime.alerts.notice import Notice
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.store import Store
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.external import LARGEST, ExternalEvent, read_notice
from mma_realtime.crossmatch.matcher import CrossMatcher, catch_up, run
from mma_realtime.crossmatch.pair import Candidate, compare, window_of
from mma_realtime.errors import CrossMatchError
from mma_realtime.sky.fits import read_fits
from mma_realtime.times import gps_from_utc


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mma_realtime.crossmatch", description=(__doc__ or "").split("\n")[0]
    )
    pair = parser.add_argument_group("a pair")
    pair.add_argument("--gw", type=Path, help="notice of a superevent, JSON")
    pair.add_argument("--gw-map", type=Path, help="sky map, FITS; instead of the notice's, or with --gps and --far")
    pair.add_argument("--gps", type=float, help="of the candidate (s)")
    pair.add_argument("--far", type=float, help="of the candidate (Hz)")
    pair.add_argument(
        "--external", type=Path, action="append", help="external notice, JSON or VOEvent; may be repeated"
    )
    worker = parser.add_argument_group("the worker")
    worker.add_argument("--bus", type=Path, help="file of the log")
    worker.add_argument("--store", type=Path, help="file of the search's store")
    worker.add_argument("--origin", type=Origin, choices=list(Origin), default=Origin.REPLAYED, help="of the strain")
    worker.add_argument("--once", action="store_true", help="end when nothing waits; default: run until interrupted")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    if args.bus or args.store:
        work(args.bus, args.store, args.origin, args.once)
        return 0
    candidate = candidate_of(args.gw, args.gw_map, args.gps, args.far)
    if not args.external:
        raise CrossMatchError("nothing to compare with: give --external, a notice in JSON or a VOEvent")
    for path in args.external:
        for event in read_notice(content_of(path)):
            Console().print(table_of(candidate, event))
    return 0


def content_of(path: Path) -> bytes:
    """A notice's file; one that is larger than any notice is refused before it is read."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise CrossMatchError(f"{path}: a notice of {size:,} bytes is refused: at most {LARGEST:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise CrossMatchError(f"cannot read {path}: {error.strerror}") from None


def candidate_of(notice: Path | None, sky_map: Path | None, gps: float | None, far: float | None) -> Candidate:
    """What was asked for: a notice's event, or one of a time and a rate; with the map, where there is one."""
    if (notice is None) == (gps is None or far is None):
        raise CrossMatchError("which candidate? give --gw, or --gps and --far with or without --gw-map")
    given = read_fits(sky_map) if sky_map else None
    if notice is None:
        assert gps is not None
        assert far is not None
        return Candidate("candidate", gps, far, given)
    found = Notice.from_json(content_of(notice))
    if found.event is None:
        raise CrossMatchError(f"{notice} takes {found.superevent_id} back: there is nothing to compare")
    if given is None and found.event.skymap:
        given = read_fits(found.event.skymap)
    return Candidate(found.superevent_id, gps_from_utc(found.event.time), found.event.far, given)


def table_of(candidate: Candidate, event: ExternalEvent) -> Table:
    """The joint rate and its parts, or why there is none."""
    window = window_of(event)
    table = Table(title=f"{candidate.id} and {event.id}", box=None, show_header=False, title_justify="left")
    table.add_row("false-alarm rate alone", f"{candidate.far:.4g} Hz")
    table.add_row("external minus candidate", f"{event.gps - candidate.gps:+.3f} s")
    table.add_row("window", f"{window.low:+g} to {window.high:+g} s, {event.kind}")
    joint = compare(candidate, event)
    if joint is None:
        why = "outside the window" if not window.holds(candidate.gps, event.gps) else "retracted, or above a threshold"
        table.add_row("joint false-alarm rate", f"none: {why}")
        return table
    table.add_row("method", joint.method)
    table.add_row("overlap of the places", "not known" if joint.overlap is None else f"{joint.overlap:.4g}")
    for name, rate in (("by time", joint.temporal), ("with the places", joint.spatiotemporal)):
        told = "none" if rate is None else f"{rate:.4g} Hz, {candidate.far / rate:.3g} times smaller"
        table.add_row(f"joint false-alarm rate, {name}", told)
    return table


def work(bus: Path | None, store: Path | None, origin: Origin, once: bool) -> None:
    """The worker, until it is interrupted or terminated."""
    if bus is None or store is None:
        raise CrossMatchError("the worker wants both --bus and --store")
    for path in (bus, store):
        if not path.is_file():
            raise CrossMatchError(f"{path} is not there: the search makes it; start that first, or name its file")
    stop = threading.Event()
    with (
        Store(store) as opened,
        SqliteLog(bus) as log,
        contextlib.closing(CrossMatcher(opened, log, origin)) as matcher,
    ):
        if once:
            read = catch_up(matcher)
            Console().print(
                f"{read} records read, {matcher.told} notices told, {matcher.lost + matcher.survey.lost} records lost"
            )
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        run(matcher, stop.wait)
        Console().print(f"{matcher.told} notices told, {matcher.lost + matcher.survey.lost} records lost")


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
