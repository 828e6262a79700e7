"""Seeds that train as one program: one job, one folder, and a row for every seed; and tables beside the claims."""

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError
from shared.claims.results import Table, load_results
from shared.runs.job import Job, execute
from shared.runs.plan import load_plan
from test_runs_reproduce import TOY, edit, numbers, reproduce

TABLES = """
from shared.claims.results import Table

def tables(results):
    rows = [[name, str(len(e.runs))] for name, e in results.experiments.items()]
    return [Table(title="Seeds of each", columns=["experiment", "seeds"], rows=rows, note="Counted.")]
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(TOY, tmp_path / "toy"))
    edit(copy / "configs" / "tiers" / "quick.yaml", "    seeds: [0, 1, 2]", "    seeds: [0, 1, 2]\n    together: true")
    return copy


def test_a_tier_says_so(toy: Path) -> None:
    assert [e.together for e in load_plan(toy, "quick").experiments] == [True, True]
    assert [e.together for e in load_plan(TOY, "quick").experiments] == [False, False]


def test_one_job_makes_a_row_for_every_seed(toy: Path) -> None:
    out, _ = reproduce(toy)
    assert "2/2" in out  # jobs, not seeds
    folders = [file.read_text() for file in toy.glob("runs/*/together.txt")]
    assert folders == ["[0, 1, 2]\n"] * 2
    per_seed = {seed: ({"test/sum": 10.0 * seed, "val/size": 1.0}, {"curve/sum": [0.0, seed]}) for seed in range(3)}
    edited = numbers(toy)
    assert {name: edited[name] for name in ("gain_low", "gain_high")} == {"gain_low": per_seed, "gain_high": per_seed}
    results = load_results(toy / "results" / "quick" / "results.json")
    runs = results.experiments["gain_low"].runs
    assert len({run.key for run in runs}) == 3
    assert len({run.key.split(".")[0] for run in runs}) == 1
    assert results.wall_seconds == round(sum(r.wall_seconds for e in ("gain_low", "gain_high")
                                             for r in results.experiments[e].runs), 1)  # fmt: skip

    out, _ = reproduce(toy)
    assert "2 reused" in out
    edit(toy / "configs" / "tiers" / "quick.yaml", "seeds: [0, 1, 2]", "seeds: [0, 1]")
    reproduce(toy)
    assert len(list(toy.glob("runs/*/together.txt"))) == 4  # other seeds together are another run


def test_a_failure_is_that_of_all_seeds(toy: Path) -> None:
    edit(toy / "configs" / "base.yaml", "work: 20", "work: 20, behaviour: raise")
    _, err = reproduce(toy, code=3)
    assert "failed: gain_low, 3 seeds: ValueError: the toy is broken" in err
    failed = load_results(toy / "results" / "quick" / "results.json").experiments["gain_low"].failed
    assert failed
    assert all(line.startswith("all seeds: ValueError") for line in failed)


def test_a_dry_run_takes_one_seed(toy: Path) -> None:
    out, _ = reproduce(toy, "--dry-run")
    assert "gain_low" in out
    assert not list(toy.glob("runs/*/together.txt"))


def test_the_progress_line_shows_the_mean_over_seeds(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(toy / "src"))
    job = Job("toy", "x", (1, 2), {"model": {}, "trainer": {}}, toy / "runs" / "x")
    assert job.label == "x, 2 seeds"
    first, again = execute(job, wait=True), execute(job, wait=True)
    assert first.metrics == again.metrics == {"test/sum": 15.0, "val/size": 1.0}


def test_tables_of_a_paper_are_stored_and_printed(toy: Path) -> None:
    (toy / "src" / "toy" / "tables.py").write_text(TABLES)
    out, _ = reproduce(toy)
    assert "Seeds of each" in out
    (table,) = load_results(toy / "results" / "quick" / "results.json").tables
    assert table.rows[:2] == [["gain_low", "3"], ["gain_high", "3"]]
    out, _ = reproduce(toy, "--brief")
    assert "Seeds of each" not in out


def test_a_table_is_rectangular() -> None:
    with pytest.raises(ValidationError, match="a row of 1 cells under 2 columns"):
        Table(title="t", columns=["a", "b"], rows=[["1"]])
