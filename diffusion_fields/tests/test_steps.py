"""Reverse steps: golden values, ancestral against DDIM, the last step, and lists of steps."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_fields.diffusion import target, to_x0
from diffusion_fields.sampling import ddim_step, ddpm_step, step_list
from diffusion_fields.schedules import make_schedule
from diffusion_fields.steps import checked_steps

torch.set_num_threads(1)
GOLDEN = np.load(Path(__file__).parent / "golden" / "sampler_steps.npz", allow_pickle=False)
SCHEDULES = {kind: make_schedule(kind, 1000) for kind in ("linear", "cosine")}
COSINE = SCHEDULES["cosine"]
CASE = re.compile(
    r"(ddpm|ddim)_(linear|cosine)_clip([01])(?:_eta(\d\.\d))?(_v_prediction|_sample)?_t(\d+)(?:_prev(\d+))?"
)
PREDICTION = {None: "eps", "_v_prediction": "v", "_sample": "x0"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", [key for key in GOLDEN.files if CASE.fullmatch(key)])
def test_golden_steps(case: str) -> None:
    kind, schedule, clip, eta, prediction, t, t_prev = CASE.fullmatch(case).groups()  # type: ignore[union-attr]
    x_t, out, noise, expected = (torch.from_numpy(GOLDEN[key]) for key in ("x_t", "eps", "noise", case))
    last = {"clip": 1.0 if clip == "1" else None, "prediction": PREDICTION[prediction]}
    for dtype in (torch.float32, torch.float64):
        args = x_t.to(dtype), out.to(dtype), int(t)
        if kind == "ddpm":
            y = ddpm_step(*args, SCHEDULES[schedule], noise.to(dtype), **last)
        else:
            y = ddim_step(*args, int(t_prev), SCHEDULES[schedule], float(eta), noise.to(dtype), **last)
        assert ((y - expected).abs() / expected.abs().clamp_min(1)).max() < 3e-4


def test_the_golden_cases_are_all_read() -> None:
    assert sum(CASE.fullmatch(key) is not None for key in GOLDEN.files) == len(GOLDEN.files) - 3 == 60


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow"])
@pytest.mark.parametrize("clip", [None, 0.7])
def test_ancestral_is_ddim_with_eta_1(prediction: str, clip: float | None) -> None:
    """Clamping included: eps is computed again from the clamped signal. And every prediction takes the same step."""
    x, eps, z = (torch.randn(2, 5, 1, dtype=torch.float64, generator=seeded(i)) for i in range(3))
    for t in (1, 400, 900):
        abar = COSINE.abars[t]
        out = target(prediction, to_x0("eps", eps, x, abar), eps, abar)
        step = ddpm_step(x, out, t, COSINE, z, clip, prediction)
        torch.testing.assert_close(step, ddim_step(x, out, t, t - 1, COSINE, 1.0, z, clip, prediction))
        torch.testing.assert_close(step, ddpm_step(x, eps, t, COSINE, z, clip), rtol=1e-8, atol=1e-8)


def test_the_last_step_has_no_noise() -> None:
    x, eps, z = (torch.randn(2, 5, 1, generator=seeded(i)) for i in range(3))
    clean = to_x0("eps", eps, x, COSINE.abars[0])
    torch.testing.assert_close(ddpm_step(x, eps, 0, COSINE, z), clean, rtol=0, atol=1e-5)
    torch.testing.assert_close(ddim_step(x, eps, 0, -1, COSINE, 1.0, z), clean, rtol=0, atol=1e-5)
    far = ddim_step(x, eps, 700, -1, COSINE, 1.0, z, clip=0.5)
    assert far.abs().max() <= 0.5
    for t, t_prev in ((5, 5), (5, 6), (1000, 3), (3, -2)):
        with pytest.raises(ValueError, match=f"from t = {t} to {t_prev}"):
            ddim_step(x, eps, t, t_prev, COSINE, 0.0, None)


def test_step_lists() -> None:
    assert step_list(1000, 5, "leading") == [800, 600, 400, 200, 0]
    assert step_list(1000, 5, "linspace") == step_list(1000, 5) == [999, 749, 500, 250, 0]
    assert step_list(1000, 5, "trailing") == [999, 799, 599, 399, 199]
    assert step_list(10, 3, "leading") == [6, 3, 0]
    assert step_list(10, 3, "trailing") == [9, 6, 2]
    for spacing in ("leading", "linspace", "trailing"):
        for T in (1, 7, 10, 1000):
            assert step_list(T, T, spacing) == list(range(T))[::-1]
            for n in range(1, min(T, 60) + 1):
                steps = step_list(T, n, spacing)
                assert len(steps) == n
                assert all(a > b for a, b in pairwise(steps))
                assert 0 <= steps[-1] <= steps[0] < T
    for wrong in (0, 11, -1):
        with pytest.raises(ValueError, match=rf"{wrong} sampling steps of a schedule with 10: choose 1\.\.10"):
            step_list(10, wrong)
    with pytest.raises(ValueError, match="spacing is 'uniform'; there are: leading, linspace, trailing"):
        step_list(10, 2, "uniform")


def test_lists_of_the_user() -> None:
    assert checked_steps([900, 20, 3], COSINE, "linspace") == [900, 20, 3]
    assert checked_steps(None, make_schedule("cosine", 4), "linspace") == [3, 2, 1, 0]
    for wrong in ([], [3, 20], [20, 20, 3], [1000, 3], [20, -1]):
        with pytest.raises(ValueError, match=r"descends strictly within 999\.\.0"):
            checked_steps(wrong, COSINE, "linspace")
