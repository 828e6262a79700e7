"""A sweep of priors as a LightningModule: the same numbers as one prior at a time, and no training."""

from __future__ import annotations

import pytest
import pytorch_lightning as L
from logsobolev_bounds.data import Examples
from logsobolev_bounds.prior import PriorComplexity, measure
from shared.errors import UserError

SMALL = {"width": 8, "draws": 4, "examples": 60, "modes": ["identity", "within"]}


def swept(**changed: object) -> tuple[PriorComplexity, dict]:
    module = PriorComplexity(**{"sigma_p": [0.05, 0.2], "depth": [0, 1], "seed": 3, **SMALL, **changed})
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    (logged,) = trainer.validate(module, datamodule=Examples("digits", m=200), verbose=False)
    return module, logged


def test_a_sweep_is_each_prior_by_itself_and_the_same_twice() -> None:
    module, logged = swept()
    found = module.results()
    data = Examples("digits", m=200)
    data.setup()
    for sigma_p in (0.05, 0.2):
        for depth in (0, 1):
            alone = measure(data, 3, sigma_p, depth=depth, **SMALL)
            head = f"s{sigma_p:g}_d{depth}/"
            assert {k.removeprefix(head): v for k, v in found.items() if k.startswith(head)} == alone
            assert logged[f"{head}C/within"] == pytest.approx(alone["C/within"], rel=1e-6)
    assert found["s0.2_d0/C/identity"] > found["s0.05_d0/C/identity"] > 0
    assert swept()[0].results() == found
    assert swept(seed=4)[0].results() != found


def test_one_prior_has_no_prefix_and_nothing_is_trained() -> None:
    module, logged = swept(sigma_p=0.1, depth=0)
    assert "C/identity" in logged
    assert len(module.results()["curve/C_identity"]) == 20
    assert not list(module.parameters())
    assert module.configure_optimizers() is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"sigma_p": [0.1, 0.0]}, "sigma_p"), ({"sigma_p": []}, "at least one"), ({"depth": [-1]}, "depth"),
        ({"draws": 0}, "draws"), ({"examples": 0}, "examples"), ({"modes": ["euclid"]}, "euclid"),
        ({"points": 16}, "17"), ({"points": 65}, r"points is 65: .* has to be a multiple of 20: take 21, 41, 61, 81"),
        ({"largest": 0.0}, "> 0"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_before_anything_runs(wrong: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        PriorComplexity(**wrong)
