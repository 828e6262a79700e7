"""The command of a paper: killed, doubled, starved of disk, it ends with the numbers of an undisturbed run."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from shared.claims.results import load_results

TOY = Path(__file__).parent / "toy"
KILLS = 20


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TOY, tmp_path / "toy"))


def start(toy: Path, *arguments: str, **keywords: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(toy / "src"), "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.Popen(
        [sys.executable, str(toy / "reproduce.py"), *arguments],
        cwd=toy.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )


def reproduce(toy: Path, *arguments: str, code: int = 0, **keywords: Any) -> tuple[str, str]:
    process = start(toy, *arguments, **keywords)
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, out + err
    return out, err


def numbers(toy: Path, tier: str = "quick") -> dict[str, Any]:
    """All that was measured: by experiment and seed, metrics and curves, every bit of them."""
    results = load_results(toy / "results" / tier / "results.json")
    return {
        name: {run.seed: (run.metrics, run.curves) for run in experiment.runs}
        for name, experiment in results.experiments.items()
    }


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def steps_made(toy: Path) -> int:
    return sum(file.read_text().count("\n") for file in toy.glob("runs/*/steps.txt"))


def pause(process: subprocess.Popen, seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_numbers(toy: Path, tmp_path: Path) -> None:
    undisturbed = Path(shutil.copytree(toy, tmp_path / "other" / "toy"))
    reproduce(undisturbed)

    moments = random.Random(0)
    struck = 0
    for kill in range(KILLS):
        process = start(toy)
        if kill % 4 == 0:  # while it plans or its workers load torch
            pause(process, moments.uniform(0.0, 1.0))
        else:  # in the middle of its runs: some steps on, and somewhere between two checkpoints
            goal = steps_made(toy) + moments.randint(1, 12)
            while process.poll() is None and steps_made(toy) < goal:
                pause(process, 0.002)
            pause(process, moments.uniform(0.0, 0.01))
        struck += process.poll() is None
        process.kill()
        process.communicate()
        for file in toy.glob("results/*/results.json"):
            load_results(file)  # there is none, or a whole one
    reproduce(toy)

    assert numbers(toy) == numbers(undisturbed)
    assert struck == KILLS
    # Steps were lost to the kills, but runs were resumed, not begun again: at most one step of each worker per kill.
    assert 6 * 40 < steps_made(toy) <= 6 * 40 + 2 * KILLS
    left = {path.name for path in toy.glob("runs/*/*")}
    assert left == {"result.json", "run.lock", "log.txt", "steps.txt", "clock.json"}


def test_two_at_once_share_the_work(toy: Path) -> None:
    first, second = start(toy), start(toy)
    for process in (first, second):
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, out + err
    assert {name: sorted(runs) for name, runs in numbers(toy).items()} == {
        "gain_low": [0, 1, 2], "gain_high": [0, 1, 2], "best": [0, 1, 2],
    }  # fmt: skip
    for file in toy.glob("runs/*/steps.txt"):
        assert file.read_text().split() == [str(step) for step in range(40)]  # each run was made once


def test_results_say_what_was_run_and_what_was_chosen(toy: Path) -> None:
    out, _ = reproduce(toy)
    assert "toy (quick)" in out
    assert "6/6" in out
    file = toy / "results" / "quick" / "results.json"
    results = load_results(file)
    low, high, best = (results.experiments[name] for name in ("gain_low", "gain_high", "best"))
    assert low.config["model"] == {"gain": 0.1, "work": 20}
    assert (low.data.name, low.data.kind, low.data.fingerprint) == ("noise", "synthetic", "f" * 64)
    assert (best.chosen, best.selected_by, best.title) == ("gain_low", "val/size", "the smaller")
    assert best.runs == low.runs != high.runs
    assert results.versions["torch"] == results.experiments["gain_low"].runs[0].versions["torch"]
    assert results.wall_seconds == round(sum(run.wall_seconds for e in (low, high) for run in e.runs), 1)

    before = file.read_bytes()
    out, _ = reproduce(toy)
    assert "6 reused" in out
    assert file.read_bytes() == before


def test_only_one_experiment(toy: Path) -> None:
    reproduce(toy, "--only", "gain_h*")
    assert list(numbers(toy)) == ["gain_high"]
    reproduce(toy, "--only", "gain_low", "--jobs", "1")
    assert list(numbers(toy)) == ["gain_low", "gain_high", "best"]  # what was there stays
    _, err = reproduce(toy, "--only", "nothing", code=2)
    assert err == (
        "error: --only: `nothing` is no experiment of tier quick and no group of its claims. "
        "Groups: none. Experiments: gain_low, gain_high, best\n"
    )


def test_only_what_some_claims_need(toy: Path) -> None:
    (toy / "claims.yaml").write_text(CLAIMS)
    edit(toy / "configs" / "base.yaml", "max_epochs: 40", "max_epochs: 1")
    _, err = reproduce(toy, "--only", "T9,gain_high", code=2)
    assert "`T9` is no experiment of tier quick and no group of its claims. Groups: smaller, larger. Exp" in err
    assert not (toy / "runs").exists()
    edit(toy / "claims.yaml", "low: gain_low, high: gain_high}", "low: gain_low}, not_run: later")
    reproduce(toy, "--only", "Smaller", "--jobs", "1")
    assert list(numbers(toy)) == ["gain_low"]


def test_runs_are_dealt_out_over_the_gpus(toy: Path) -> None:
    edit(toy / "configs" / "base.yaml", "max_epochs: 40", "max_epochs: 1")
    two = "import shared.runs.gpus\n\nshared.runs.gpus.visible = lambda: ['4', '7']\n\nif __name__"
    edit(toy / "reproduce.py", "if __name__", two)

    def seen() -> set[str]:
        return {file.read_text().splitlines()[0] for file in toy.glob("runs/*/log.txt")}

    reproduce(toy)
    assert seen() == {"GPUs: 4", "GPUs: 7"}
    shutil.rmtree(toy / "runs")
    edit(toy / "configs" / "base.yaml", "max_epochs: 1", "max_epochs: 1, accelerator: cpu")
    reproduce(toy)
    assert not seen() & {"GPUs: 4", "GPUs: 7"}


def test_help_says_how_many_runs_go_on_at_a_time(toy: Path) -> None:
    out, _ = reproduce(toy, "--help")
    help_text = " ".join(out.split())
    assert (
        "runs at a time (default: one for each visible GPU where they train on a GPU, else one for each core)"
        in help_text
    )
    assert "T1 for the claims t1.*" in help_text


def test_a_changed_setting_is_a_new_run(toy: Path) -> None:
    reproduce(toy, "--only", "gain_low")
    before = numbers(toy)
    edit(toy / "configs" / "tiers" / "quick.yaml", "model.gain: 0.1", "model.gain: 0.15")
    reproduce(toy, "--only", "gain_low")
    assert numbers(toy) != before
    assert len(list(toy.glob("runs/*/result.json"))) == 6


def test_failed_and_missing_experiments_are_named_and_the_rest_is_run(toy: Path) -> None:
    edit(
        toy / "configs" / "tiers" / "quick.yaml",
        "high: {model.gain: 3e-1}",
        "high: {model.behaviour: raise}, lost: {data.dataset: absent}",
    )
    _, err = reproduce(toy, code=3)
    lines = err.splitlines()
    assert lines[0] == "not run: gain_lost: the data set `absent` is not here: get it from nowhere"
    assert [line[:49] for line in lines[1:]] == [
        f"failed: gain_high, seed {seed}: ValueError: the toy is" for seed in (0, 1, 2)
    ]
    results = load_results(toy / "results" / "quick" / "results.json")
    assert len(results.experiments["gain_low"].runs) == 3
    assert results.experiments["gain_high"].failed[0].startswith("seed 0: ValueError: the toy is broken")
    assert results.experiments["gain_lost"].failed == ["the data set `absent` is not here: get it from nowhere"]
    assert "best" not in results.experiments  # never chosen from a part of its candidates


def test_experiments_without_a_data_section_have_data_of_their_own(toy: Path) -> None:
    """Two kinds of measurement that read no file: neither takes the other's fingerprint, and so its run's key."""
    (toy / "configs" / "base.yaml").write_text("model: {work: 1}\ntrainer: {max_epochs: 1}\n")
    edit(toy / "configs" / "tiers" / "quick.yaml", "low: {model.gain: 0.1}", "low: {model.gain: 0.1, cost.size: 4}")
    reproduce(toy)
    results = load_results(toy / "results" / "quick" / "results.json")
    told = {name: results.experiments[name].data.detail for name in ("gain_low", "gain_high")}
    assert told == {"gain_low": "no data: cost, model, trainer", "gain_high": "no data: model, trainer"}


def test_a_full_disk(toy: Path) -> None:
    reproduce(toy, "--only", "gain_low")
    file = toy / "results" / "quick" / "results.json"
    before = file.read_bytes()

    def little_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    _, err = reproduce(toy, code=2, preexec_fn=little_space)
    assert err.startswith("error: no space left to write ")
    assert len(err.splitlines()) == 1
    assert file.read_bytes() == before
    reproduce(toy)
    assert list(numbers(toy)) == ["gain_low", "gain_high", "best"]


TABLES = """from shared.claims.results import Table


