"""How a trained model is sampled and measured, with networks whose samples are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusion_fields.data import Fields
from diffusion_fields.errors import FieldError
from diffusion_fields.evaluation import Look, Sampler, Settings, evaluate
from diffusion_fields.schedules import make_schedule

from diffusion_fields import evaluation

SCHEDULE = make_schedule("cosine", 1000)


def data(dataset: str, **settings: Any) -> Fields:
    fields = Fields(**{"dataset": dataset, "seed": 1, "num_context": 16, "validation_fields": 16, **settings})
    fields.setup()
    return fields


class Exact(torch.nn.Module):
    """The best denoiser of fields on one grid, told which points are context by where they are (predicts eps)."""

    signal_dim = 1

    def __init__(self, truth: Any) -> None:
        super().__init__()
        self.truth, self.seen = truth, list[int]()

    def forward(
        self, cc: torch.Tensor, cs: torch.Tensor, t: torch.Tensor, qc: torch.Tensor, qs: torch.Tensor
    ) -> torch.Tensor:
        from diffusion_fields.oracle import bayes_gain

        abar = float(SCHEDULE.alphas_cumprod[int(t[0])])
        self.seen.append(len(cc))
        points = torch.cat([cc, qc]).double().numpy()
        index = [int((qc == x).all(1).nonzero()) for x in cc]
        K = self.truth.covariance(qc.double().numpy())
        assert len(points) == len(cc) + len(K)
        G = bayes_gain(K, np.array(index), abar)
        return torch.einsum("qn,bns->bqs", torch.from_numpy(G), qs.double()).float()


def test_the_best_denoiser_is_as_good_as_its_ideal() -> None:
    """Every number of a look against the closed form of the same context and steps."""
    fields = data("circle_grf", options={"points": 24})
    looks = {
        "same": Look(),
        "all_context": Look(num_context="all"),
        "eta1": Look(eta=1.0),
        "eta_all": Look(eta=1.0, num_context="all", against="all_context"),
    }
    settings = Settings(samples=3000, steps=20, clip=None, looks=looks)
    found = evaluate(Exact(fields.truth), fields, SCHEDULE, "eps", settings)[0]
    for name in looks:
        for l in (1, 2, 3):
            assert found[f"r_{l}/{name}"] == pytest.approx(found[f"ideal_r_{l}/{name}"], abs=0.08)
        assert found[f"grain/{name}"] == pytest.approx(found[f"ideal_grain/{name}"], abs=5e-3)
        assert found[f"w2_sq/{name}"] == pytest.approx(found[f"ideal_w2_sq/{name}"], abs=0.03)
    assert found["w2_ratio/eta_all"] == found["w2_sq/eta_all"] / found["w2_sq/all_context"]
    assert found["w2_ratio/eta1"] == found["w2_sq/eta1"] / found["w2_sq/same"]
    assert len(found["curve/samples/same"]) == evaluation.KEPT * 24
    assert found["w2_sq_zero"] == pytest.approx(2 * np.pi, rel=1e-9)


def test_completions_by_the_best_denoiser() -> None:
    """With all pairs as context: imposing noisy observations is no exact conditioning, but comes near the posterior."""
    fields = data("circle_grf", num_context=24, options={"points": 24})
    settings = Settings(samples=4, steps=200, eta=1.0, clip=None, observed=3, completed=2, completions=300, looks={})
    found = evaluate(Exact(fields.truth), fields, SCHEDULE, "eps", settings)[0]
    assert found["completion/rmse"] < 0.5 * found["completion/prior_rmse"]
    assert 0.7 < found["completion/z_std"] < 1.5
    assert found["completion_repaint/rmse"] < 0.8 * found["completion/rmse"]
    assert found["completion/rmse_ratio"] == pytest.approx(found["completion/rmse"] / found["completion/prior_rmse"])


def test_a_look_changes_what_it_says() -> None:
    fields = data("circle_grf", options={"points": 24})
    net = Exact(fields.truth)
    settings = Settings(samples=4, steps=2, clip=None)
    sampler = Sampler(net, fields, SCHEDULE, "eps", settings)
    coords = fields.field_set.shared_coords
    assert coords is not None
    for look, size in ((Look(), 16), (Look(num_context=5), 5), (Look(num_context="all"), 24)):
        net.seen.clear()
        values, context = sampler(look, coords, 4)
        assert net.seen == [size, size]
        assert values.shape == (4, 24, 1)
        assert len(context) == size
    fine = evaluation._grid(fields, 4)
    assert fine.shape == (96, 2)
    assert torch.allclose(fine[::4], coords, atol=1e-6)
    spread = sampler(Look(context="farthest_point"), fine, 4)[1]
    gaps = torch.cat([spread.sort().values, spread.sort().values[:1] + 96]).diff()
    assert int(gaps.min()) >= 3
    net.seen.clear()
    sampler(Look(steps=5), coords, 4)
    assert len(net.seen) == 5


class Blank(torch.nn.Module):
    """Predicts x0 = a constant image."""

    signal_dim = 1

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, cc: Any, cs: Any, t: Any, qc: Any, qs: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full_like(qs, self.value)


def test_digits_are_judged_at_their_size_and_above() -> None:
    fields = data("digits")
    looks = {
        "same": Look(),
        "x2": Look(resolution=16),
        "x2_regular": Look(num_context=64, resolution=16, context="regular"),
    }
    found = evaluate(Blank(-1.0), fields, SCHEDULE, "x0", Settings(samples=60, steps=2, clip=1.0, looks=looks))[0]
    assert found["classifier_accuracy"] > 0.93
    assert found["fd_small/train"] < found["fd_small/gaussian"] < found["fd_small/pixels"] < found["fd_small/noise"]
    for name in looks:
        assert found[f"fd_small/{name}"] > found["fd_small/gaussian"]  # blank sheets are no digits
        assert found[f"fd_over_gaussian/{name}"] == found[f"fd_small/{name}"] / found["fd_small/gaussian"]
    assert found["fd_small/same"] == pytest.approx(found["fd_small/x2"], rel=1e-6)
    assert len(found["curve/samples/x2"]) == evaluation.KEPT * 256


def test_a_regular_context_lies_on_the_trained_spacing() -> None:
    fields = data("digits", num_context=64)
    sampler = Sampler(Blank(0.0), fields, SCHEDULE, "x0", Settings(steps=1, samples=2))
    coords = evaluation.pixel_grid(16, 16)
    context = sampler.context(Look(context="regular"), coords, torch.Generator())
    chosen = coords[context].reshape(8, 8, 2)
    assert torch.allclose(chosen[0].diff(dim=0)[:, 0], torch.full((7,), 0.25), atol=1e-6)
    assert torch.allclose(chosen[:, 0].diff(dim=0)[:, 1], torch.full((7,), 0.25), atol=1e-6)
    with pytest.raises(FieldError, match="a regular context of 10 points does not fit a 16 x 16 image"):
        sampler.context(Look(num_context=10, context="regular"), coords, torch.Generator())


class Ball(torch.nn.Module):
    signal_dim = 1

    def forward(self, cc: Any, cs: Any, t: Any, qc: torch.Tensor, qs: torch.Tensor) -> torch.Tensor:
        inside = qc.norm(dim=-1) < 0.5
        return torch.where(inside, 1.0, -1.0).expand(len(qs), -1)[..., None]


def test_bodies_are_compared_by_their_surfaces() -> None:
    fields = data("sdf_shapes", options={"points": 32, "signal": "occupancy", "families": ["sphere"]})
    looks = {"same": Look(resolution=16)}
    balls = evaluate(Ball(), fields, SCHEDULE, "x0", Settings(samples=12, steps=1, clip=1.0, looks=looks))[0]
    assert balls["empty/same"] == 0
    assert balls["cov/same"] == pytest.approx(1 / 12)  # twelve times the same ball is nearest to one body
    assert balls["cov_true/same"] > balls["cov/same"]
    assert balls["mmd_true/same"] < balls["mmd/same"]
    empty = evaluate(Blank(-1.0), fields, SCHEDULE, "x0", Settings(samples=12, steps=1, clip=1.0, looks=looks))[0]
    assert empty["empty/same"] == 12
    assert "mmd/same" not in empty
