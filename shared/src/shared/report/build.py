"""`python -m shared.report build|readme|check`: the page, the tables in the READMEs, and whether these are current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shared.claims.ledger import Claim
from shared.claims.results import VERDICTS, ExperimentResult, Results, save
from shared.claims.schema import TIERS
from shared.errors import UserError, one_line_errors
from shared.report import kernels, text
from shared.report.collect import PaperPage, misnamed, outdated, read_papers, verdicts
from shared.report.readme import readmes
from shared.report.svg import inline
from shared.runs.store import write_atomic

HERE = Path(__file__).parent


def figures(page: PaperPage) -> list[dict[str, Any]]:
    """The figures of every tier that drew some, highest tier first, ready for the page."""
    out = []
    for tier in reversed(TIERS):
        drawn = []
        results = page.results.get(tier)
        for reference in results.figures if results else []:
            file = page.folder / "results" / tier / reference.file
            markup, width = inline(file, f"{page.name}-{tier}-{file.stem}", reference.alt)
            drawn.append({"svg": Markup(markup), "width": width, "caption": reference.caption, "alt": reference.alt})
        if drawn:
            out.append({"tier": tier, "drawn": drawn})
    return out


def tables(page: PaperPage) -> list[dict[str, Any]]:
    """The tables of every tier that made some, highest tier first."""
    found = ((tier, page.results.get(tier)) for tier in reversed(TIERS))
    return [{"tier": tier, "tables": results.tables} for tier, results in found if results and results.tables]


def data_of(claim: Claim, page: PaperPage, tier: Any) -> str:
    """The data behind our numbers of a claim: `mnist (real)`; empty where there are none."""
    results, test = page.results.get(tier), claim.tiers.get(tier)
    if results is None or test is None:
        return ""
    used = [results.experiments[name].data for name in test.experiments.values() if name in results.experiments]
    return ", ".join(sorted({f"{data.name} ({data.kind})" for data in used}))


def data_lines(results: Results) -> list[str]:
    """Each data set that a tier used, with what was found of it, once."""
    used = [experiment.data for experiment in results.experiments.values() if experiment.data.detail]
    return sorted({f"{data.name} ({data.kind}): {data.detail}" for data in used})


def config(experiment: ExperimentResult) -> str:
    return yaml.safe_dump(experiment.config, sort_keys=True, default_flow_style=None, width=78, allow_unicode=True)


def render(root: Path, pages: list[PaperPage]) -> str:
    """The whole page; the same text for the same ledgers and results."""
    evidence = kernels.read_evidence(root / "docs" / "gpu-evidence.md")
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        text=text,
        figures=figures,
        tables=tables,
        data_of=data_of,
        config=config,
        data_lines=data_lines,
        shapes=text.SHAPES,
        verdicts=VERDICTS,
    )
    listed: Mapping[str, Any] = {
        "pages": pages,
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),
        "evidence": evidence,
        "columns": kernels.COLUMNS,
        "not_run": kernels.without_evidence([page.folder for page in pages], evidence),
        "has_evidence_file": (root / "docs" / "gpu-evidence.md").is_file(),
        "total": {verdict: sum(page.count[verdict] for page in pages) for verdict in VERDICTS},
    }
    return environment.get_template("page.html.j2").render(listed)


def build(root: Path) -> Path:
    """Write `report/index.html`."""
    target = root / "report" / "index.html"
    write_atomic(target, render(root, read_papers(root)))
    return target


def refresh(root: Path) -> list[Path]:
    """Bring the tables in the READMEs, and the verdicts stored with the results, up to date; the files that changed."""
    pages = read_papers(root)
    changed = []
    for page in pages:
        for tier, results in page.results.items():
            current = verdicts(page, tier)
            if results.claims != current:
                file = page.folder / "results" / tier / "results.json"
                save(results.model_copy(update={"claims": current}), file)
                changed.append(file)
    for path, (old, new) in readmes(root, pages).items():
        if old != new:
            write_atomic(path, new)
            changed.append(path)
    return changed


def problems(root: Path) -> list[str]:
    """What `check` finds, a line each."""
    pages = read_papers(root)
    out = [line for page in pages for line in misnamed(page)]
    out += [f"{line}: run `make report`" for page in pages for line in outdated(page)]
    for path, (old, new) in readmes(root, pages).items():
        if old != new:
            out.append(f"{path}: its table is stale: run `make report`")
    render(root, pages)  # a figure or an evidence file that can't be shown is an error here
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; 0, 1 where `check` finds something, 2 for input that is wrong."""
    parser = argparse.ArgumentParser(prog="python -m shared.report", description="The report and the READMEs' tables.")
    parser.add_argument("command", choices=["build", "readme", "check"])
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: this folder)")
    options = parser.parse_args(argv)
    root: Path = options.root
    with one_line_errors():
        if not root.is_dir():
            raise UserError(f"--root {options.root}: no such folder")
        if options.command == "build":
            print(build(root).relative_to(root))
        elif options.command == "readme":
            for path in refresh(root):
                print(path.relative_to(root))
        else:
            found = problems(root)
            for line in found:
                print(line, file=sys.stderr)
            return 1 if found else 0
    return 0
