"""Side by side is as alone: the fast engine against the Lightning path and against single networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diggan.data import LimitedImages
from diggan.data.draws import Stream
from diggan.experiment import run, run_together
from diggan.module import DigGAN
from diggan.population import CHECKPOINT, Draw, SideBySide, run_population
from diggan.training import Game, adam
from shared.errors import UserError

MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dig": {"regulariser": "dig", "weight": 10.0},
    "dig every 3": {"regulariser": "dig", "weight": 10.0, "every": 3},
    "port": {"regulariser": "dig", "weight": 10.0, "variant": "port"},
    "r1": {"regulariser": "r1"},
    "gp": {"regulariser": "gp"},
    "dragan": {"regulariser": "dragan"},
    "cr": {"regulariser": "cr"},
    "lecam": {"regulariser": "lecam"},
    "augmented": {"regulariser": "dig", "weight": 10.0, "policy": "translation,cutout", "grad_wrt": "raw"},
    "accumulated": {"regulariser": "dig", "weight": 10.0, "policy": "translation,cutout", "accumulate": 2},
    "colour": {"policy": "color", "loss": "nonsaturating"},
}
SEEDS = (3, 8)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def prepared(model: dict[str, Any], seed: int) -> tuple[DigGAN, LimitedImages]:
    torch.manual_seed(seed)
    module, data = DigGAN(width=16, **model).double(), LimitedImages(num_samples=20, batch_size=8)
    data.setup()
    data.plan_options = module.plan_options()
    return module, data


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_the_one_that_trains_alone(name: str) -> None:
    """float64, 20 iterations: same weights, same draws, the same parameters and averages at the end."""
    both = [prepared(MODELS[name], seed) for seed in SEEDS]
    settings = prepared(MODELS[name], 0)[0]
    if name == "lecam":  # its penalty begins at iteration 1000
        for module, _ in [*both, (settings, None)]:
            module.regulariser.start = 5
    streams = [Stream(data.plan, data.seed) for _, data in both]
    together = Game(
        SideBySide([m.game.g for m, _ in both]), SideBySide([m.game.d for m, _ in both]),
        list(settings.game.regularisers), settings.game.loss, settings.game.policy, settings.game.grad_wrt,
        settings.game.ema, settings.game.ema_start, axis=1, accumulate=settings.game.accumulate,
    )  # fmt: skip
    draw = Draw(torch.stack([data.images.double() for _, data in both]), streams)
    opts = adam(together.g, 5e-4), adam(together.d, 5e-4)
    for k in range(20):
        batch = draw.at(k)
        batch.z = batch.z.double()
        together.iterate(batch, *opts)
    for place, (module, data) in enumerate(both):
        own = adam(module.game.g, 5e-4), adam(module.game.d, 5e-4)
        before = [p.clone() for p in module.game.parameters()]
        for k in range(20):
            batch = data.batch(k)
            batch.x, batch.z = batch.x.double(), batch.z.double()
            module.game.iterate(batch, *own)
        assert not all(torch.equal(a, b) for a, b in zip(before, module.game.parameters()))
        for side, alone in (
            (together.g, module.game.g),
            (together.d, module.game.d),
            (together.sampler, module.game.sampler),
        ):
            for i, layer in enumerate(alone.layers):
                torch.testing.assert_close(side.weights[i][place].T, layer.weight, rtol=1e-9, atol=1e-11)
                torch.testing.assert_close(side.biases[i][place, 0], layer.bias, rtol=1e-9, atol=1e-11)


CONFIG: dict[str, Any] = {
    "model": {
        "width": 16,
        "regulariser": "dig",
        "weight": 10.0,
        "samples": 60,
        "final_samples": 60,
        "ema_start": 5,
        "pictures": 3,
    },
    "data": {"dataset": "digits", "num_samples": 40, "batch_size": 8, "iterations": 10},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}


def test_the_lightning_path_gives_the_same_numbers(tmp_path: Path) -> None:
    alone = run(CONFIG, 3, tmp_path / "runs" / "alone")
    together = run_together(CONFIG, [3, 8], tmp_path / "runs" / "together")[3]
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        loose = pytest.approx(together[key], rel=2e-3, abs=2e-3)
        assert value == loose, key
    other = run_together(CONFIG, [3, 8], tmp_path / "runs" / "together2")[8]
    assert other["curve/fid"] != together["curve/fid"]
    assert other["subset"] != together["subset"]


def test_a_killed_population_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (CONFIG["model"], CONFIG["data"], 3, [3, 8])
    whole = run_population(*settings, tmp_path / "runs" / "whole")
    assert not (tmp_path / "runs" / "whole" / CHECKPOINT).exists()
    iterate, left = Game.iterate, [23]

    def dies(self, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return iterate(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Game, "iterate", dies)
        with pytest.raises(KeyboardInterrupt):
            run_population(*settings, tmp_path / "runs" / "killed")
    assert (tmp_path / "runs" / "killed" / CHECKPOINT).exists()
    assert run_population(*settings, tmp_path / "runs" / "killed") == whole
    left[0] = 23
    with monkeypatch.context() as patch:
        patch.setattr(Game, "iterate", dies)
        with pytest.raises(KeyboardInterrupt):
            run_population(*settings, tmp_path / "runs" / "other")
    with pytest.raises(UserError, match="of a run with other seeds"):
        run_population(CONFIG["model"], CONFIG["data"], 3, [3, 9], tmp_path / "runs" / "other")
    (tmp_path / "runs" / "other" / CHECKPOINT).write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="is damaged: delete it"):
        run_population(*settings, tmp_path / "runs" / "other")


def test_the_images_trained_on_are_named_beside_the_run(tmp_path: Path) -> None:
    import json

    import numpy as np

    run_together(CONFIG, [3, 8], tmp_path / "runs" / "a")
    saved = json.loads((tmp_path / "runs" / "a" / "seed-3" / "subset.json").read_text())
    assert saved["indices"] == np.random.RandomState(3).choice(897, 40, replace=False).tolist()


def test_settings_that_do_not_exist_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unexpected keyword argument 'depth'"):
        run_together({**CONFIG, "model": {"depth": 3}}, [0], tmp_path / "x")
    with pytest.raises(UserError, match="unknown section 'modell'"):
        run_together({**CONFIG, "modell": {}}, [0], tmp_path / "x")
    with pytest.raises(UserError, match="only mlp64 and mlp784 train side by side"):
        run_together({**CONFIG, "model": {"network": "conv8"}}, [0], tmp_path / "x")


def test_images_of_another_shape_are_refused_side_by_side_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="network mlp784 takes images of 28 x 28 pixels in 1 channel, digits has 8 x 8"):
        run_population({"network": "mlp784", "width": 8}, {"num_samples": 20}, 1, SEEDS, tmp_path / "run", dry=True)
