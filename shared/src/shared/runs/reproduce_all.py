"""`python -m shared.runs.reproduce_all --tier quick`: every paper in turn, the report, and one table.

Papers are the folders of the repository that hold a `claims.yaml`. Each is run by its own `reproduce.py`, in a
process of its own, so that one paper's trouble is not another's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.errors import UserError, one_line_errors
from shared.runs.reproduce import RUNS_FAILED

VERDICTS = ("reproduced", "trend reproduced", "not reproduced", "not run")


def papers(root: Path) -> list[Path]:
    """The papers' folders, by name.

    Raises:
        UserError: there is none under `root`.
    """
    found = sorted(path.parent for path in root.glob("*/claims.yaml"))
    if not found:
        raise UserError(f"no paper in {root}: run this at the root of the repository")
    return found


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def counted(paper: Path, tier: str) -> Counter[str]:
    """Number of claims of each verdict in what the paper wrote last for this tier."""
    from shared.claims.results import load_results

    file = paper / "results" / tier / "results.json"
    return Counter(str(outcome.verdict) for outcome in load_results(file).claims.values())


def run(root: Path, tier: str, passed_on: list[str], console: Console) -> int:
    table = Table(box=None, pad_edge=False)
    for column in ("paper", *VERDICTS, "time"):
        table.add_column(column, justify="left" if column == "paper" else "right")
    status = 0
    for paper in papers(root):
        if not (paper / "configs" / "tiers" / f"{tier}.yaml").is_file():
            table.add_row(paper.name, *["-"] * len(VERDICTS), f"no tier {tier}")
            continue
        started = time.monotonic()
        command = [sys.executable, str(paper / "reproduce.py"), "--tier", tier, "--brief", *passed_on]
        code = subprocess.run(command, cwd=root, check=False).returncode
        if code in (130, -2):
            raise KeyboardInterrupt
        status = status or code
        took = clock(time.monotonic() - started)
        if code in (0, RUNS_FAILED):
            count = counted(paper, tier)
            table.add_row(paper.name, *[str(count[v]) for v in VERDICTS], took + ("  (runs failed)" if code else ""))
        else:
            table.add_row(paper.name, *["-"] * len(VERDICTS), f"{took}  (stopped)")
    console.print(table)
    for part in ("readme", "build"):  # the tables in the READMEs follow the results too
        done = subprocess.run([sys.executable, "-m", "shared.report", part], cwd=root, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            return status or done.returncode
    print("report: report/index.html")
    return status


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.runs.reproduce_all", description="Run every paper.")
    parser.add_argument("--tier", default="quick", help="quick (default), cpu, gpu or paper")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: this folder)")
    options, passed_on = parser.parse_known_args(argv)
    with one_line_errors():
        return run(options.root.resolve(), options.tier, passed_on, Console())


if __name__ == "__main__":
    raise SystemExit(main())
