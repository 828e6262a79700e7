"""Sampling: the exact sampler's covariance, contexts that stay, chunks and seeds, guidance, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusion_fields.diffusion import target, to_x0
from diffusion_fields.models import ScoreNetwork
from diffusion_fields.sampling import Guided, sample, step_list
from diffusion_fields.schedules import Schedule, make_schedule
from torch import Tensor

from diffusion_fields import oracle

torch.set_num_threads(1)
COSINE = make_schedule("cosine", 1000)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circle_cov(n: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    angle = angle[:, None] - angle
    return sum(v * np.cos((m + 1) * angle) for m, v in enumerate((0.5, 0.3, 0.2)))


class Ideal:
    """The exact denoiser of N(0, K) as a net, in any prediction; the coordinates are the points' numbers."""

    signal_dim = 1

    def __init__(self, K: np.ndarray, schedule: Schedule, prediction: str = "eps") -> None:
        self.K, self.schedule, self.prediction = K, schedule, prediction

    def __call__(
        self, context_coords: Tensor, context: Tensor, t: Tensor, query_coords: Tensor, query: Tensor
    ) -> Tensor:
        ctx, at, time = context_coords[:, 0].long().numpy(), query_coords[:, 0].long(), float(t[0])
        scale = 1.0
        if self.prediction == "flow":
            u = time / (self.schedule.T - 1)
            abar = max((1 - u) ** 2 / ((1 - u) ** 2 + u**2), 1e-12)
            scale = np.sqrt(abar) + np.sqrt(1 - abar)
        else:
            abar = self.schedule.abars[int(time)]
        y = torch.zeros(len(query), len(self.K), 1, dtype=query.dtype)
        y[:, at], y[:, ctx] = query * scale, context * scale
        eps = torch.from_numpy(oracle.bayes_gain(self.K, ctx, abar)) @ y
        y, eps = y[:, at], eps[:, at]
        return target(self.prediction, to_x0("eps", eps, y, abar), eps, abar)


def points(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)[:, None]


def circle(n: int) -> Tensor:
    angle = 2 * torch.pi * torch.arange(n) / n
    return torch.stack([angle.cos(), angle.sin()], 1)


@pytest.fixture(scope="module")
def net() -> ScoreNetwork:
    torch.manual_seed(0)
    return ScoreNetwork(2, 1, 2, 32, 12, 32, 2, 1, 4)


def draw(net: Any, coords: Tensor, batch: int = 3, context: int | None = 6, seed: int = 0, **options: Any) -> Tensor:
    """`sample` by DDIM, with what a test wants otherwise."""
    settings = {"schedule": COSINE, "method": "ddim", "steps": 5, "eta": 0.5, "clip": 5.0, "prediction": "v"}
    settings |= {key: options.pop(key) for key in list(options) if key in settings}
    return sample(net, coords, batch, context, generator=seeded(seed), **settings, **options)


# ---- the exact sampler ----


@pytest.mark.parametrize(
    ("method", "eta", "steps", "prediction"),
    [
        ("ddpm", 0.0, None, "eps"),
        ("ddpm", 0.0, [29, 20, 6, 1], "v"),
        ("ddim", 1.0, [29, 20, 6, 1], "flow"),
        ("ddim", 0.5, 7, "x0"),
        ("ddim", 0.0, [28, 11, 10, 2], "eps"),
    ],
)
def test_the_best_net_gives_the_covariance_of_the_oracle(method: str, eta: float, steps: Any, prediction: str) -> None:
    """Within 5 standard errors of 2e4 fields, entry by entry; t' is read from the list."""
    schedule, K, n = make_schedule("cosine", 30), circle_cov(12), 20_000
    context = torch.tensor([0, 3, 4, 9])
    y = draw(
        Ideal(K, schedule, prediction), points(12), n, 4, schedule=schedule, method=method, steps=steps, eta=eta,
        clip=None, prediction=prediction, context_index=context,
    )[..., 0].numpy()  # fmt: skip
    taken = steps if isinstance(steps, list) else step_list(30, steps or 30)
    Sigma = oracle.sampler_covariance(K, context.numpy(), schedule, taken, 1.0 if method == "ddpm" else eta)
    error = np.sqrt((np.outer(np.diag(Sigma), np.diag(Sigma)) + Sigma**2) / n)
    assert (np.abs(y.T @ y / n - Sigma) / error).max() < 5
    assert np.linalg.norm(Sigma - K) > 0.1 * np.linalg.norm(K)


