"""Search a set of the mock data challenge: `python -m mma_realtime.events foreground.hdf foreground_events.hdf`.

Reads strain and writes the events file that `python -m mma_realtime.evaluate` and the challenge's own evaluator read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from shared.errors import one_line_errors

from mma_realtime.data.mlgwsc import VAR, Events, write_events
from mma_realtime.data.strain import read_strain
from mma_realtime.data.strain_files import SAMPLE_RATE
from mma_realtime.data.strain_parts import listed, preferred, spans
from mma_realtime.search.arguments import finite
from mma_realtime.search.coincidence import Trigger, find_triggers
from mma_realtime.search.report import load_model
from mma_realtime.search.scores import check_scored, conditioner_for, informed, score_strain


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.events", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("strain", type=Path, help="HDF5 of strain, H1/<gps> and L1/<gps>")
    parser.add_argument("events", type=Path, help="HDF5 to write: time, stat, var")
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument(
        "--threshold", type=finite,
        help="of an event's statistic; default: the model's. Low enough for some events in the background",
    )  # fmt: skip
    parser.add_argument("--psd", choices=("auto", "trailing", "file"), default="file", help="noise (default file)")
    args = parser.parse_args(argv)
    model = load_model(args.checkpoint)
    recipe = model.recipe
    threshold = recipe.threshold if args.threshold is None else args.threshold
    found: list[Trigger] = []
    stretches = spans(preferred(listed([args.strain]), SAMPLE_RATE))
    for gps in stretches:
        strain = read_strain(args.strain, gps=gps, partial=True)
        scores = score_strain(model, strain, informed(conditioner_for(model), strain, args.psd))
        check_scored(scores, strain)
        found += find_triggers(scores, threshold, time_offset=recipe.time_offset)
    time, stat = (np.array([getattr(t, name) for t in found], dtype=np.float64) for name in ("gps", "statistic"))
    write_events(args.events, Events(time, stat, np.full(len(found), VAR)))
    Console().print(f"{len(found)} events above {threshold:g} written to {args.events}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