def tables(results):
    cells = [results.claims["smaller"].verdict, str(len(results.experiments["LOW"].runs))]
    return [Table(title="All", columns=["verdict", "seeds"], rows=[cells])]
"""
FIGURES = """from shared.figures import Figure


def draw(results, folder):
    (folder / "size.svg").write_text(f"<svg>{results.tables[0].rows[0][1]}</svg>")
    return [Figure(folder / "size.svg", caption="Sizes.", alt="Sizes.")]
"""


def test_numbers_are_kept_whatever_tables_and_figures_do(toy: Path) -> None:
    package, file = toy / "src" / "toy", toy / "results" / "quick" / "results.json"
    (toy / "claims.yaml").write_text(CLAIMS)
    (package / "tables.py").write_text(TABLES)
    (package / "figures.py").write_text(FIGURES.replace("tables[0]", "tables[1]"))

    _, err = reproduce(toy, code=2)
    kept = f"the numbers are in {file}. Mend it and run the same command again"
    assert err == f"error: toy.tables: KeyError: 'LOW' (tables.py, line 5); {kept}\n"
    results = load_results(file)
    assert results.claims["smaller"].verdict == "trend reproduced"
    assert len(results.experiments["gain_high"].runs) == 3

    (package / "tables.py").write_text(TABLES.replace("LOW", "gain_low"))
    _, err = reproduce(toy, code=2)
    assert err == f"error: toy.figures: IndexError: list index out of range (figures.py, line 5); {kept}\n"
    assert load_results(file).tables[0].rows == [["trend reproduced", "3"]]

    (package / "figures.py").write_text(FIGURES)
    out, _ = reproduce(toy)
    assert "6 reused" in out
    results = load_results(file)
    assert [figure.file for figure in results.figures] == ["size.svg"]
    assert results.tables[0].rows == [["trend reproduced", "3"]]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'size.svg')", "no space left to write size.svg (No space"),
        ("UserError('size.svg: not today')", "size.svg: not today\n"),
        ("FileNotFoundError(errno.ENOENT, 'none', 'size.svg')", "toy.figures: FileNotFoundError: [Errno 2] none: "),
        ("ValueError('two\\nlines')", "toy.figures: ValueError: two lines (figures.py, line 5); the numbers"),
    ],
)
def test_a_full_disk_while_figures_are_drawn_is_told_as_one(toy: Path, mistake: str, message: str) -> None:
    code = f"import errno, os\nfrom shared.errors import UserError\n\ndef draw(results, folder):\n    raise {mistake}\n"
    (toy / "src" / "toy" / "figures.py").write_text(code)
    edit(toy / "configs" / "base.yaml", "max_epochs: 40", "max_epochs: 1")
    _, err = reproduce(toy, code=2)
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1
    assert list(numbers(toy)) == ["gain_low", "gain_high", "best"]


def test_a_dry_run_leaves_nothing(toy: Path) -> None:
    before = sorted(toy.rglob("*.*"))
    out, _ = reproduce(toy, "--dry-run")
    assert "gain_high" in out
    assert "2/2" in out
    assert [path for path in sorted(toy.rglob("*.*")) if "__pycache__" not in str(path)] == before
    edit(toy / "configs" / "base.yaml", "gain: 0.2", "gain: 0.2, behaviour: raise")
    _, err = reproduce(toy, "--dry-run", code=3)
    assert "failed: gain_low, seed 0: ValueError: the toy is broken" in err


def test_an_interrupt_says_how_to_go_on(toy: Path) -> None:
    edit(toy / "configs" / "base.yaml", "gain: 0.2", "gain: 0.2, behaviour: hold")
    # What a shell starts in the background ignores Ctrl-C, and so do its children: not this one.
    process = start(toy, "--jobs", "1", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while not list(toy.glob("runs/*/died")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted: run the same command again to go on from here\n"


def test_every_paper_then_the_report_and_one_table(toy: Path) -> None:
    shutil.copytree(toy, toy.parent / "broken")
    (toy.parent / "broken" / "reproduce.py").write_text("raise SystemExit('error: broken')\n")
    (toy.parent / "later").mkdir()
    for paper in ("toy", "broken", "later"):
        (toy.parent / paper / "claims.yaml").write_text(CLAIMS)
    command = [sys.executable, "-m", "shared.runs.reproduce_all", "--tier", "quick", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(toy / "src"), "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=toy.parent, env=environment, capture_output=True, text=True, timeout=100)
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "6/6" in done.stdout, done.stderr
    heads = ["paper", "reproduced", "trend reproduced", "not reproduced", "not run", "time"]
    assert lines["paper"].split() == " ".join(heads).split()
    assert "stopped" not in lines["toy"], done.stderr
    assert lines["toy"].split()[1:5] == ["0", "1", "1", "0"]
    assert "stopped" in lines["broken"]
    assert "no tier quick" in lines["later"]
    assert done.returncode == 1
    outcomes = json.loads((toy / "results" / "quick" / "results.json").read_text())["claims"]
    assert outcomes["smaller"]["verdict"] == "trend reproduced"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("high: gain_high}", "high: gain_hi}", "claim smaller names gain_hi, which is no experiment of tier quick"),
        ("where: Table 1", "were: Table 1", "claim smaller.where: is missing"),
    ],
)
def test_mistakes_in_the_ledger_are_found_before_anything_runs(toy: Path, old: str, new: str, message: str) -> None:
    (toy / "claims.yaml").write_text(CLAIMS)
    edit(toy / "claims.yaml", old, new)
    _, err = reproduce(toy, code=2)
    assert err.startswith(f"error: {toy / 'claims.yaml'}: ")
    assert message in err
    assert not (toy / "runs").exists()


def test_no_paper_here(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shared.runs.reproduce_all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2, f"error: no paper in {tmp_path}: run this at the root of the repository\n",
    )  # fmt: skip


CLAIMS = """
paper: {title: Toy, venue: none, arxiv: none, code: none, source: primary, differs: []}
claims:
  - id: smaller
    where: Table 1
    says: A low gain gives a smaller state.
    metric: {name: val/size, unit: "", better: lower}
    paper: {low: 0.1, high: 0.7}
    rule: {kind: order, smaller: low, larger: high, margin_se: 2, min_seeds: 3}
    tiers: {quick: {experiments: {low: gain_low, high: gain_high}, setting: small}}
  - id: larger
    where: Table 2
    says: The best has a larger state than a high gain.
    metric: {name: val/size, unit: "", better: lower}
    paper: {best: 0.8, high: 0.7}
    rule: {kind: order, smaller: high, larger: best, margin_se: 2, min_seeds: 3}
    tiers: {quick: {experiments: {best: best, high: gain_high}, setting: small}}
"""