@pytest.mark.parametrize(("method", "most"), [("flow", 0.1), ("flow_heun", 0.01)])
def test_flow_transports_noise_to_the_field(method: str, most: float) -> None:
    """With full context the flow of the best net is linear, its covariance K as steps grow; Heun gets there sooner."""
    K = circle_cov(8)
    errors = []
    for steps in (8, 32):
        start: list[Tensor] = []
        y = draw(
            Ideal(K, COSINE, "flow"), points(8), 64, 8, method=method, steps=steps, prediction="flow",
            callback=lambda level, index, y, start=start: start.append(y),
        )  # fmt: skip
        assert len(start) == steps
        M = np.linalg.lstsq(start[0][..., 0].numpy(), y[..., 0].numpy(), rcond=None)[0]  # y = start M, exactly linear
        np.testing.assert_allclose(start[0][..., 0].numpy() @ M, y[..., 0].numpy(), rtol=0, atol=1e-8)
        errors.append(np.abs(M.T @ M - K).max())
    assert errors[1] < errors[0] / 2
    assert errors[1] < most


def test_the_first_step_of_the_cosine_schedule() -> None:
    """eps-prediction with a small error explodes at t = 999 unless the signal is clamped; v-prediction does not."""
    K = circle_cov(12)

    def imperfect(prediction: str):
        ideal = Ideal(K, COSINE, prediction)
        return lambda *sets: 0.97 * ideal(*sets)

    settings = {"schedule": COSINE, "steps": 20, "eta": 0.0}
    exploded = draw(imperfect("eps"), points(12), 64, 12, clip=None, prediction="eps", **settings)
    clamped = draw(imperfect("eps"), points(12), 64, 12, clip=5.0, prediction="eps", **settings)
    v = draw(imperfect("v"), points(12), 64, 12, clip=None, prediction="v", **settings)
    assert exploded.square().mean() > 1e3
    assert clamped.square().mean() < 25
    assert 0.5 < v.square().mean() < 1.5


# ---- contexts, chunks, seeds ----


@pytest.mark.parametrize("how", ["random", "farthest_point"])
@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_the_context_never_changes(net: ScoreNetwork, how: str, method: str) -> None:
    seen: list[tuple[float, Tensor]] = []
    sample(
        net, circle(20), 2, 7, COSINE, method, 6, 1.0, 5.0, "v", seeded(), context=how,
        callback=lambda t, index, y: seen.append((t, index.clone())),
    )  # fmt: skip
    assert [t for t, _ in seen] == step_list(1000, 6)
    assert all(torch.equal(index, seen[0][1]) for _, index in seen)
    assert seen[0][1].unique().shape == (7,)


