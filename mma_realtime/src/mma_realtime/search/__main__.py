"""Search files of strain, many at once: python -m mma_realtime.search FILE...

Files of the same seconds, one detector each, and files that follow each other are one stretch, as in a stream; a hole
longer than a minute ends it. Each stretch is a job of the launcher. Stretches that were searched before with the same
model and code are read, not searched again. The false-alarm rates come from time slides within the stretches, added up.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from shared.errors import one_line_errors
from shared.runs.job import Job, Outcome, cores
from shared.runs.key import run_key
from shared.runs.launch import run_jobs

from mma_realtime.data.strain_files import SAMPLE_RATE, span
from mma_realtime.data.strain_parts import by_detector, listed, preferred, spans
from mma_realtime.errors import SearchError
from mma_realtime.search import report
from mma_realtime.search.arguments import finite, new_file
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.experiment import stretch_of
from mma_realtime.search.model_file import DEFAULT, SearchModel
from mma_realtime.search.replay import FAILED, Searched, psd_text, stretch_dicts

RUNS = DEFAULT.parents[2] / "runs" / "search"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.search", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz or HDF5 files, or folders of them")
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument(
        "--psd", choices=("auto", "trailing", "file"), default="auto",
        help="noise: trailing, of the seconds before and of nothing later, as live; file, of the whole stretch, later "
        "seconds and the event included; auto (default): file where it is shorter than 64 s, else trailing",
    )  # fmt: skip
    parser.add_argument("--threshold", type=finite, help="of a trigger's statistic; default: the model's")
    parser.add_argument("--step", type=finite, help="s between slides; default: as short as 2,000 s of livetime need")
    parser.add_argument("--jobs", type=int, help="processes at once; default: one a core")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of what was searched")
    parser.add_argument("--json", type=new_file, help="write triggers and background to this file")
    return parser


class Group(NamedTuple):
    """The files of one stretch, its GPS range in s, and the detectors that all files together are of."""

    files: list[Path]
    gps: tuple[int, int]
    detectors: tuple[str, ...]


def grouped(paths: Sequence[Path]) -> list[Group]:
    """The stretches of these files, in the order of time; those that `stream` finds in them.

    Raises:
        StrainError: a folder without strain, or a file that cannot be read.
    """
    parts = sorted(listed(dict.fromkeys(paths)), key=lambda part: (part.gps_start, str(part.path)))
    kept = preferred(parts, SAMPLE_RATE)
    detectors = tuple(by_detector(kept))
    groups = []
    for first, last in spans(kept):
        files = dict.fromkeys(part.path for part in kept if first <= part.gps_start < last)
        groups.append(Group(list(files), (first, last), detectors))
    return groups


def contents(files: Sequence[Path]) -> str:
    """SHA-256 of the files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def jobs_of(groups: Sequence[Group], model: SearchModel, args: argparse.Namespace) -> list[Job]:
    of_files = [group.files for group in groups]
    names = [files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more" for files in of_files]
    jobs = []
    for name, (files, gps, detectors) in zip(names, groups, strict=True):
        config: dict[str, Any] = {
            "psd": args.psd, "threshold": args.threshold, "model": model.checksum, "gps": gps, "detectors": detectors,
        }  # fmt: skip
        key = run_key(config, ["mma_realtime", "shared"], contents(files))
        config |= {
            "files": [str(file.resolve()) for file in files],
            "checkpoint": str((model.path or DEFAULT).resolve()),
        }
        name = name if names.count(name) == 1 else f"{name}, {span(*gps)}"
        jobs.append(Job("mma_realtime.search", name, 0, config, args.runs / key))
    return jobs


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    model = report.load_model(args.checkpoint)
    jobs = jobs_of(grouped(args.files), model, args)
    console = Console()
    with report.progress_bar(console=console, transient=True) as bar:
        task = bar.add_task("search", total=len(jobs), last="")

        def ended(job: Job, outcome: Outcome) -> None:
            bar.update(task, advance=1, last=f"{job.experiment}: {outcome.state}")

        outcomes = run_jobs(jobs, args.launcher, cores() if args.jobs is None else args.jobs, ended)
    failed = {job.experiment: outcomes[job.run_dir].message for job in jobs if outcomes[job.run_dir].state != "done"}
    done = [job for job in jobs if job.experiment not in failed]
    if not done:
        raise SearchError("; ".join(f"{name}: {message}" for name, message in failed.items()))
    scores = [report.read_scores(job.run_dir / "scores.npz") for job in done]
    triggers: list[Trigger] = []
    searched: list[Searched] = []
    for job in done:
        before = max((t.event for t in triggers), default=0)
        found = json.loads((job.run_dir / "triggers.json").read_bytes())
        triggers += [replace(t, event=t.event + before) for t in map(Trigger.from_dict, found["triggers"])]
        first, last = job.config["gps"]
        searched.append(Searched(first, last, found["psd"]))
    recipe = model.recipe
    threshold = recipe.threshold if args.threshold is None else args.threshold
    slider = report.Slider(threshold, recipe.single_threshold, args.step)
    with report.progress_bar(console=console, transient=True) as bar:
        task = bar.add_task("slides", total=None, last="")
        stretches = [
            report.slidable(
                model, mine, partial(stretch_of(job.config).again, model, args.psd),
                lambda done, total: bar.update(task, completed=done, total=total),
            )
            for job, mine in zip(done, scores, strict=True)
        ]  # fmt: skip
        rows, background, why = report.judged(triggers, stretches, slider)
    if rows:
        console.print(report.trigger_table(rows, scores[0].detectors, console.width))
    else:
        console.print(f"no trigger above {threshold:g}")
    console.print(report.background_text(background, why), soft_wrap=True)
    if limit := slider.limit_text(stretches):
        console.print(limit, soft_wrap=True)
    livetime = sum(each.livetime for each in scores)
    console.print(psd_text(searched), soft_wrap=True)
    console.print(f"{livetime:,.0f} s searched in {len(done)} stretches", soft_wrap=True)
    for name, message in failed.items():
        console.print(f"[red]failed[/red] {name}: {message}", soft_wrap=True)
    if args.json:
        content = {
            "model": report.model_dict(model),
            "searched_s": livetime,
            "threshold": threshold,
            "stretches": [
                {"files": job.config["files"]} | each for job, each in zip(done, stretch_dicts(searched, scores))
            ],
            "failed": failed,
            "triggers": [row.as_dict() | {"model_sha256": model.checksum} for row in rows],
            "background": report.background_dict(background, why),
        }
        report.write_json(args.json, content)
    return FAILED if failed else 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
