"""Replay strain as a stream: python -m mma_realtime.stream --replay FILE_OR_FOLDER...

Strain is pushed a hop at a time through the engine that also runs live; at the end, time slides of the same strain say
how often chance does as well. `--state FILE` keeps snapshots: the same command again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from shared.errors import one_line_errors

from mma_realtime.errors import SearchError
from mma_realtime.search import report
from mma_realtime.search.arguments import finite, new_file
from mma_realtime.search.replay import FAILED, Replay, psd_text, stretch_dicts


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.stream", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--replay", type=Path, nargs="+", required=True, help=".npz or HDF5 files, folders of them")
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument("--speed", choices=("max", "MAX", "1"), default="max", help="1: as fast as it was recorded")
    parser.add_argument("--hop", type=finite, default=1.0, help="s of strain at a time: 1, 0.5 or 0.25")
    parser.add_argument(
        "--psd", choices=("auto", "trailing", "file"), default="auto",
        help="noise: trailing, of the seconds before and of nothing later, as live; file, of the whole stretch, later "
        "seconds and the event included; auto (default): file where it is shorter than 64 s, else trailing",
    )  # fmt: skip
    parser.add_argument("--threshold", type=finite, help="of a trigger's statistic; default: the model's")
    parser.add_argument("--state", type=new_file, help="file of snapshots, to go on from")
    parser.add_argument("--json", type=new_file, help="write triggers and background to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    torch.set_num_threads(1)  # windows of a hop are few: threads only wait for each other
    model = report.load_model(args.checkpoint)
    replay = Replay(model, args.replay, args.hop, args.psd, args.threshold, args.state)
    console = Console()
    begin, done = time.monotonic(), 0.0
    earlier = replay.progress.hops
    with report.progress_bar(console=console, transient=True) as bar:
        task = bar.add_task("stream", total=float(sum(b - a for a, b in replay.spans)), last="")
        try:
            for seconds, found in replay.run(args.speed == "1"):
                done += seconds
                bar.update(task, advance=seconds)
                for trigger in found:
                    bar.update(task, last=f"GPS {trigger.gps:.2f}: {trigger.statistic:.1f}")
        finally:
            took = time.monotonic() - begin
    progress = replay.progress
    if not progress.stretches:
        raise SearchError("; ".join(dict.fromkeys(each.failed for each in progress.failed)))
    recipe = model.recipe
    threshold = recipe.threshold if args.threshold is None else args.threshold
    slider = report.Slider(threshold, recipe.single_threshold)
    with report.progress_bar(console=console, transient=True) as bar:
        slid = bar.add_task("slides", total=None, last="")
        stretches = [
            report.slidable(
                model, scores, partial(replay.stretch(each.gps_start, each.gps_end).again, model, args.psd),
                lambda done, total: bar.update(slid, completed=done, total=total),
            )
            for each, scores in zip(progress.searched, progress.stretches, strict=True)
        ]  # fmt: skip
        rows, background, why = report.judged(progress.triggers, stretches, slider)
    detectors = progress.stretches[0].detectors
    if rows:
        console.print(report.trigger_table(rows, detectors, console.width))
    else:
        console.print(f"no trigger above {threshold:g}")
    console.print(psd_text(progress.searched), soft_wrap=True)
    livetime = sum(scores.livetime for scores in progress.stretches)
    console.print(report.background_text(background, why), soft_wrap=True)
    if limit := slider.limit_text(stretches):
        console.print(limit, soft_wrap=True)
    pushed = (progress.hops - earlier) * args.hop
    speed = f"{pushed / took:.0f} times real time" if pushed and args.speed != "1" else "in real time"
    console.print(f"{livetime:,.0f} s searched in {' and '.join(detectors)}, {speed}", soft_wrap=True)
    for each in progress.failed:
        console.print(f"[red]failed[/red] {each.failed}", soft_wrap=True)
    if args.json:
        content = {
            "model": report.model_dict(model),
            "detectors": list(detectors),
            "searched_s": livetime,
            "threshold": threshold,
            "stretches": stretch_dicts(progress.searched, progress.stretches),
            "failed": {each.where: each.failed for each in progress.failed},
            "triggers": [row.as_dict() | {"model_sha256": model.checksum} for row in rows],
            "background": report.background_dict(background, why),
        }
        report.write_json(args.json, content)
    return FAILED if progress.failed else 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