def test_the_net_reads_the_values_at_the_context() -> None:
    """At every step, in every chunk: the context is the queries' own current values."""
    calls: list[tuple[Tensor, ...]] = []

    def spy(cc: Tensor, c: Tensor, t: Tensor, qc: Tensor, q: Tensor) -> Tensor:
        calls.append((cc, c, t, qc, q))
        return torch.zeros_like(q)

    index, values = torch.tensor([5, 2]), []
    draw(spy, points(7), 3, None, context_index=index, query_chunk=3, callback=lambda t, i, y: values.append(y))
    assert len(calls) == 5 * 3
    for k, (cc, c, t, qc, q) in enumerate(calls):
        y, chunk = values[k // 3], slice(3 * (k % 3), 3 * (k % 3) + 3)
        assert cc[:, 0].tolist() == [5, 2]
        assert torch.equal(c, y[:, index])
        assert torch.equal(q, y[:, chunk])
        assert torch.equal(qc, points(7)[chunk])
        assert t.tolist() == [step_list(1000, 5)[k // 3]] * 3


def test_latents_once_per_step_and_the_grid_once_per_call(net: ScoreNetwork) -> None:
    count = {"embed": [], "encode_context": 0, "decode": 0}

    class Counting:
        signal_dim = 1

        def embed(self, coords: Tensor, which: str) -> Tensor:
            count["embed"].append((which, len(coords)))
            return net.embed(coords, which)

        def encode_context(self, *args: Any, **known: Any) -> Tensor:
            count["encode_context"] += 1
            return net.encode_context(*args, **known)

        def decode(self, *args: Any, **known: Any) -> Tensor:
            count["decode"] += 1
            return net.decode(*args, **known)

    y = draw(Counting(), circle(20), query_chunk=7)
    assert sorted(count["embed"]) == [("context", 6), ("query", 20)]
    assert count["encode_context"] == 5
    assert count["decode"] == 15
    # the same as through `forward` alone
    torch.testing.assert_close(y, draw(net.forward, circle(20)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_seeds_and_chunks(net: ScoreNetwork, method: str, shared: bool) -> None:
    coords = circle(20) if shared else torch.nn.functional.normalize(torch.randn(3, 20, 2, generator=seeded()), dim=2)
    whole = draw(net, coords, method=method)
    assert whole.shape == (3, 20, 1)
    assert whole.dtype == torch.float32
    assert torch.equal(whole, draw(net, coords, method=method))
    assert not torch.equal(whole, draw(net, coords, method=method, seed=1))
    for chunk in (1, 7, 20, 100):
        torch.testing.assert_close(draw(net, coords, method=method, query_chunk=chunk), whole, rtol=0, atol=1e-5)


def test_contexts_of_each_field_are_its_own_where_coordinates_differ(net: ScoreNetwork) -> None:
    coords = torch.nn.functional.normalize(torch.randn(3, 20, 2, generator=seeded()), dim=2)
    seen: list[Tensor] = []
    y = draw(net, coords, callback=lambda t, index, y: seen.append(index))
    assert seen[0].shape == (3, 6)
    assert not torch.equal(seen[0][0].sort().values, seen[0][1].sort().values)
    assert y.shape == (3, 20, 1)
    # one grid with a context for each field: each field as if its context were everyone's
    each = draw(net, circle(20), 3, None, context_index=seen[0])
    for i, index in enumerate(seen[0]):
        torch.testing.assert_close(each[i], draw(net, circle(20), 3, None, context_index=index)[i], rtol=0, atol=1e-5)


def test_a_redrawn_context_is_an_ablation() -> None:
    """It is another one at every step, and the best net's samples lose variance by it."""
    schedule, K = make_schedule("cosine", 40), circle_cov(24)
    seen: list[Tensor] = []
    options = {"schedule": schedule, "steps": 40, "eta": 0.0, "clip": None, "prediction": "eps"}
    net = Ideal(K, schedule)
    kept = draw(net, points(24), 500, 8, **options)
    redrawn = draw(
        net, points(24), 500, 8, allow_redrawn_context=True, callback=lambda t, index, y: seen.append(index), **options
    )
    assert len({tuple(index.sort().values.tolist()) for index in seen}) > 35
    assert redrawn.square().mean() < 0.8 * kept.square().mean()


def test_farthest_points_spread_out() -> None:
    seen: list[Tensor] = []
    coords = torch.rand(200, 2, generator=seeded())
    for how in ("random", "farthest_point"):
        sample(
            lambda cc, c, t, qc, q: q, coords, 1, 12, COSINE, "ddim", 1, 0.0, 1.0, "eps", seeded(), context=how,
            callback=lambda t, index, y: seen.append(index),
        )  # fmt: skip
    gaps = [(torch.cdist(coords[i], coords[i]) + 9 * torch.eye(12)).min() for i in seen]
    assert gaps[1] > 0.15 > gaps[0]
    # greedy: each is the farthest of all from those before it
    chosen = seen[1]
    for k in range(1, 12):
        distance = torch.cdist(coords, coords[chosen[:k]]).amin(1)
        assert distance[chosen[k]] >= distance.max() - 1e-6


def test_what_the_net_was_doing_is_left_as_it_was(net: ScoreNetwork) -> None:
    """Sampling runs without dropout and without gradients, then training goes on."""
    torch.manual_seed(1)
    dropping = ScoreNetwork(2, 1, 2, 32, 12, 32, 1, 1, 4, dropout=0.5).train()
    dropping.tok.eval()
    y = draw(dropping, circle(12))
    assert torch.equal(y, draw(dropping, circle(12)))
    assert not y.requires_grad
    assert dropping.training
    assert not dropping.tok.training


def test_masked_context_has_no_influence(net: ScoreNetwork) -> None:
    index = torch.arange(8)
    mask = torch.arange(8) < 6
    part = draw(net, circle(20), context=None, context_index=index[:6], steps=2)
    whole = draw(net, circle(20), context=None, context_index=index, context_mask=mask, steps=2)
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-5)


def test_guidance() -> None:
    """(1 + w) out(label) - w out(null), the null class after the last one; with the split calls and without."""
    torch.manual_seed(2)
    net = ScoreNetwork(2, 1, 2, 32, 12, 32, 1, 1, 4, num_classes=3)
    sets = circle(6), torch.randn(2, 6, 1), torch.tensor([5, 900]), circle(9), torch.randn(2, 9, 1)
    label, null = torch.tensor([0, 2]), torch.tensor([3, 3])
    with torch.no_grad():
        expected = 3.5 * net(*sets, label=label) - 2.5 * net(*sets, label=null)
        guided = Guided(net, 2.5)
        torch.testing.assert_close(guided(*sets, label=label), expected, rtol=0, atol=1e-5)
        z = guided.encode_context(*sets[:3], label=label)
        torch.testing.assert_close(guided.decode(z, *sets[2:], label=label), expected, rtol=0, atol=1e-5)
    plain = draw(net, circle(12), 2, label=label)
    torch.testing.assert_close(draw(net, circle(12), 2, label=label, guidance_weight=0.0), plain, rtol=0, atol=1e-5)
    strong = draw(net, circle(12), 2, label=label, guidance_weight=4.0, query_chunk=5)
    assert (strong - plain).abs().max() > 1e-3
    assert (draw(net, circle(12), 2, label=label.flip(0)) - plain).abs().max() > 1e-4
    with pytest.raises(ValueError, match="needs the labels"):
        draw(net, circle(12), 2, guidance_weight=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "num_context is 0, of 20 queries"),
        ({"context": 21}, "num_context is 21, of 20 queries"),
        ({"context": None}, "say how many of the queries are context"),
        ({"batch": 0}, "for 0 fields"),
        ({"coords": torch.rand(2, 20, 2)}, r"shape \(2, 20, 2\) for 3 fields: expected \(N, c\) or \(3, N, c\)"),
        ({"coords": torch.rand(0, 2)}, r"shape \(0, 2\)"),
        ({"coords": torch.full((20, 2), torch.nan)}, "not all are finite"),
        ({"method": "euler"}, "method is 'euler'; there are: ddpm, ddim, flow, flow_heun"),
        ({"method": "flow"}, "a network trained with prediction 'flow'"),
        ({"prediction": "score"}, "prediction is 'score'"),
        ({"steps": 1001}, "1001 sampling steps"),
        ({"steps": [3, 5]}, "descends strictly"),
        ({"spacing": "even"}, "spacing is 'even'"),
        ({"clip": -1.0}, "clip is -1"),
        ({"noise": "white"}, "noise is 'white'; there are: random, hash"),
        ({"query_chunk": 0}, "query_chunk 0: both are at least 1"),
        ({"guidance_weight": 1.0}, "built without classes"),
        ({"context_index": torch.tensor([0, 1, 2])}, "has 3 points and num_context is 6"),
        ({"context": None, "context_index": torch.tensor([0, 20])}, r"from 0 to 20, of 20 queries"),
        ({"context": None, "context_index": torch.tensor([4, 4])}, "a point is given twice"),
        ({"context": None, "context_index": torch.zeros(2, 3).long()}, r"expected \(N_c,\) or \(3, N_c\)"),
    ],
)
def test_bad_input(net: ScoreNetwork, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(net, options.pop("coords", circle(20)), **options)


def test_a_context_choice_that_does_not_exist(net: ScoreNetwork) -> None:
    with pytest.raises(ValueError, match="context is 'grid'; there are: random, farthest_point"):
        sample(net, circle(20), 1, 4, COSINE, "ddim", 2, 0.0, 5.0, "v", None, context="grid")
