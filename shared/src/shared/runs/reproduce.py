"""`python <paper>/reproduce.py --tier cpu`: run what a tier's claims need, judge the claims, draw the figures.

plan -> key of every run -> those without a result are run -> results/<tier>/results.json -> verdicts
Interrupt it at any moment and call it again: finished runs are read, unfinished ones go on from their checkpoint.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shared.errors import UserError, disk_error, one_line_errors
from shared.runs.gpus import share
from shared.runs.job import Job, Outcome, commit, machine, versions
from shared.runs.key import canonical, run_key
from shared.runs.launch import Launcher, run_jobs
from shared.runs.only import experiments_of
from shared.runs.plan import Experiment, Plan, Selection, load_plan, merge
from shared.runs.store import RunDir, RunStore
from shared.runs.terminal import estimates_table, plan_table, show, show_paper_tables, verdict_table

if TYPE_CHECKING:
    from shared.claims.ledger import Ledger
    from shared.claims.results import ExperimentResult, Kind, Results

Data = tuple[str, "Kind", str]  # fingerprint, kind, detail
RUNS_FAILED = 3  # exit status: some runs failed, the others' results are written (1 is a crash, 2 bad input)


@dataclass
class Prepared:
    """An experiment with its data found and its runs named; `missing` says which data are not there."""

    experiment: Experiment
    data: Data | None
    runs: dict[int, RunDir]
    missing: str = ""

    @property
    def unfinished(self) -> list[int]:
        return [seed for seed, run in self.runs.items() if run.result() is None]


def arguments(paper: str, argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"{paper}/reproduce.py", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--tier", default="quick", help="quick (default), cpu, gpu or paper")
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at a time (default: one for each visible GPU where they train on a GPU, else one for each core); "
        "on a cluster, tasks at a time",
    )
    parser.add_argument("--launcher", choices=["local", "slurm"], default="local", help="processes here, or a cluster")
    parser.add_argument("--slurm", default="", metavar="K=V,...", help="for sbatch: partition=short,timeout_min=120")
    parser.add_argument(
        "--only",
        metavar="NAME,...",
        help="run only these experiments (`*` stands for any text), or those that a claim or a group of claims needs: "
        "T1 for the claims t1.*, in any case of letters",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and try one batch of every experiment")
    parser.add_argument("--brief", action="store_true", help="no table of verdicts at the end")
    return parser.parse_args(argv)


def slurm_settings(text: str) -> dict[str, Any]:
    """`partition=short,timeout_min=120` as submitit's parameters (its own, or `slurm_...`)."""
    settings: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"--slurm: `{part}` is not name=value")
        own = name in ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "nodes", "tasks_per_node")
        settings[name if own or name.startswith("slurm_") else f"slurm_{name}"] = (
            int(value) if value.isdigit() else value
        )
    return settings


def prepare(plan: Plan, store: RunStore) -> list[Prepared]:
    """Find the data of every experiment and name its runs.

    Raises:
        UserError: the data of every experiment are missing.
    """
    if importlib.util.find_spec(plan.paper) is None:
        raise UserError(f"the package {plan.paper} is not installed: run `make setup`")
    fingerprint: Callable[[dict[str, Any]], Data] = importlib.import_module(f"{plan.paper}.experiment").data_fingerprint
    found: dict[str, Data | str] = {}
    out = []
    for experiment in plan.experiments:
        # Many experiments share their data; one without a `data` section says elsewhere what it is measured on.
        section = experiment.config.get("data")
        name = canonical({"data": section} if section else experiment.config)
        if name not in found:
            try:
                found[name] = fingerprint(experiment.config)
            except UserError as error:
                found[name] = str(error)
        data = found[name]
        if isinstance(data, str):
            out.append(Prepared(experiment, None, {}, missing=data))
            continue
        key = partial(run_key, packages=[plan.paper, "shared"], data_fingerprint=data[0])
        if experiment.together:
            run = store.run(key({"config": experiment.config, "seeds": experiment.seeds}))
            runs = dict.fromkeys(experiment.seeds, run)
        else:
            runs = {seed: store.run(key({"config": experiment.config, "seed": seed})) for seed in experiment.seeds}
        out.append(Prepared(experiment, data, runs))
    if all(p.missing for p in out):
        raise UserError(out[0].missing)
    return out


