"""Search files of strain, many at once: python -m mma_realtime.search FILE...

Files of the same seconds (one detector each) are searched together, each such stretch as one job of the launcher.
Stretches that were searched before with the same model and code are read, not searched again. The false-alarm rates
come from time slides within the stretches, added up.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from shared.errors import one_line_errors
from shared.runs.job import Job, Outcome, cores
from shared.runs.key import run_key
from shared.runs.launch import run_jobs

from mma_realtime.data.strain_files import SUFFIXES, holds_strain, stretches
from mma_realtime.errors import SearchError
from mma_realtime.search import report
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.model_file import DEFAULT, SearchModel

RUNS = DEFAULT.parents[2] / "runs" / "search"
FAILED = 3  # exit status: some stretches failed, the others' triggers are told


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.search", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz or HDF5 files, or folders of them")
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument(
        "--psd", choices=("auto", "trailing", "file"), default="auto",
        help="noise: of the seconds before, or of the whole file; auto: of the file where it is shorter than a minute",
    )  # fmt: skip
    parser.add_argument("--threshold", type=float, help="of a trigger's statistic; default: the model's")
    parser.add_argument("--step", type=float, help="s between slides; default: as short as 2,000 s of livetime need")
    parser.add_argument("--jobs", type=int, help="processes at once; default: one a core")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of what was searched")
    parser.add_argument("--json", type=Path, help="write triggers and background to this file")
    return parser


def grouped(paths: Sequence[Path]) -> list[list[Path]]:
    """Files that share seconds, in the order of time.

    Raises:
        SearchError: a folder without strain. StrainError: a file that cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        inside = (
            sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and holds_strain(p)) if path.is_dir() else [path]
        )
        if not inside:
            raise SearchError(f"{path} holds no strain: files ending in {', '.join(SUFFIXES)} are expected")
        files += inside
    spans = []
    for file in dict.fromkeys(files):
        parts = stretches(file)
        spans.append((min(p.gps_start for p in parts), max(p.gps_end for p in parts), file))
    groups: list[list[Path]] = []
    last = -1
    for first, end, file in sorted(spans):
        if first < last:
            groups[-1].append(file)
        else:
            groups.append([file])
        last = max(last, end)
    return groups


def contents(files: Sequence[Path]) -> str:
    """SHA-256 of the files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def jobs_of(groups: Sequence[Sequence[Path]], model: SearchModel, args: argparse.Namespace) -> list[Job]:
    jobs = []
    for files in groups:
        config: dict[str, Any] = {"psd": args.psd, "threshold": args.threshold, "model": model.checksum}
        key = run_key(config, ["mma_realtime", "shared"], contents(files))
        config |= {
            "files": [str(file.resolve()) for file in files],
            "checkpoint": str((model.path or DEFAULT).resolve()),
        }
        name = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
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
    for job in done:
        before = max((t.event for t in triggers), default=0)
        found = [Trigger.from_dict(each) for each in json.loads((job.run_dir / "triggers.json").read_bytes())]
        triggers += [replace(t, event=t.event + before) for t in found]
    recipe = model.recipe
    threshold = recipe.threshold if args.threshold is None else args.threshold
    slider = report.Slider(threshold, recipe.single_threshold, args.step)
    rows, background, why = report.judged(triggers, scores, slider)
    if rows:
        console.print(report.trigger_table(rows, scores[0].detectors))
    else:
        console.print(f"no trigger above {threshold:g}")
    console.print(report.background_text(background, why), soft_wrap=True)
    searched = sum(each.livetime for each in scores)
    console.print(f"{searched:,.0f} s searched in {len(done)} stretches", soft_wrap=True)
    for name, message in failed.items():
        console.print(f"[red]failed[/red] {name}: {message}", soft_wrap=True)
    if args.json:
        content = {
            "model": report.model_dict(model),
            "searched_s": searched,
            "threshold": threshold,
            "stretches": [{"files": job.config["files"], "livetime_s": s.livetime} for job, s in zip(done, scores)],
            "failed": failed,
            "triggers": [row.as_dict() for row in rows],
            "background": report.background_dict(background, why),
        }
        report.write_json(args.json, content)
    return FAILED if failed else 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
