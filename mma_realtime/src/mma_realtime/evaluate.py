"""How far a search hears: `python -m mma_realtime.evaluate --injections F --foreground F --background F --duration S`.

The files are those of the mock data challenge (`data.mlgwsc`): injections as made by `python -m mma_realtime.challenge`
or the challenge's own generator, events as written by a search. Sensitive distances at the asked false-alarm rates.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from shared.errors import one_line_errors
from shared.runs.store import write_atomic

from mma_realtime.data.mlgwsc import read_events, read_injections
from mma_realtime.errors import SearchError
from mma_realtime.search.arguments import new_file
from mma_realtime.search.evaluator import distance_at, evaluate


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.evaluate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--injections", type=Path, required=True, help="HDF5: tc, distance, mass1, mass2, ...")
    parser.add_argument("--foreground", type=Path, required=True, help="HDF5 of events: time, stat, var")
    parser.add_argument("--background", type=Path, required=True, help="HDF5 of events in noise alone")
    parser.add_argument("--duration", type=float, required=True, help="seconds of the background")
    parser.add_argument("--far", type=float, nargs="+", default=[1000.0, 100.0, 10.0, 1.0], help="false alarms a month")
    parser.add_argument("--json", type=new_file, help="write the numbers to this file as well")
    args = parser.parse_args(argv)
    if min(args.far) <= 0:
        raise SearchError(f"--far {min(args.far):g}: give rates above 0, in false alarms a month of 30 days")

    result = evaluate(
        read_injections(args.injections), read_events(args.foreground), read_events(args.background), args.duration
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("false alarms a month")
    table.add_column("sensitive distance (Mpc)", justify="right")
    distances: dict[str, float | None] = {}
    untold: list[str] = []
    for far in sorted(args.far, reverse=True):
        key = f"{far:g}"
        try:
            distances[key] = distance_at(result, far)
            table.add_row(key, f"{distances[key]:.0f}")
        except SearchError as error:
            distances[key] = None
            table.add_row(key, "-")
            untold.append(str(error))
    console = Console()
    console.print(table)
    for why in untold:
        console.print(why, soft_wrap=True)
    console.print(
        f"{result.found[0]} of {result.n_injections} injections are above the lowest event of the background; "
        f"{result.n_true_pos} events near an injection, {result.n_false_pos} others; background {args.duration:.0f} s",
        soft_wrap=True,
    )
    if args.json:
        numbers = {
            "sensitive_distance_mpc": distances,
            "n_injections": result.n_injections,
            "n_found": int(result.found[0]),
            "n_true_pos": result.n_true_pos,
            "n_false_pos": result.n_false_pos,
            "background_s": args.duration,
        }
        write_atomic(args.json, json.dumps(numbers, indent=2).encode() + b"\n")
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
