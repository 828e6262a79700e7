"""The skeleton works: it learns, it goes on where it was, and it says what is wrong."""

from pathlib import Path
from typing import Any

import pytest
import torch
from autofocusformer.data import Images
from autofocusformer.experiment import data_fingerprint, run
from autofocusformer.model import Net
from shared.errors import UserError
from shared.runs.plan import load_plan

HERE = Path(__file__).resolve().parent.parent
CONFIG: dict[str, Any] = {
    "model": {"hidden": 32},
    "data": {"dataset": "digits"},
    "trainer": {"max_epochs": 3, "accelerator": "cpu"},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_it_learns_and_a_second_run_has_the_same_bits(tmp_path: Path) -> None:
    first, second, other = (run(CONFIG, seed, tmp_path / str(i)) for i, seed in enumerate((0, 0, 1)))
    assert first["test/error"] < 20
    assert first == second != other


def test_every_experiment_of_the_tier_is_planned_on_data_that_are_there() -> None:
    for experiment in load_plan(HERE, "quick").experiments:
        assert data_fingerprint(experiment.config)[1] == "embedded"


def test_dropout_drops_in_training_only() -> None:
    net, x = Net(8, 100, 3, 0.5), torch.ones(1, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_an_epoch_shows_every_image_once() -> None:
    data = Images("digits", batch_size=100)
    seen = torch.cat([x for x, _ in data.train_dataloader()])
    assert torch.equal(seen.sum(0), data.train[0][torch.randperm(len(seen))].sum(0)) or torch.allclose(
        seen.double().sum(0), data.train[0].double().sum(0)
    )
    assert len(seen) == len(data.train[0])


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("model", "hidden", 0, "hidden is 0"),
        ("model", "dropout", 1.0, "dropout is 1.0"),
        ("data", "batch_size", 0, "batch_size is 0"),
        ("model", "depth", 2, "unknown key 'model.depth'"),
    ],
)
def test_bad_settings_are_one_line(section: str, key: str, value: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        run({**CONFIG, section: {**CONFIG[section], key: value}}, 0, tmp_path)
