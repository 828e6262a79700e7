"""Schedules: golden values, the posterior by Bayes' rule, and what cannot be a schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_fields.schedules import make_schedule

GOLDEN = np.load(Path(__file__).parent / "golden" / "schedules.npz", allow_pickle=False)
NAMES = {
    "betas": "betas",
    "alphas_cumprod": "alphas_cumprod",
    "posterior_variance": "posterior_variance",
    "coef_x0": "posterior_mean_coef_x0",
    "coef_xt": "posterior_mean_coef_xt",
}


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_golden(kind: str) -> None:
    schedule = make_schedule(kind, 1000)
    assert schedule.T == 1000
    for ours, theirs in NAMES.items():
        value = getattr(schedule, ours)
        assert value.dtype == torch.float64
        np.testing.assert_allclose(value.numpy(), GOLDEN[f"{kind}_{theirs}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "ends"), [("linear", (1e-3, 0.2)), ("cosine", ())])
def test_posterior_is_bayes_rule(kind: str, ends: tuple[float, ...]) -> None:
    """Precision of y_{t-1} given y_0 and y_t: 1 / (1 - abar_{t-1}) of the prior plus alpha / beta of the step."""
    s = make_schedule(kind, 100, *ends)
    alpha, before = 1 - s.betas[1:], s.alphas_cumprod[:-1]
    variance = 1 / (1 / (1 - before) + alpha / s.betas[1:])
    torch.testing.assert_close(s.posterior_variance[1:], variance, rtol=1e-9, atol=0)
    torch.testing.assert_close(s.coef_x0[1:], variance * before.sqrt() / (1 - before), rtol=1e-9, atol=0)
    torch.testing.assert_close(s.coef_xt[1:], variance * alpha.sqrt() / s.betas[1:], rtol=1e-9, atol=0)
    assert s.posterior_variance[0] == 0
    assert s.coef_x0[0] == pytest.approx(1)
    assert s.coef_xt[0] == 0


def test_ends_of_the_schedules() -> None:
    assert make_schedule("linear", 10).betas[[0, -1]].tolist() == [1e-4, 2e-2]  # the same ends for every T
    assert make_schedule("linear", 100, 1e-3, 0.2).betas[-1] == 0.2
    cosine = make_schedule("cosine", 1000)
    assert cosine.betas.max() == 0.999
    assert 1e-9 < cosine.alphas_cumprod[-1] < 3e-9
    assert cosine.abars[-1] == 1
    assert cosine.abars[999] == cosine.alphas_cumprod[999]
    assert len(cosine.abars) == 1001


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sigmoid", 10), "unknown kind 'sigmoid'"),
        (("linear", 0), "T is 0"),
        (("cosine", 2.5), "T is 2.5"),
        (("linear", 10, 0.02, 1e-4), "betas from 0.02 to 0.0001"),
        (("linear", 10, 1e-4, 1.0), "expected 0 < beta_start"),
        (("linear", 10, float("nan"), 0.5), "betas from nan"),
    ],
)
def test_bad_schedules(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_schedule(*arguments)