def run_all(
    plan: Plan, jobs: list[Job], reused: int, options: argparse.Namespace, console: Console
) -> dict[Path, Outcome]:
    """Run the jobs under one progress bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=console) as bar:
        name = f"{plan.paper} ({plan.tier})"
        task = bar.add_task(name, total=len(jobs) + reused, completed=reused, last=f"{reused} reused" if reused else "")

        def progress(job: Job, outcome: Outcome) -> None:
            bar.update(task, advance=1, last=last_metric(job, outcome))

        launcher: Launcher = "local" if options.dry_run else options.launcher
        workers, gpus = share([job.config for job in jobs], options.jobs, launcher)
        return run_jobs(jobs, launcher, workers, progress, slurm_settings(options.slurm), gpus)


def last_metric(job: Job, outcome: Outcome) -> str:
    if not outcome.metrics:
        return f"{job.experiment}: {outcome.state}"
    shown = next((m for m in ("test/error", "test/accuracy") if m in outcome.metrics), next(iter(outcome.metrics)))
    return f"{job.experiment}: {shown} {outcome.metrics[shown]:.4g}"


def experiment_result(prepared: Prepared, outcomes: dict[Path, Outcome]) -> ExperimentResult | None:
    """What the store holds of an experiment; None where nothing of it was run, now or before."""
    from shared.claims.results import DataUsed, ExperimentResult, RunResult

    experiment = prepared.experiment
    runs, failed = [], [prepared.missing] if prepared.missing else []
    for seed, run in prepared.runs.items():
        found = run.result()
        outcome = outcomes.get(run.path)
        if found is not None:
            # Seeds that trained together share a folder and, in equal parts, its time.
            together = len(found["seeds"])
            own = next(each for each in found["seeds"] if each["seed"] == seed)
            key = found["key"] if together == 1 else f"{found['key']}.{seed}"
            shared = {name: found[name] for name in ("device", "date", "commit", "versions")}
            runs.append(RunResult(key=key, wall_seconds=found["wall_seconds"] / together, **own, **shared))
        elif outcome is not None:
            which = "all seeds" if experiment.together else f"seed {seed}"
            failed.append(f"{which}: {outcome.message}")
    if not runs and not failed:
        return None
    fingerprint, kind, detail = prepared.data or ("missing", "real", prepared.missing)
    name = str((experiment.config.get("data") or {}).get("dataset", "data"))
    return ExperimentResult(
        title=experiment.title,
        config=experiment.config,
        data=DataUsed(name=name, kind=kind, fingerprint=fingerprint, detail=detail),
        runs=runs,
        failed=failed,
    )


def selected(selection: Selection, results: dict[str, ExperimentResult]) -> ExperimentResult | None:
    """The best of a selection's experiments by the mean over seeds; None until all of them have been run whole.

    Raises:
        UserError: an experiment that was run does not report the metric.
    """
    means: dict[str, float] = {}
    for name in selection.among:
        found = results.get(name)
        if found is None or found.failed or not found.runs:
            return None
        if any(selection.by not in run.metrics for run in found.runs):
            raise UserError(f"selection {selection.name}: {name} reports no metric {selection.by}")
        means[name] = statistics.fmean(run.metrics[selection.by] for run in found.runs)
    best = (min if selection.better == "lower" else max)(means, key=means.__getitem__)
    update = {"title": selection.title, "selected_from": selection.among, "selected_by": selection.by, "chosen": best}
    return results[best].model_copy(update=update)


def assemble(plan: Plan, prepared: list[Prepared], outcomes: dict[Path, Outcome]) -> Results:
    """The tier's results without verdicts; `wall_seconds` is that of all its runs, as if one after another."""
    from shared.claims.results import Results

    experiments: dict[str, ExperimentResult] = {}
    for each in prepared:
        result = experiment_result(each, outcomes)
        # An experiment of which some seeds were never tried (--only) has no result yet.
        if result is not None and len(result.runs) + len(result.failed) >= (len(each.runs) or 1):
            experiments[each.experiment.name] = result
    for selection in plan.selections:
        best = selected(selection, experiments)
        if best is not None:
            experiments[selection.name] = best
    head = commit()
    seconds = {run.key: run.wall_seconds for result in experiments.values() for run in result.runs}
    return Results(
        paper=plan.paper,
        tier=cast(Any, plan.tier),  # checked there
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=head.rstrip("+"),
        dirty=head.endswith("+"),
        machine=machine(),
        versions=versions(),
        wall_seconds=round(sum(seconds.values()), 1),
        experiments=experiments,
        figures=[],
        claims={},
    )


