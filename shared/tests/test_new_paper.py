"""`make new`: the skeleton passes what every paper has to pass, and nothing is written for a name that cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shared.new_paper.lay import lay

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").is_file(), reason="needs the repository around this package")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The repository's sources, without results, environments and runs."""
    copy = tmp_path / "repository"

    def ignored(folder: str, names: list[str]) -> set[str]:
        made = {".venv", ".git", "__pycache__", "wandb"} | {name for name in names if name.endswith(".egg-info")}
        return made if "src" in Path(folder).relative_to(ROOT).parts else made | {"runs", "report", "results", "data"}

    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    sources = os.pathsep.join(str(path) for path in sorted(root.glob("*/src")))
    environment = {**os.environ, "PYTHONPATH": sources, "MYPYPATH": sources, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


NAMES = ("a_paper", "zeta_paper_with_a_rather_long_name")


@pytest.mark.slow
def test_new_papers_pass_lint_and_test_and_reproduce(repository: Path) -> None:
    for name in NAMES:
        before = {path.relative_to(repository).parts[0] for path in repository.rglob("*") if path.is_file()}
        done = run(repository, sys.executable, "-m", "shared.new_paper", name)
        assert done.returncode == 0, done.stderr
        assert f"make lint test-{name} reproduce-{name}" in done.stdout
        after = {path.relative_to(repository).parts[0] for path in repository.rglob("*") if path.is_file()}
        assert after - before - {".ruff_cache"} == {name}  # what it wrote, it formatted
        assert f" {name}\n" in (repository / "Makefile").read_text().split("TIER")[0]
        assert f"[{name}]({name}/README.md)" in (repository / "README.md").read_text()
        assert "PAPER" not in "".join(path.read_text() for path in (repository / name).rglob("*") if path.is_file())
    report = (sys.executable, "-m", "shared.report")
    commands: list[tuple[str, ...]] = [
        (sys.executable, "-m", "ruff", "check", "."),
        (sys.executable, "-m", "ruff", "format", "--check", *NAMES),
        (sys.executable, "-m", "mypy", *(word for name in NAMES for word in ("-p", name))),
        (str(Path(sys.executable).parent / "lint-imports"),),
        (*report, "check"),
    ]
    for name in NAMES:
        commands += [
            (sys.executable, "-m", "pytest", "-p", "no:xdist", f"{name}/tests"),
            (sys.executable, f"{name}/reproduce.py", "--tier", "quick"),
            (*report, "readme"),
            (*report, "check"),
            (sys.executable, f"{name}/benchmarks/bench.py"),
            (sys.executable, "-m", "shared.kernels.build", name),
        ]
    for command in commands:
        done = run(repository, *command)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    for name in NAMES:
        assert (repository / name / "results" / "quick" / "errors.svg").is_file()


def test_the_import_rules_hold_the_new_paper_apart(repository: Path) -> None:
    lay("a_paper", repository)
    (repository / "a_paper/src/a_paper/model.py").write_text(
        '"""Breaks a rule."""\n\nimport forward_forward  # noqa: F401\n'
    )
    done = run(repository, str(Path(sys.executable).parent / "lint-imports"))
    assert done.returncode != 0
    assert "papers never import each other BROKEN" in done.stdout
    (repository / "a_paper/src/a_paper/model.py").write_text(
        '"""Breaks another."""\n\nimport a_paper.data  # noqa: F401\n'
    )
    done = run(repository, str(Path(sys.executable).parent / "lint-imports"))
    assert "networks of a_paper know neither training nor data BROKEN" in done.stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "PAPER is ''"),
        ("My-Paper", "it names a Python package"),
        ("class", "it names a Python package"),
        ("2fast", "it names a Python package"),
        ("../evil", "it names a Python package"),
        ("shared", "there is something of this name already"),
        ("forward_forward", "there is something of this name already"),
    ],
)
def test_names_that_cannot_be(name: str, says: str, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / file, root / file)
    (root / "forward_forward").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "shared.new_paper", name, "--root", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in root.iterdir()} == {"Makefile", "pyproject.toml", "forward_forward"}


def test_outside_a_repository(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shared.new_paper", "a_paper", "--root", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "is not the root of the repository" in done.stderr
