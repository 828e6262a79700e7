"""The import rules cover every module that there is, and break when they are broken."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").is_file(), reason="needs the repository around this package")


def contracts() -> list[dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def papers() -> list[str]:
    line = (ROOT / "Makefile").read_text().split("PAPERS :=")[1].splitlines()[0]
    return line.split()


def modules(paper: str) -> set[str]:
    """Top-level modules and packages of a paper, without its kernels."""
    folder = ROOT / paper / "src" / paper
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    return {f"{paper}.{name}" for name in names - {"__init__", "kernels"}}


def test_every_paper_is_in_every_list() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert rules["root_packages"] == ["shared", *papers()]
    by_name = {contract["name"]: contract for contract in contracts()}
    assert by_name["shared imports no paper"]["forbidden_modules"] == papers()
    assert by_name["papers never import each other"]["modules"] == papers()


@pytest.mark.parametrize("paper", papers() if (ROOT / "Makefile").is_file() else [])
def test_kernels_are_kept_from_every_module_of_their_paper(paper: str) -> None:
    if not (ROOT / paper / "src" / paper / "kernels").is_dir():
        pytest.skip(f"{paper} has no kernels")
    (rule,) = [c for c in contracts() if c.get("source_modules") == [f"{paper}.kernels"]]
    assert set(rule["forbidden_modules"]) == modules(paper)


BREACHES = [
    ("shared/src/shared/errors.py", "import forward_forward", "shared imports no paper"),
    ("forward_forward/src/forward_forward/model.py", "import rpgan_landscape.losses", "papers never import each other"),
    ("forward_forward/src/forward_forward/model.py", "import forward_forward.data", "networks and ideas know neither"),
    ("forward_forward/src/forward_forward/kernels/checks.py", "import forward_forward.model", "kernels import nothing"),
    (
        "rpgan_landscape/src/rpgan_landscape/losses.py",
        "import rpgan_landscape.module",
        "the exact landscape know neither",
    ),
    (
        "rpgan_landscape/src/rpgan_landscape/kernels/checks.py",
        "import rpgan_landscape.nets",
        "kernels of rpgan_landscape",
    ),
]


@pytest.mark.parametrize(("file", "line", "rule"), BREACHES, ids=[breach[2] for breach in BREACHES])
def test_a_breach_is_found(file: str, line: str, rule: str, tmp_path: Path) -> None:
    for project in ("shared", *papers()):
        shutil.copytree(ROOT / project / "src", tmp_path / project / "src")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    sources = os.pathsep.join(str(path) for path in tmp_path.glob("*/src"))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": sources}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert any(rule in text and "BROKEN" in text for text in done.stdout.splitlines()), done.stdout