def since_nothing_ran(results: Results, file: Path) -> Results:
    """`results` with the date, commit and machine of `file` where that holds the very same runs."""
    from shared.claims.results import load_results

    try:
        before = load_results(file)
    except UserError:  # there is none, or a damaged one: it is written anew
        return results
    if before.experiments != results.experiments:
        return results
    kept = ("created", "commit", "dirty", "machine", "versions")
    return results.model_copy(update={name: getattr(before, name) for name in kept})


def read_ledger(root: Path, plan: Plan) -> Ledger | None:
    """The paper's claims, read before anything runs; None for a paper that has no ledger yet.

    Raises:
        UserError: a mistake in the ledger, or an experiment in it that the tier does not have.
    """
    from shared.claims.ledger import load_ledger

    file = root / "claims.yaml"
    if not file.is_file():
        return None
    ledger = load_ledger(file)
    names = {experiment.name for experiment in plan.experiments} | {s.name for s in plan.selections}
    for claim in ledger.claims:
        test = claim.tiers.get(cast(Any, plan.tier))
        for name in test.experiments.values() if test else ():
            if name not in names:
                raise UserError(f"{file}: claim {claim.id} names {name}, which is no experiment of tier {plan.tier}")
    return ledger


def judged(results: Results, ledger: Ledger) -> Results:
    """The results with a verdict for every claim of the paper's ledger."""
    from shared.claims.verdicts import judge

    outcomes = {claim.id: judge(claim, results, results.tier) for claim in ledger.claims}
    return results.model_copy(update={"claims": outcomes})


@contextmanager
def told_on_one_line(module: str, file: Path) -> Iterator[None]:
    """Around what a paper's module makes of its results, which `file` holds already.

    Raises:
        UserError: whatever went wrong in there, and where the numbers are; a full disk as such.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"
        full = disk_error(error, error.filename or file.parent) if isinstance(error, OSError) else None
        raise full or UserError(
            f"{module}: {' '.join(what.split())}; the numbers are in {file}. Mend it and run the same command again"
        ) from error


def tabulated(results: Results, file: Path) -> Results:
    """The results with the tables that the paper's `tables.tables(results)` makes of them."""
    module = f"{results.paper}.tables"
    if importlib.util.find_spec(module) is None:
        return results
    with told_on_one_line(module, file):
        return results.model_copy(update={"tables": importlib.import_module(module).tables(results)})


def drawn(results: Results, file: Path) -> Results:
    """The results with the paper's figures drawn into the folder of `file`."""
    from shared.claims.results import FigureRef

    module = f"{results.paper}.figures"
    if importlib.util.find_spec(module) is None:
        return results
    with told_on_one_line(module, file):
        figures = importlib.import_module(module).draw(results, file.parent)
        references = [FigureRef(file=Path(f.file).name, caption=f.caption, alt=f.alt) for f in figures]
        return results.model_copy(update={"figures": references})


