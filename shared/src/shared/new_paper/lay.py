"""Lays the skeleton: every file of `template`, the name in the Makefile, and the import rules."""

from __future__ import annotations

import argparse
import keyword
import re
import subprocess
import sys
from pathlib import Path

from shared.errors import UserError
from shared.report.build import refresh
from shared.runs.store import write_atomic

TEMPLATE = Path(__file__).with_name("template")
NAME, DISTRIBUTION = "PAPER_NAME", "PAPER-NAME"  # what stands for the paper in the template
CONTRACT = """
[[tool.importlinter.contracts]]
name = "networks of {name} know neither training nor data"
type = "forbidden"
source_modules = ["{name}.model"]
forbidden_modules = ["{name}.module", "{name}.data", "{name}.experiment"]
"""


def check_name(name: str, root: Path) -> None:
    """Raise `UserError` unless `name` can be a new paper's here."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UserError(f"PAPER is {name!r}: it names a Python package, such as my_paper (a-z, 0-9, single _)")
    if not (root / "Makefile").is_file() or not (root / "pyproject.toml").is_file():
        raise UserError(f"{root} is not the root of the repository: no Makefile or pyproject.toml there")
    if (root / name).exists() or name in ("shared", "docs", "report", "data", "runs", "toy"):
        raise UserError(f"PAPER is {name!r}: there is something of this name already")


def with_paper(text: str, pattern: str, name: str, where: str) -> str:
    """`text` with the name added to the list that `pattern` ends at.

    Raises:
        UserError: no such list, or several.
    """
    found = re.findall(pattern, text)
    if len(found) != 1:
        raise UserError(f"{where}: expected one line like `{pattern}`, found {len(found)}: add {name} by hand")
    return re.sub(pattern, lambda match: match.group(0) + name_in(match.group(0), name), text)


def name_in(before: str, name: str) -> str:
    return f" {name}" if before.startswith("PAPERS") else f', "{name}"'


def lay(name: str, root: Path) -> list[Path]:
    """Write the skeleton; the files that are new or changed.

    Raises:
        UserError: a name that cannot be, or lists in Makefile and pyproject.toml that are not where they should be.
    """
    check_name(name, root)
    makefile, project = root / "Makefile", root / "pyproject.toml"
    rules = project.read_text(encoding="utf-8")
    for pattern in (
        r'root_packages = \["shared"(?:, "\w+")*',
        r'source_modules = \["shared"\]\nforbidden_modules = \["\w+"(?:, "\w+")*',
        r'type = "independence"\nmodules = \["\w+"(?:, "\w+")*',
    ):
        rules = with_paper(rules, pattern, name, "pyproject.toml")
    papers = with_paper(makefile.read_text(encoding="utf-8"), r"PAPERS :=(?: \w+)*", name, "Makefile")

    written = []
    for source in sorted(TEMPLATE.rglob("*.in")):
        inside = str(source.relative_to(TEMPLATE)).removesuffix(".in").replace(NAME, name)
        content = source.read_text(encoding="utf-8").replace(NAME, name).replace(DISTRIBUTION, name.replace("_", "-"))
        write_atomic(root / name / inside, content)
        written.append(root / name / inside)
    # Names sort differently among imports, and fill lines differently.
    for command in (["check", "--select", "I", "--fix"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", str(root / name)], cwd=root, check=False)
    write_atomic(project, rules.rstrip("\n") + "\n" + CONTRACT.format(name=name))
    write_atomic(makefile, papers)
    return [*written, project, makefile, *refresh(root)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make new", description="Lay a small, complete paper to start from.")
    parser.add_argument("name", help="of the Python package and folder, for example my_paper")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: this folder)")
    options = parser.parse_args(argv)
    files = lay(options.name, options.root.resolve())
    print(f"{len(files)} files written; `make lint test-{options.name} reproduce-{options.name}` works now")
    return 0
