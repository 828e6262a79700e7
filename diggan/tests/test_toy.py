"""The games on points: what is trained on, what is counted, and a run that goes on; and what the penalty costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diggan.cost import cost_metrics
from diggan.experiment import data_fingerprint, run, run_together
from diggan.training import Game
from shared.errors import UserError

from diggan import cost, toy


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_points_of_two_clusters_lie_at_0_and_4() -> None:
    x = toy.points("two_clusters", 3)
    assert x.shape == (100, 1)
    for part, left in ((x[:50], 0.0), (x[50:], 4.0)):
        assert left <= part.min() < part.max() <= left + 0.3
        assert part.unique().numel() == 50
    assert torch.equal(x, toy.points("two_clusters", 3))
    assert not torch.equal(x, toy.points("two_clusters", 4))
    assert toy.centres("two_clusters").flatten().tolist() == pytest.approx([0.15, 4.15])


def test_points_of_the_ring_lie_about_five_corners() -> None:
    x, corners = toy.points("ring", 0), toy.centres("ring")
    assert corners[0].tolist() == [2.0, 0.0]
    assert corners[1].tolist() == pytest.approx([2 * math.cos(0.4 * math.pi), 2 * math.sin(0.4 * math.pi)], abs=1e-6)
    distance = torch.cdist(x, corners)
    assert distance.argmin(1).bincount().tolist() == [20] * 5
    assert distance.min(1).values.max() < 5 * 0.05
    assert (x - corners[distance.argmin(1)]).std().item() == pytest.approx(0.05, rel=0.2)


def test_shares_by_hand() -> None:
    """Within 0.5 of the middle of a cluster, within four deviations of a corner; the bound counts."""
    fakes = torch.tensor([[[0.15], [0.6], [4.0], [2.0]], [[-0.3], [-0.4], [9.0], [9.0]]])
    assert toy.shares("two_clusters", fakes).tolist() == [[0.5, 0.25], [0.25, 0.0]]
    corners = toy.centres("ring")
    fakes = torch.stack([corners[0], corners[0] + torch.tensor([0.0, 0.19]), corners[3] + 0.15, torch.zeros(2)])[None]
    assert toy.shares("ring", fakes).tolist() == [[0.5, 0.0, 0.0, 0.0, 0.0]]  # 0.15 in both directions: 0.212


def test_results_count_modes_and_epochs() -> None:
    play = toy.Play("ring", [0, 1], "none", None, "official")
    play.epoch = 1000
    play.curves = [
        {"covered": [1.0, 5.0, 4.0, 5.0], "gap": [9.0, 1.0, 2.0, 3.0]},
        {"covered": [1.0, 2.0, 3.0, 4.0], "gap": [0.0, 0.0, 0.0, 6.0]},
    ]
    first, second = play.results()
    assert (first["modes"], first["all_modes"], first["ever_all_modes"], first["first_covered"]) == (5, 1, 1, 500)
    assert (second["modes"], second["all_modes"], second["ever_all_modes"], second["first_covered"]) == (4, 0, 0, 1000)
    assert (first["tail/gap"], second["tail/gap"]) == (2, 2)


def test_a_look_counts_the_modes_that_enough_fakes_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    play = toy.Play("two_clusters", [0, 1], "none", None, "official")
    fakes = torch.full((2, 100, 1), 0.15)
    fakes[0, :10], fakes[1, :9] = 4.15, 4.15  # a tenth covers a mode, nine of a hundred do not
    monkeypatch.setattr(play.pair.g, "forward", lambda z: fakes)
    play.look()
    assert [curves["covered"] for curves in play.curves] == [[2.0], [1.0]]


@pytest.mark.parametrize("game", toy.GAMES)
def test_seeds_train_as_they_do_alone(game: str) -> None:
    both, alone = toy.Play(game, [2, 5], "dig", 1.0, "official"), toy.Play(game, [5], "dig", 1.0, "official")
    before = [p.clone() for p in alone.pair.parameters()]
    for play in (both, alone):
        for _ in range(3):
            play.one_epoch()
    for ours, theirs in zip(both.pair.parameters(), alone.pair.parameters()):
        torch.testing.assert_close(ours[1], theirs[0], rtol=1e-4, atol=1e-5)
    assert not any(torch.equal(a, b) for a, b in zip(list(alone.pair.parameters())[:-1], before))


def test_updates_of_two_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of D and ten of G an epoch, the penalty on D's first; all 100 points are one batch."""
    play, seen = toy.Play("two_clusters", [0], "dig", 1.0, "official"), []
    update_d, update_g = play.pair.update_d, play.pair.update_g
    monkeypatch.setattr(play.pair, "update_d", lambda *a: (seen.append("d"), update_d(*a))[1])
    monkeypatch.setattr(play.pair, "update_g", lambda *a: (seen.append("g"), update_g(*a))[1])
    reg: Any = play.pair.regularisers[0]
    penalty = reg.penalty
    monkeypatch.setattr(reg, "penalty", lambda at: (seen.append(f"penalty of {at.real.shape[-1]}"), penalty(at))[1])
    play.one_epoch()
    assert seen == ["d", "penalty of 100", *["d"] * 9, *["g"] * 10]