def print_plan(prepared: list[Prepared], console: Console) -> None:
    rows = []
    for each in prepared:
        seeds = len(each.experiment.seeds)
        where = f"{each.data[1]}: {each.data[2]}" if each.data else f"missing ({each.missing})"
        rows.append((each.experiment.name, seeds, len(each.unfinished) if each.data else seeds, where))
    show(console, plan_table(rows))


def dry_run(plan: Plan, prepared: list[Prepared], options: argparse.Namespace, console: Console) -> int:
    """One batch of every experiment whose data are there, into a folder that is thrown away."""
    print_plan(prepared, console)
    with tempfile.TemporaryDirectory() as scratch:
        jobs = []
        for each in prepared:
            if each.data:
                name, seeds = each.experiment.name, each.experiment.seeds
                seed = tuple(seeds[:1]) if each.experiment.together else seeds[0]
                config = merge(each.experiment.config, {"trainer": {"fast_dev_run": True}})
                jobs.append(Job(plan.paper, name, seed, config, Path(scratch, name), dry=True, tier=plan.tier))
        outcomes = run_all(plan, jobs, 0, options, console)
        estimates = estimates_table({job.experiment: outcomes[job.run_dir].metrics or {} for job in jobs})
        if estimates is not None:
            show(console, estimates)
        return report_failures(jobs, outcomes)


def report_failures(jobs: list[Job], outcomes: dict[Path, Outcome]) -> int:
    """Print each failed run on one line; the exit status."""
    failed = [(job, outcomes[job.run_dir].message) for job in jobs if outcomes[job.run_dir].state == "failed"]
    for job, message in failed:
        print(f"failed: {job.label}: {message}", file=sys.stderr)
    return RUNS_FAILED if failed else 0


def reproduce(paper: str, root: Path, options: argparse.Namespace, console: Console) -> int:
    plan = load_plan(root, options.tier)
    if plan.paper != paper:
        raise UserError(f"configs/tiers/{options.tier}.yaml says `paper: {plan.paper}`, not {paper}")
    ledger = read_ledger(root, plan)
    names = experiments_of(options.only, plan, ledger)
    prepared = prepare(plan, RunStore(root / "runs"))
    wanted = [p for p in prepared if p.experiment.name in names]
    if options.dry_run:
        return dry_run(plan, wanted, options, console)
    jobs = {
        run.path: Job(
            paper,
            p.experiment.name,
            tuple(p.experiment.seeds) if p.experiment.together else seed,
            p.experiment.config,
            run.path,
            tier=plan.tier,
        )
        for p in wanted
        for seed, run in p.runs.items()
        if seed in p.unfinished
    }
    every = {run.path for p in wanted for run in p.runs.values()}
    outcomes = run_all(plan, list(jobs.values()), len(every) - len(jobs), options, console)

    file = root / "results" / plan.tier / "results.json"
    results = since_nothing_ran(assemble(plan, prepared, outcomes), file)
    if ledger is not None:
        results = judged(results, ledger)
    from shared.claims.results import save

    save(results, file)  # before tables and figures: numbers that are there are kept, whatever these do
    for add in (tabulated, drawn):
        more = add(results, file)
        if more != results:
            save(more, file)
        results = more
    if not options.brief:
        show_paper_tables(console, results)
    if not options.brief and results.claims:
        show(console, verdict_table(results))
    for each in wanted:
        if each.missing:
            print(f"not run: {each.experiment.name}: {each.missing}", file=sys.stderr)
    return report_failures(list(jobs.values()), outcomes)


def main(paper: str, root: Path, argv: list[str] | None = None) -> int:
    """The command of a paper; `root` is its folder. Returns 0, or 3 when a run failed; bad input exits with 2."""
    options = arguments(paper, argv)
    with one_line_errors():
        return reproduce(paper, Path(root).resolve(), options, Console())
