"""Completion from observed pairs against the exact posterior, and noise that is a function of the coordinate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusion_fields.models import ScoreNetwork
from diffusion_fields.noise import NoiseSource
from diffusion_fields.sampling import hashed_noise, sample
from diffusion_fields.schedules import Schedule, make_schedule
from scipy.stats import kstest
from torch import Tensor

from diffusion_fields import oracle

torch.set_num_threads(1)
SHORT = make_schedule("cosine", 50)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circle(n: int) -> Tensor:
    angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angle.cos(), angle.sin()], 1)


def covariance(a: Tensor, b: Tensor) -> np.ndarray:
    cosine = torch.atan2(a[:, 1], a[:, 0])[:, None] - torch.atan2(b[:, 1], b[:, 0])
    return sum(v * torch.cos((m + 1) * cosine) for m, v in enumerate((0.5, 0.3, 0.2))).numpy()


class Ideal:
    """The exact denoiser of a field on the circle, for any coordinates."""

    signal_dim = 1

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.gains: dict[tuple[int, bytes], Tensor] = {}

    def __call__(
        self, context_coords: Tensor, context: Tensor, t: Tensor, query_coords: Tensor, query: Tensor
    ) -> Tensor:
        """A query that is a context point is denoised from the context alone, else from the context and itself."""
        same = (query_coords[:, None] == context_coords).all(-1)
        new = ~same.any(1)
        every = torch.cat([context_coords, query_coords[new]])
        n = len(context_coords)
        key = (int(t[0]), every.numpy().tobytes())
        if key not in self.gains:
            gain = oracle.bayes_gain(covariance(every, every), np.arange(n), self.schedule.abars[key[0]])
            self.gains[key] = torch.from_numpy(gain)
        eps = self.gains[key] @ torch.cat([context, query[:, new]], 1)
        out = torch.empty_like(query)
        out[:, new] = eps[:, n:]
        out[:, ~new] = eps[:, :n][:, same[~new].double().argmax(1)]
        return out


def complete(observed: Any, coords: Tensor, batch: int = 2, context: int | None = 8, **options: Any) -> Tensor:
    net, generator = options.pop("net", Ideal(SHORT)), seeded(options.pop("seed", 0))
    method, steps = options.pop("method", "ddpm"), options.pop("steps", None)
    prediction = options.pop("prediction", "eps")
    return sample(
        net,
        coords,
        batch,
        context,
        SHORT,
        method,
        steps,
        1.0,
        None,
        prediction,
        generator,
        observed=observed,
        **options,
    )


def test_observed_points_are_given_back_and_always_context() -> None:
    coords, values = circle(20), torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64)
    index = torch.tensor([3, 17, 8])
    for how in ("random", "farthest_point"):
        seen: list[Tensor] = []
        y = sample(
            Ideal(SHORT), coords, 2, 8, SHORT, "ddpm", None, 1.0, None, "eps", seeded(), observed=(index, values),
            context=how, callback=lambda t, i, y, seen=seen: seen.append(i),
        )  # fmt: skip
        assert y.shape == (2, 20, 1)
        assert torch.equal(y[:, index], values.expand(2, -1, -1))
        assert all(set(index.tolist()) <= set(i.tolist()) and len(i.unique()) == 8 for i in seen)
    # the same pairs by their coordinates, which are queries: the same points, nothing appended
    torch.testing.assert_close(complete((coords[index], values), coords), complete((index, values), coords))


def test_observed_points_that_are_no_queries_join_them_for_the_time() -> None:
    coords, between = circle(20), circle(40)[[1, 3, 6]]  # the last one is a query, number 3
    values = torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64)
    sizes, contexts = set(), []
    y = complete((between, values), coords, callback=lambda t, i, y: (sizes.add(y.shape[1]), contexts.append(i)))
    assert y.shape == (2, 20, 1)
    assert sizes == {22}
    assert set(contexts[0].tolist()) >= {20, 21, 3}
    assert torch.equal(y[:, 3], values[2].expand(2, -1))
    # fields with coordinates of their own, values of their own
    own = torch.stack([circle(20), circle(20).flip(0)])
    net = ScoreNetwork(2, 1, 2, 32, 12, 32, 1, 1, 4).double()
    y = complete((torch.tensor([2, 5]), torch.randn(2, 2, 1)), own, net=net, prediction="v")
    assert y.shape == (2, 20, 1)
    assert complete((between, values), own, net=net, prediction="v").shape == (2, 20, 1)


def test_observations_are_noised_anew_at_every_level() -> None:
    """sqrt(abar) y_o + sqrt(1 - abar) eps: mean and deviation over many fields, at each step."""
    index, values = torch.tensor([0, 6]), torch.tensor([[3.0], [-2.0]], dtype=torch.float64)
    seen: list[tuple[int, Tensor]] = []
    complete((index, values), circle(12), 4000, callback=lambda t, i, y: seen.append((t, y[:, index].clone())))
    for t, y in seen[::7]:
        abar = SHORT.abars[t]
        torch.testing.assert_close(y.mean(0), abar**0.5 * values, rtol=0, atol=5 * (1 - abar) ** 0.5 / 4000**0.5)
        torch.testing.assert_close(
            y.std(0), torch.full((2, 1), (1 - abar) ** 0.5, dtype=torch.float64), rtol=0.06, atol=0
        )
    a, b = (seen[k][1] - seen[k][1].mean(0) for k in (10, 11))
    assert abs(float((a * b).mean() / (a.std() * b.std()))) < 0.06


def test_jumps_back_bring_completions_to_the_posterior() -> None:
    """With the best net and full context: RMSE to the exact mean falls with `resample`, and z-scores come to 1."""
    coords = circle(16)
    K, index = covariance(coords, coords), torch.tensor([0, 1, 5])
    values = torch.tensor([[1.0], [0.6], [-0.8]], dtype=torch.float64)
    mean, cov = oracle.gaussian_posterior(K, index.numpy(), values[:, 0].numpy())
    scores, steps = {}, {}
    for resample in (1, 8):
        levels: list[int] = []
        y = complete(
            (index, values), coords, 600, 16, resample=resample, callback=lambda t, i, y, to=levels: to.append(t)
        )
        scores[resample], steps[resample] = oracle.completion_scores(y[..., 0].numpy(), mean, cov), levels
    assert steps[1] == list(range(50))[::-1]
    assert steps[8] == [t for t in range(1, 50)[::-1] for _ in range(8)] + [0]
    assert scores[8]["rmse"] < 0.12
    assert scores[8]["rmse"] < 0.6 * scores[1]["rmse"]
    assert abs(scores[8]["z_std"] - 1) < 0.2
    prior = oracle.completion_scores(np.random.default_rng(0).multivariate_normal(0 * mean, K, 1500), mean, cov)
    assert scores[8]["rmse"] < 0.3 * prior["rmse"]


def test_completion_by_flow() -> None:
    net = ScoreNetwork(2, 1, 2, 32, 12, 32, 1, 1, 4).double()
    index, values = torch.tensor([0, 6]), torch.tensor([[3.0], [-2.0]], dtype=torch.float64)
    y = complete((index, values), circle(12), method="flow", steps=4, prediction="flow", net=net, resample=2)
    assert torch.equal(y[:, index], values.expand(2, -1, -1))
    assert y.isfinite().all()


VALUES = torch.zeros(2, 1)


@pytest.mark.parametrize(
    ("observed", "options", "message"),
    [
        ((torch.tensor([0, 20]), VALUES), {}, "indices from 0 to 20, of 20 queries"),
        ((torch.tensor([3, 3]), VALUES), {}, "a point is given twice"),
        ((torch.ones(2, 2), VALUES), {}, "a point is given twice"),
        ((torch.rand(2, 3), VALUES), {}, r"coordinates of shape \(2, 3\); expected \(points, 2\)"),
        ((torch.tensor([0, 1, 2]), VALUES), {}, r"3 points and values of shape \(1, 2, 1\)"),
        ((torch.tensor([], dtype=torch.int64), torch.zeros(0, 1)), {}, "at least one point"),
        ((torch.tensor([0, 1]), VALUES + torch.nan), {}, "a value is not a finite number"),
        ((torch.arange(9), torch.zeros(9, 1)), {}, "num_context is 8, of 20 queries with 9 observed"),
        ((torch.tensor([0, 1]), torch.zeros(2, 3)), {}, "3 channels; this network has 1"),
        ((torch.tensor([0, 1]), VALUES), {"resample": 0}, "resample is 0"),
        ((torch.tensor([0, 1]), VALUES), {"context_index": torch.arange(1, 9)}, "every observed point has to be"),
    ],
)
def test_bad_observations(observed: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        complete(observed, circle(20), **options)


# ---- noise by coordinate ----


def test_hashed_noise_is_standard_normal() -> None:
    """Over points, seeds, streams, fields and channels; neighbours on a fine grid are independent."""
    line = torch.linspace(-1, 1, 2000, dtype=torch.float64)[:, None]
    noise = hashed_noise(7, line, stream=3, batch=10, channels=3)
    assert noise.shape == (10, 2000, 3)
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    over_seeds = torch.cat([hashed_noise(seed, line[:1], stream, 4, 2) for seed in range(20) for stream in range(20)])
    assert kstest(over_seeds.flatten().numpy(), "norm").pvalue > 1e-3
    bound = 5 / 60_000**0.5
    for other in (
        noise.roll(1, 1),
        noise.roll(1, 0),
        noise.roll(1, 2),
        hashed_noise(8, line, 3, 10, 3),
        hashed_noise(7, line, 4, 10, 3),
        hashed_noise(7, -line, 3, 10, 3).flip(1).roll(1, 1),
    ):
        assert abs(float((noise * other).mean())) < bound
        assert abs(float((noise.square() * other.square()).mean()) - 1) < 8 * bound


def test_hashed_noise_is_a_function_of_seed_and_coordinate() -> None:
    grid = torch.rand(50, 3, generator=seeded())
    noise = hashed_noise(-3, grid, 1, 2, 2)
    order = torch.randperm(50, generator=seeded(1))
    assert torch.equal(hashed_noise(-3, grid[order], 1, 2, 2), noise[:, order])
    assert torch.equal(hashed_noise(-3, grid[:7], 1, 1, 1), noise[:1, :7, :1])
    torch.testing.assert_close(hashed_noise(-3, grid.double(), 1, 2, 2), noise.double(), rtol=1e-6, atol=1e-6)
    zero = torch.tensor([[0.0, 1.0]])
    assert torch.equal(hashed_noise(0, zero), hashed_noise(0, zero * torch.tensor([-1.0, 1.0])))  # -0 is 0
    assert not torch.equal(hashed_noise(0, zero), hashed_noise(0, zero.flip(1)))
    each = hashed_noise(0, torch.stack([grid, grid + 1]), batch=2)
    assert torch.equal(each[1], hashed_noise(0, grid + 1, batch=2)[1])


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_one_seed_is_one_field_at_its_context(method: str) -> None:
    """On whatever grid the field is looked at; noise from a generator gives another field on each."""
    torch.manual_seed(0)
    net = ScoreNetwork(2, 1, 2, 32, 12, 32, 2, 1, 4)
    coarse, fine = circle(12).float(), torch.cat([circle(12).float(), circle(31).float()[1:]])

    def field(coords: Tensor, noise: str, seed: int = 5) -> Tensor:
        return sample(
            net, coords, 2, None, SHORT, method, 6, 0.7, 5.0, "v", seeded(), context_index=torch.arange(0, 12, 2),
            noise=noise, noise_seed=seed,
        )[:, :12]  # fmt: skip

    torch.testing.assert_close(field(coarse, "hash"), field(fine, "hash"), rtol=0, atol=1e-5)
    assert (field(coarse, "hash") - field(coarse, "hash", 6)).abs().max() > 0.1
    assert (field(coarse, "random") - field(fine, "random")).abs().max() > 0.1
    assert not torch.equal(field(coarse, "hash")[0], field(coarse, "hash")[1])


def test_every_step_has_noise_of_its_own() -> None:
    coords = circle(12)
    for seed in (None, 4):
        source = NoiseSource(coords, 3, 2, seeded(), seed)
        first, second = source(), source()
        assert first.shape == (3, 12, 2)
        assert (first != second).all()
    assert torch.equal(first, hashed_noise(4, coords, 0, 3, 2))
    assert torch.equal(second, hashed_noise(4, coords, 1, 3, 2))
