"""What a population run reports, computed by hand from made-up trajectories; and the kinds of experiment."""

import math
from pathlib import Path

import pytest
import torch
from rpgan_landscape.experiment import data_fingerprint, population_metrics, predicted, run, run_together
from shared.errors import UserError

from rpgan_landscape import experiment, population

TWO = {"population": {"loss": "js", "halved": True, "iterations": 60, "n": 20}, "data": {"dataset": "two_cluster"}}


def made_up(counts: torch.Tensor, d_loss: torch.Tensor) -> population.Run:
    return population.Run(d_loss, counts.int(), population.draw(range(len(counts)), n=100))


def test_metrics_of_each_gan() -> None:
    counts = torch.full((3, 400, 2), 10)
    counts[0, 100:] = 40  # escapes at 100
    counts[1, :, 0] = 10
    counts[1, 50:250] = torch.tensor([95, 0])  # collapsed for 200 iterations, never escapes
    counts[2, 0:149] = torch.tensor([0, 90])  # for 149, and for 99, which is no window
    counts[2, 200:299] = torch.tensor([0, 90])
    d_loss = torch.full((3, 400), 0.7)
    d_loss[1, 50:250], d_loss[2, :149] = 0.48, 0.60
    first, second, third = population_metrics(made_up(counts, d_loss), plateau=0.477386)
    assert (first["escape_time"], first["escaped"]) == (100, 1)
    assert (second["escape_time"], second["escaped"]) == (400, 0)  # never: as long as it ran
    assert [m["collapsed_iterations"] for m in (first, second, third)] == [0, 200, 248]
    assert [m["collapsed_windows"] for m in (first, second, third)] == [0, 1, 1]
    assert second["window/length"] == [200]
    assert (second["windows_off_plateau"], second["windows_ending_off_plateau"]) == (0, 0)
    assert (third["windows_off_plateau"], third["windows_ending_off_plateau"]) == (1, 1)
    assert len(first["curve/d_loss"]) == 400 / experiment.THIN
    assert second["curve/largest_share"][2] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("recipe", "collapsed", "covered"),
    [
        ({"loss": "js", "halved": True}, 0.477386, math.log(2)),
        ({"loss": "js"}, 2 * 0.477386, 2 * math.log(2)),
        ({"loss": "rs"}, math.log(2) / 2, math.log(2)),
        ({"loss": "ls", "halved": True}, 1 / 6, 1 / 4),
        ({"loss": "hinge", "halved": True}, 1 / 2, 1),
    ],
)
def test_the_predicted_plateaus(recipe: dict[str, object], collapsed: float, covered: float) -> None:
    assert predicted(population.Recipe(**recipe)) == pytest.approx((collapsed, covered), abs=1e-6)


def test_a_population_is_the_gans_of_its_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    both = run_together(TWO, [3, 5], tmp_path / "both", "x", "quick")
    alone = run_together(TWO, [5], tmp_path / "alone", "x", "quick")
    assert both[5]["curve/d_loss"] == pytest.approx(alone[5]["curve/d_loss"], abs=1e-6)
    assert both[3]["curve/d_loss"] != both[5]["curve/d_loss"]
    assert list((tmp_path / "both").rglob("*.wandb"))
    assert not (tmp_path / "both" / population.CHECKPOINT).exists()


def test_a_dry_run_is_short(tmp_path: Path) -> None:
    dry = {**TWO, "trainer": {"fast_dev_run": True}}
    assert run_together(dry, [0], tmp_path, "x", "quick")[0]["escape_time"] == 2
    dry = {"landscape": {"loss": "js", "most": 6}, "trainer": {"fast_dev_run": True}}
    assert "n4/bad" not in run(dry, 0, tmp_path)


def test_unknown_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'population\.los'; it has: centres, d_steps"):
        run_together({"population": {"los": "js"}}, [0], tmp_path)
    with pytest.raises(UserError, match=r"unknown key 'landscape\.n'"):
        run({"landscape": {"n": 3}}, 0, tmp_path)
    with pytest.raises(UserError, match="unknown loss 'jsd'"):
        run_together({"population": {"loss": "jsd", "iterations": 1}}, [0], tmp_path)


def test_what_is_measured_on_what() -> None:
    assert data_fingerprint({"landscape": {"loss": "js"}})[1] == "exact"
    assert data_fingerprint(TWO)[1] == "recipe"
    first, second = (data_fingerprint({"data": {"dataset": name}})[0] for name in ("two_cluster", "gaussians"))
    assert first != second
