"""What a run logs, and the dashboards that show it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from shared.claims.ledger import load_ledger
from shared.cli import train_and_test
from shared.errors import UserError
from toy_training import CONFIG, Rows, TwoLayers
from wandb_file import records

from shared import dashboard

LEDGER = """
paper: {title: A paper, venue: A venue, arxiv: "1234.56789", code: none, source: primary}
claims:
  - id: table1.a
    where: Table 1
    says: b is better than a
    metric: {name: loss, unit: nats, better: lower}
    paper: {a: 3.4, b: 2.1, c: n/a}
    rule: {kind: order, smaller: b, larger: a}
    tiers:
      quick: {experiments: {a: first, b: second}, metric: test/loss, setting: small}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One paper with a ledger and one run of the experiment `first`."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "claims.yaml").write_text(LEDGER)
    train_and_test(TwoLayers, Rows, CONFIG, 5, tmp_path / "toy" / "runs" / "0123", "toy", "first", "quick")
    return tmp_path


def test_a_run_leaves_a_history_of_what_the_ledger_declares(repository: Path) -> None:
    (file,) = repository.glob("toy/runs/0123/wandb/offline-run-*/run-*.wandb")
    logged: dict[str, list[float]] = {}
    run = None
    written = records(file)
    assert written[-1].WhichOneof("record_type") == "exit"  # whole, though nobody has waited for it
    for record in written:
        kind = record.WhichOneof("record_type")
        run = record.run if kind == "run" else run
        for item in record.history.item if kind == "history" else []:
            logged.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    assert run is not None
    assert (run.project, run.run_group, run.job_type, list(run.tags)) == ("toy", "first", "quick", ["toy", "quick"])
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["seed_everything"] == 5
    assert set(dashboard.measures(load_ledger(repository / "toy" / "claims.yaml"))) <= set(logged)
    assert len(logged["val/loss"]) == CONFIG["trainer"]["max_epochs"]
    assert logged["test/loss"][-1] == logged["val/loss"][-1]


def test_the_workspace_groups_by_experiment_and_shows_the_papers_values(repository: Path) -> None:
    (ledger,) = dashboard.ledgers(repository).values()
    made = dashboard.workspace("toy", ledger, "someone")
    spec = json.dumps(made._to_model().model_dump(mode="json", by_alias=True))
    for part in ("A paper (A venue)", "test/loss", "Table 1", "3.4 nats", "2.1 nats", "${test/loss} * 0 + 2.1"):
        assert part in spec
    assert "| c |" not in spec
    runset = json.dumps(made.runset_settings.__dict__, default=str)
    assert "Group" in runset
    (section,) = made.sections
    bars, lines, _ = section.panels
    assert bars._to_model().config.group_by == lines._to_model().config.group_by == "group"


def test_the_viewer_gets_every_local_run_in_one_folder(repository: Path, tmp_path: Path) -> None:
    (run,) = dashboard.local_runs(repository)
    copy = run.parent / "offline-run-20200101_000000-0000"
    shutil.copytree(run, copy)
    assert dashboard.local_runs(repository) == [copy, run]
    folder = dashboard.gather([copy, run], tmp_path / "shown")
    assert sorted(p.name for p in folder.iterdir()) == sorted([copy.name, run.name])
    (file,) = (folder / run.name).glob("*.wandb")
    assert file.read_bytes() == next(run.glob("*.wandb")).read_bytes()


def test_without_a_key_the_command_says_how_to_publish(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert dashboard.main(["--root", str(repository)]) == 0
    said = capsys.readouterr().out
    assert "1 local runs" in said
    assert "wandb sync toy/runs/**/wandb/offline-run-*" in said


def test_without_runs_the_command_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs are logged yet: `make reproduce`"):
        dashboard.main(["--root", str(tmp_path), "--local"])
