"""`python -m shared.dashboard`: the runs of every paper side by side.

With a W&B key: one workspace per paper, written here as code and published (runs grouped by experiment, each measure
of the ledger as a chart, the paper's value beside it). Without one: W&B's own terminal viewer on the local runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as workspaces

from shared.claims.ledger import Claim, Ledger, load_ledger
from shared.errors import UserError, one_line_errors
from shared.tracking import wandb_key_configured

GROUP = "Group"  # W&B's name for the group of a run: our experiment


def measures(ledger: Ledger) -> dict[str, list[Claim]]:
    """The claims by the metric that decides them, under the name that the runs log it by."""
    found: dict[str, list[Claim]] = {}
    for claim in ledger.claims:
        for name in dict.fromkeys(claim.measured_by(tier) for tier in claim.tiers):
            found.setdefault(name, []).append(claim)
    return found


def paper_values(claims: list[Claim]) -> list[tuple[Claim, str, float]]:
    """(claim, role, the paper's value), where the paper gives one."""
    return [(c, role, number.value) for c in claims for role, number in c.paper.items() if number is not None]


def workspace(paper: str, ledger: Ledger, entity: str) -> workspaces.Workspace:
    """The comparison of one paper: a section per measure, with our runs and the paper's values."""
    sections: list[workspaces.Section] = []
    for metric, claims in measures(ledger).items():
        stated = paper_values(claims)
        values = list(dict.fromkeys(value for _, _, value in stated))
        unit = claims[0].metric.unit
        drawn: list = [
            panels.BarPlot(
                title=f"{metric} by experiment (mean over seeds)",
                metrics=[panels.SummaryMetric(metric)],
                groupby=panels.Metric(GROUP),
                groupby_aggfunc="mean",
                groupby_rangefunc="stderr",
                title_x=f"{metric} [{unit}]" if unit else metric,
                max_bars_to_show=50,
                layout=panels.Layout(x=0, y=0, w=12, h=10),
            ),
            panels.LinePlot(
                title=f"{metric} over training; level lines: the paper",
                y=[panels.Metric(metric)],
                groupby=panels.Metric(GROUP),
                groupby_aggfunc="mean",
                groupby_rangefunc="stderr",
                max_runs_to_show=50,
                # W&B has no reference lines: an expression that is constant draws one.
                custom_expressions=[f"${{{metric}}} * 0 + {value:g}" for value in values] or None,
                layout=panels.Layout(x=12, y=0, w=12, h=10),
            ),
        ]
        if stated:
            rows = [f"| {c.where} | {role} | {value:g} {c.metric.unit} |" for c, role, value in stated]
            table = "\n".join(["| where | what | paper |", "|---|---|---|", *rows])
            drawn.append(panels.MarkdownPanel(markdown=table, layout=panels.Layout(x=0, y=10, w=24, h=8)))
        sections.append(workspaces.Section(name=metric, panels=drawn, is_open=not sections))
    return workspaces.Workspace(
        entity=entity,
        project=paper,
        name=f"{ledger.paper.title} ({ledger.paper.venue})",
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis="trainer/global_step", max_runs=100),
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Metric(GROUP)]),
    )


def ledgers(root: Path) -> dict[str, Ledger]:
    """The ledger of every paper under `root`, by folder name."""
    return {path.parent.name: load_ledger(path) for path in sorted(root.glob("*/claims.yaml"))}


def local_runs(root: Path) -> list[Path]:
    """Every run that W&B logged under `root`, oldest first."""
    folders = [path.parent for path in root.glob("*/runs/**/wandb/*run-*/*.wandb")]
    return sorted(dict.fromkeys(folders), key=lambda folder: folder.name)


def gather(runs: list[Path], into: Path) -> Path:
    """One W&B folder that shows all `runs`: the viewer opens one folder, each of our runs has its own."""
    for run in runs:
        shown = into / "wandb" / run.name
        shown.mkdir(parents=True, exist_ok=True)
        for file in run.iterdir():
            (shown / file.name).symlink_to(file.resolve())
    return into / "wandb"


def publish(root: Path) -> None:
    """Save one workspace per paper and print where it is."""
    import wandb

    try:
        entity = os.environ.get("WANDB_ENTITY") or wandb.Api(timeout=20).default_entity or ""
        for paper, ledger in ledgers(root).items():
            print(f"{paper}: {workspace(paper, ledger, entity).save().url}")
    except (wandb.Error, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(f"W&B refused ({first[0]}): check the key, or use --local") from error


def view(root: Path) -> int:
    """Open the local runs in `wandb leet`; returns its exit status."""
    runs = local_runs(root)
    if not runs:
        raise UserError("no runs are logged yet: `make reproduce` or `make train-<paper>` first")
    print(f"{len(runs)} local runs. To publish them: `wandb login`, `make dashboard`, and")
    print(f"  wandb sync {' '.join(sorted({f'{_paper(root, run)}/runs/**/wandb/offline-run-*' for run in runs}))}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("(the viewer needs a terminal: run `make dashboard` in one)")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.call([sys.executable, "-m", "wandb", "leet", str(gather(runs, Path(folder)))])


def _paper(root: Path, run: Path) -> str:
    return run.relative_to(root).parts[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.dashboard", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the repository (default: here)")
    parser.add_argument("--local", action="store_true", help="the terminal viewer even where a key is configured")
    given = parser.parse_args(arguments)
    if wandb_key_configured() and not given.local:
        publish(given.root)
        return 0
    return view(given.root)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
