"""The background of a stretch of strain from time slides: python -m mma_realtime.slides FILE..."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from shared.errors import one_line_errors

from mma_realtime.data.strain import read_strain
from mma_realtime.search import report
from mma_realtime.search.arguments import count, finite, new_file
from mma_realtime.search.replay import Searched, psd_text
from mma_realtime.search.scores import check_scored, conditioner_for, informed, score_strain

MONTH = 30 * 86400.0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.slides", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz or HDF5 of one stretch; of two detectors")
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument(
        "--psd", choices=("auto", "trailing", "file"), default="auto",
        help="noise: trailing, of the seconds before and of nothing later, as live; file, of the whole stretch, later "
        "seconds and the event included; auto (default): file where it is shorter than 64 s, else trailing",
    )  # fmt: skip
    parser.add_argument("--step", type=finite, help="s between slides; default: as short as 2,000 s of livetime need")
    parser.add_argument("--min-shift", type=finite, help="s; default and least: the window and 1 s")
    parser.add_argument("--max-slides", type=count, help="at most so many slides")
    parser.add_argument("--correlated", action="store_true", help="allow steps shorter than the window and 1 s")
    parser.add_argument("--on-source", type=finite, nargs="+", default=[], metavar="GPS", help="events to take out")
    parser.add_argument("--threshold", type=finite, help="of the clusters that are counted; default: the model's")
    parser.add_argument(
        "--far", type=finite, nargs="+", default=[], help="false alarms a month: prints the statistic that has them"
    )
    parser.add_argument("--json", type=new_file, help="write the numbers to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    torch.set_num_threads(1)
    model = report.load_model(args.checkpoint)
    strain = read_strain(*args.files)
    console = Console()
    with report.progress_bar(console=console, transient=True) as bar:
        task = bar.add_task("scores", total=strain.duration, last="")
        conditioner = informed(conditioner_for(model, strain.sample_rate), strain, args.psd)
        scores = score_strain(model, strain, conditioner, progress=lambda seconds: bar.update(task, advance=seconds))
    check_scored(scores, strain)
    recipe = model.recipe
    threshold = recipe.threshold if args.threshold is None else args.threshold
    slider = report.Slider(
        threshold, recipe.single_threshold, args.step, args.min_shift, args.max_slides, args.correlated
    )
    with report.progress_bar(console=console, transient=True) as bar:
        task = bar.add_task("slides", total=None, last="")
        stretch = report.slidable(
            model, scores, lambda: (strain, conditioner),
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
        background = slider.background([stretch], args.on_source)
    rates = {far: background.threshold_at(far / MONTH) for far in args.far}
    table = Table(box=None, pad_edge=False)
    table.add_column("statistic at least")
    table.add_column("slides' clusters", justify="right")
    table.add_column("false alarms", justify="right")
    for statistic in sorted({*rates.values(), threshold, *background.statistics[-5:].tolist()}):
        table.add_row(f"{statistic:.3f}", f"{background.count(statistic):,}", str(background.far(statistic)))
    console.print(table)
    for far, statistic in rates.items():
        console.print(f"{far:g} a month: a statistic of {statistic:.3f} or more")
    console.print(psd_text([Searched(int(strain.gps_start), int(strain.gps_end), conditioner.psd)]), soft_wrap=True)
    console.print(report.background_text(background, ""), soft_wrap=True)
    if limit := slider.limit_text([stretch]):
        console.print(limit, soft_wrap=True)
    if args.json:
        content = {
            "model": report.model_dict(model),
            "psd": conditioner.psd,
            "background": report.background_dict(background),
            "statistic_at_far_per_month": {f"{far:g}": statistic for far, statistic in rates.items()},
        }
        report.write_json(args.json, content)
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