@pytest.mark.parametrize("game", toy.GAMES)
def test_a_killed_game_goes_on_to_the_same_bits(game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "SAVE_EVERY", 4)
    monkeypatch.setitem(toy.LOOK_EVERY, game, 2)
    section = {"game": game, "epochs": 10, "regulariser": "dig", "weight": 1.0}
    whole = toy.run(section, [3, 8], tmp_path / "whole")
    assert not (tmp_path / "whole" / toy.CHECKPOINT).exists()
    one_epoch, left = toy.Play.one_epoch, [7]

    def dies(self: toy.Play) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        one_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(toy.Play, "one_epoch", dies)
        with pytest.raises(KeyboardInterrupt):
            toy.run(section, [3, 8], tmp_path / "killed")
    with pytest.raises(UserError, match="of a run with other seeds"):
        toy.run(section, [3, 9], tmp_path / "killed")
    with pytest.raises(UserError, match="of a run with other weight"):
        toy.run({**section, "weight": 2.0}, [3, 8], tmp_path / "killed")
    epochs = []
    with monkeypatch.context() as patch:
        patch.setattr(toy.Play, "one_epoch", lambda self: (epochs.append(self.epoch), one_epoch(self))[1])
        assert toy.run(section, [3, 8], tmp_path / "killed") == whole
    assert epochs == [4, 5, 6, 7, 8, 9]
    assert len(whole[3]["curve/covered"]) == 5
    assert whole[3]["curve/gap"] != whole[8]["curve/gap"]


def test_a_dry_game_is_two_epochs(tmp_path: Path) -> None:
    config = {"toy": {"game": "ring", "epochs": 4000}, "trainer": {"fast_dev_run": True}}
    found = run_together(config, [0, 1], tmp_path)
    assert found[0]["epochs"] == 2
    assert list(found) == [0, 1]
    assert data_fingerprint(config)[1:] == ("recipe", "drawn by the recipe of section 10, B1")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"gaem": "ring"}, r"unknown key 'toy\.gaem'; it has: epochs, game, regulariser, variant, weight"),
        ({"game": "square"}, "unknown game 'square': there are two_clusters, ring"),
        ({"regulariser": "digg"}, "unknown regulariser 'digg': there are none, dig"),
        ({"regulariser": "dig", "variant": "all"}, "unknown variant 'all': there are official"),
    ],
)
def test_bad_settings_are_one_line(section: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        run_together({"toy": section}, [0], tmp_path)
    assert "\n" not in str(caught.value)


def test_costs_are_times_and_ratios(tmp_path: Path) -> None:
    found = run({"cost": {"ch": 64, "batch": 50}, "trainer": {"fast_dev_run": True}}, 0, tmp_path)
    assert all(value > 0 and math.isfinite(value) for value in found.values())
    assert found["d_ratio"] == pytest.approx(found["d_dig_ms"] / found["d_plain_ms"])
    assert found["d_ratio_separate"] == pytest.approx(found["d_separate_ms"] / found["d_plain_ms"])
    assert found["g_ratio"] == pytest.approx(found["g_dig_ms"] / found["g_plain_ms"])
    with pytest.raises(UserError, match=r"unknown key 'cost\.width'; it has: batch, ch, d_steps, repeats"):
        cost_metrics({"width": 3}, 0)
    assert data_fingerprint({"cost": {}})[1] == "recipe"


def test_what_is_timed_with_the_penalty_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    penalised: list[bool] = []
    update = Game.update_d

    def update_d(self: Game, *args: Any) -> Any:
        out = update(self, *args)
        penalised.append(out[2])
        return out

    monkeypatch.setattr(Game, "update_d", update_d)
    cost_metrics({"ch": 1, "batch": 2, "d_steps": 2, "repeats": 1}, 0)
    # In turns, once to warm up and once to time: D's update plain and with it, then whole iterations of two updates.
    assert penalised == [False, True, False, False, True, False] * 2


def test_multiply_adds_are_the_specification_s() -> None:
    found = cost.macs()
    assert found["plain"] == pytest.approx(39.9e9, rel=2e-3)
    assert found["dig"] == pytest.approx(6.49e9, rel=1e-3)
    assert found["iteration"] == pytest.approx(1.16, abs=5e-3)
    floors = [found[name] for name in ("update", "update_with_fakes", "separate")]
    assert floors == pytest.approx([2.0, 1.79, 2.33], abs=5e-3)
    assert cost.flops_of_iteration(64, 50, 4, False) == pytest.approx(4.0e12, rel=5e-3)  # section 10, gpu
    assert cost.flops_of_iteration(64, 50, 4, True) == pytest.approx(4.6e12, rel=1e-2)


def test_calls_are_timed_in_turns() -> None:
    seen: list[str] = []
    found = cost.times_of({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2)
    assert seen == ["a", "b"] * 3
    assert all(times == sorted(times) and len(times) == 2 for times in found.values())
