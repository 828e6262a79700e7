"""A set like the mock data challenge's first: `python -m mma_realtime.challenge --duration 3600 --seed 1 --out DIR`.

Writes foreground.hdf (noise and signals), background.hdf (the same noise alone) and injections.hdf, in the challenge's
formats. Search the first two, then `python -m mma_realtime.evaluate`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from shared.errors import one_line_errors

from mma_realtime.data.challenge import CURVE, MASSES, generate
from mma_realtime.data.mlgwsc import write_injections, write_strain
from mma_realtime.gw.psd import DESIGN_CURVES
from mma_realtime.search.arguments import seed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mma_realtime.challenge", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--duration", type=int, default=3600, help="seconds (default 3600)")
    parser.add_argument("--seed", type=seed, default=1, help="of noise and injections (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--curve", choices=DESIGN_CURVES, default=CURVE, help=f"of the noise (default {CURVE})")
    parser.add_argument(
        "--masses", type=float, nargs=2, default=MASSES, metavar=("LOW", "HIGH"), help="solar masses (default 10 50)"
    )
    args = parser.parse_args(argv)
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("noise and signals", total=None)
        made = generate(
            args.duration,
            args.seed,
            args.curve,
            tuple(args.masses),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        bar.update(task, description="writing", completed=0, total=None)
        write_strain(args.out / "foreground.hdf", made.foreground)
        write_strain(args.out / "background.hdf", made.background)
        write_injections(args.out / "injections.hdf", made.injections)
    network = np.hypot(*(made.injections[f"optimal_snr_{name}"] for name in made.foreground.detectors))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("duration", f"{args.duration} s from GPS {made.foreground.gps_start:.0f}")
    table.add_row("injections", f"{len(network)}")
    table.add_row(
        "network signal-to-noise ratio", f"median {np.median(network):.1f}, {(network >= 8).sum()} of 8 and more"
    )
    console = Console()
    console.print(table)
    console.print(f"written to {args.out}: foreground.hdf, background.hdf, injections.hdf", soft_wrap=True)
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
