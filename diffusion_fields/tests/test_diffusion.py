"""Sets, noise, targets and the loss: shared noise, conversions, masks, the Bayes floor as the best net's loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusion_fields.diffusion import (
    draw_sets,
    draw_times,
    field_errors,
    field_loss,
    forward_noise,
    mix,
    network_input,
    target,
    to_eps,
    to_x0,
)
from diffusion_fields.models import ScoreNetwork
from diffusion_fields.schedules import make_schedule
from torch import Tensor

from diffusion_fields import oracle

torch.set_num_threads(1)
COSINE = make_schedule("cosine", 1000)
PREDICTIONS = ["eps", "v", "x0", "flow"]


class Batch(NamedTuple):
    coords: Tensor
    signal: Tensor
    label: Tensor | None = None
    mask: Tensor | None = None


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circle_cov(n: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    angle = angle[:, None] - angle
    return sum(v * np.cos((m + 1) * angle) for m, v in enumerate((0.5, 0.3, 0.2)))


def fields(K: np.ndarray, batch: int, seed: int = 0) -> Tensor:
    """(batch, N, 1) draws of N(0, K); coordinates are the points' numbers."""
    draws = np.random.default_rng(seed).multivariate_normal(np.zeros(len(K)), K, batch, method="svd")
    return torch.from_numpy(draws)[..., None]


class Recorder:
    """A net that keeps what it was called with and gives `out` everywhere."""

    def __init__(self, out: float = 0.0) -> None:
        self.out = out

    def __call__(self, *sets: Tensor, **known: Any) -> Tensor:
        self.context_coords, self.context, self.t, self.query_coords, self.query = sets
        self.known = known
        return torch.full_like(self.query, self.out)


def best(K: np.ndarray, prediction: str, weight: float = 1.0):
    """The exact denoiser of N(0, K) at one level, in any prediction; the coordinates are the points' numbers."""

    def net(context_coords: Tensor, context: Tensor, t: Tensor, query_coords: Tensor, query: Tensor) -> Tensor:
        ctx, at = context_coords[:, 0].long().numpy(), query_coords[:, 0].long()
        if prediction == "flow":  # t is u (T - 1)
            u = float(t[0]) / 999
            abar = (1 - u) ** 2 / ((1 - u) ** 2 + u**2)
            scale = np.sqrt(abar) + np.sqrt(1 - abar)
            context, query = context * scale, query * scale
        else:
            abar = float(COSINE.alphas_cumprod[t[0]])
        y = torch.zeros(len(query), len(K), 1, dtype=query.dtype)
        y[:, at], y[:, ctx] = query, context
        eps = weight * torch.from_numpy(oracle.bayes_gain(K, ctx, abar)) @ y
        y, eps = y[:, at], eps[:, at]
        return target(prediction, to_x0("eps", eps, y, abar), eps, abar)

    return net


def test_sets_are_uniform_and_independent() -> None:
    context, query = draw_sets(12, 3, 5, seeded(), batch=20_000)
    assert context.shape == (20_000, 3)
    assert query.shape == (20_000, 5)
    for index, size in ((context, 3), (query, 5)):
        assert (index.sort(1).values.diff(dim=1) > 0).all()  # without replacement
        share = torch.bincount(index.flatten(), minlength=12) / 20_000
        assert (share - size / 12).abs().max() < 5 * (size / 12 * (1 - size / 12) / 20_000) ** 0.5
    overlap = (context[:, :, None] == query[:, None]).sum((1, 2)).double().mean()
    assert abs(float(overlap) - 3 * 5 / 12) < 0.03  # hypergeometric: drawn independently of each other
    shared = draw_sets(12, 3, 5, seeded(1))
    assert [s.shape for s in shared] == [(3,), (5,)]
    assert all(torch.equal(a, b) for a, b in zip(shared, draw_sets(12, 3, 5, seeded(1))))


def test_sets_of_ragged_fields_hold_valid_points_first() -> None:
    mask = torch.zeros(2000, 10, dtype=torch.bool)
    mask[:, [1, 4, 5, 8]] = True
    mask[0] = torch.arange(10) == 7
    context, query = draw_sets(10, 2, 4, seeded(), mask=mask)
    assert mask.gather(1, context)[1:].all()
    assert mask.gather(1, query)[1:].all()
    assert context[0, 0] == query[0, 0] == 7  # then filled up
    share = torch.bincount(context[1:].flatten(), minlength=10)[[1, 4, 5, 8]] / 1999
    assert (share - 0.5).abs().max() < 0.06


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 3), "num_context is 0"),
        ((13, 3), "num_context is 13"),
        ((3, 13), "num_query is 13, of fields with 12 pairs: choose it in 1..12"),
    ],
)
def test_bad_sets(sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_sets(12, *sizes, seeded())


def test_forward_noise_has_one_time_per_field() -> None:
    y0, eps = torch.randn(3, 5, 2, generator=seeded()), torch.randn(3, 5, 2, generator=seeded(1))
    t = torch.tensor([0, 500, 999])
    y = forward_noise(y0, t, COSINE, eps)
    for i, time in enumerate(t.tolist()):
        abar = COSINE.alphas_cumprod[time]
        expected = abar.sqrt().float() * y0[i] + (1 - abar).sqrt().float() * eps[i]
        torch.testing.assert_close(y[i], expected, rtol=0, atol=1e-7)
        torch.testing.assert_close(forward_noise(y0, time, COSINE, eps)[i], expected, rtol=0, atol=1e-6)
    assert y.dtype == torch.float32


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("abar", [0.9999, 0.4, 2.4e-9])
def test_conversions_give_back_signal_and_noise(prediction: str, abar: float) -> None:
    y0 = torch.randn(2, 7, 3, generator=seeded(), dtype=torch.float64)
    eps = torch.randn(2, 7, 3, generator=seeded(1), dtype=torch.float64)
    for level in (abar, torch.full((2, 1, 1), abar, dtype=torch.float64)):
        y_t = mix(y0, eps, level)
        out = target(prediction, y0, eps, level)
        torch.testing.assert_close(to_eps(prediction, out, y_t, level), eps, rtol=0, atol=1e-11)
        torch.testing.assert_close(to_x0(prediction, out, y_t, level), y0, rtol=0, atol=1e-11)


def test_targets() -> None:
    y0, eps = torch.tensor([2.0]), torch.tensor([1.0])
    assert target("eps", y0, eps, 0.36).item() == 1
    assert target("x0", y0, eps, 0.36).item() == 2
    assert target("flow", y0, eps, 0.36).item() == -1
    assert target("v", y0, eps, 0.36).item() == pytest.approx(0.6 * 1 - 0.8 * 2)
    for convert in (target, to_eps, to_x0):
        with pytest.raises(ValueError, match="prediction is 'score'; there are: eps, v, x0, flow"):
            convert("score", y0, eps, 0.36)


def test_a_flow_network_reads_the_straight_path() -> None:
    """y_u = (1 - u) y_0 + u eps at the u where signal and noise stand as at abar."""
    y0, eps = torch.randn(1, 6, 1, dtype=torch.float64), torch.randn(1, 6, 1, dtype=torch.float64)
    signal, time = network_input("flow", mix(y0, eps, 0.25), torch.tensor([3]), 0.25, 1000)
    u = float(time[0]) / 999
    assert u == pytest.approx(np.sqrt(0.75) / (0.5 + np.sqrt(0.75)))
    torch.testing.assert_close(signal, (1 - u) * y0 + u * eps)
    same, t = network_input("v", y0, torch.tensor([3]), 0.25, 1000)
    assert same is y0
    assert t.tolist() == [3]


def test_times() -> None:
    t = draw_times(50_000, make_schedule("cosine", 10), generator=seeded())
    assert torch.bincount(t, minlength=10).div(5000).sub(1).abs().max() < 0.08
    assert t.max() == 9
    u = draw_times(50_000, make_schedule("cosine", 10), "flow", seeded()) / 9
    assert 0 <= u.min() < u.max() <= 1
    assert float(u.mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_is_drawn_once_per_field_and_then_indexed(prediction: str) -> None:
    """A point of both sets carries the same noisy value, exactly; drawn apart, it does not (specification, 12.3)."""
    batch = Batch(torch.rand(40, 2, generator=seeded()), torch.randn(4, 40, 2, generator=seeded(1)))
    t = torch.tensor([3, 300, 600, 999])
    for sets in (draw_sets(40, 20, 30, seeded(2)), draw_sets(40, 20, 30, seeded(2), batch=4)):
        context, query = (s.expand(4, -1) for s in sets)
        net = Recorder()
        field_loss(net, batch, t, *sets, COSINE, prediction=prediction, generator=seeded(3))
        at_field, i, j = (context[:, :, None] == query[:, None]).nonzero(as_tuple=True)
        assert len(i) > 20
        assert torch.equal(net.context[at_field, i], net.query[at_field, j])
        assert torch.equal(
            net.context_coords.expand(4, -1, -1)[at_field, i], net.query_coords.expand(4, -1, -1)[at_field, j]
        )
        field_loss(net, batch, t, *sets, COSINE, prediction=prediction, noise="independent", generator=seeded(3))
        assert (net.context[at_field, i] != net.query[at_field, j]).double().mean() > 0.95


def test_the_loss_by_hand() -> None:
    """Queries only, each prediction in its own target; a net of zeros leaves the target's square."""
    batch = Batch(torch.rand(3, 9, 2), torch.randn(3, 9, 2, generator=seeded(1)))
    t, sets = torch.tensor([10, 500, 900]), draw_sets(9, 4, 5, seeded(2), batch=3)
    eps = torch.randn(3, 9, 2, generator=seeded(3))
    abar = COSINE.alphas_cumprod[t].reshape(3, 1, 1)
    y0 = batch.signal.gather(1, sets[1][..., None].expand(-1, -1, 2))
    eps = eps.gather(1, sets[1][..., None].expand(-1, -1, 2))
    for prediction in PREDICTIONS[:3]:
        loss = field_loss(Recorder(), batch, t, *sets, COSINE, prediction=prediction, generator=seeded(3))
        assert float(loss) == pytest.approx(float(target(prediction, y0, eps, abar).square().mean()), rel=1e-6)
    errors = field_errors(Recorder(), batch, t, *sets, COSINE, generator=seeded(3))
    torch.testing.assert_close(errors, eps.square().mean((1, 2)))
    # the flow's target is at u (T - 1), whatever the schedule
    net, u = Recorder(), torch.tensor([0.0, 0.25, 1.0])
    loss = field_loss(net, batch, u * 999, *sets, COSINE, prediction="flow", generator=seeded(3))
    assert float(loss) == pytest.approx(float((eps - y0).square().mean()), rel=1e-6)
    torch.testing.assert_close(net.query, (1 - u)[:, None, None] * y0 + u[:, None, None] * eps)
    assert torch.equal(net.t, u * 999)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("time", [100, 600, 950])
def test_the_best_net_has_the_floor_as_its_loss(prediction: str, time: int) -> None:
    """In eps, whatever is predicted; a shrunken best net is worse; nothing is below."""
    K = circle_cov(16)
    batch = Batch(torch.arange(16.0)[:, None], fields(K, 4000))
    sets = torch.tensor([0, 3, 7, 12]), torch.tensor([1, 3, 4, 5, 9, 12, 14])
    floor = oracle.bayes_mse(K, sets[0].numpy(), float(COSINE.alphas_cumprod[time]))[sets[1].numpy()].mean()
    t = torch.full((4000,), time)
    options = {"prediction": prediction, "measure": "eps", "generator": seeded(5)}
    errors = field_errors(best(K, prediction), batch, t, *sets, COSINE, **options)
    assert float(errors.mean()) == pytest.approx(floor, abs=5 * float(errors.std()) / 4000**0.5)
    worse = field_errors(best(K, prediction, 0.8), batch, t, *sets, COSINE, **{**options, "generator": seeded(5)})
    assert float(worse.mean()) > float(errors.mean()) + 0.02 * (1 - floor)


def test_without_context_values_nothing_is_below_the_own_only_floor() -> None:
    """A net that sees its own noisy value alone, at its best over all of them (specification, 12.5)."""
    K, n = circle_cov(16), 20_000
    batch = Batch(torch.arange(16.0)[:, None], fields(K, n))
    for time in (200, 700):
        abar = float(COSINE.alphas_cumprod[time])
        losses = []
        for slope in np.sqrt(1 - abar) * np.array([0.9, 1.0, 1.1]):
            errors = field_errors(
                lambda cc, c, t, qc, q, slope=slope: slope * q,
                batch, torch.full((n,), time), *draw_sets(16, 4, 8, seeded(1)), COSINE, generator=seeded(2),
            )  # fmt: skip
            losses.append(float(errors.mean()))
        floor = oracle.own_only_floor(np.array([abar]))
        assert losses[1] == pytest.approx(floor, abs=5 * float(errors.std()) / n**0.5)
        assert losses[1] < min(losses[0], losses[2])


def test_the_loss_reaches_the_context() -> None:
    torch.manual_seed(0)
    net = ScoreNetwork(2, 1, 2, 32, 12, 32, 2, 1, 4)
    angle = 2 * torch.pi * torch.arange(16) / 16
    signal = fields(circle_cov(16), 4).float().requires_grad_()
    batch = Batch(torch.stack([angle.cos(), angle.sin()], 1), signal)
    sets = torch.tensor([0, 3, 7, 12]), torch.tensor([1, 4, 5])
    loss = field_loss(
        net, batch, torch.tensor([10, 200, 500, 800]), *sets, COSINE, prediction="eps", generator=seeded()
    )
    (gradient,) = torch.autograd.grad(loss, signal)
    assert (gradient[:, sets[0]].abs().amax((1, 2)) > 0).all()  # of each field, through its context
    assert gradient[:, [2, 6, 8, 9]].abs().max() == 0  # of points in neither set


def test_masked_means() -> None:
    """A mean over each field's valid queries, then over fields; what is masked does not matter."""
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2:] = False
    signal = torch.randn(2, 6, 1, generator=seeded())
    sets = torch.arange(6), torch.arange(6)
    t = torch.tensor([100, 800])
    batch = Batch(torch.rand(2, 6, 3), signal, torch.tensor([4, 7]), mask)
    net = Recorder()
    errors = field_errors(net, batch, t, *sets, COSINE, generator=seeded(1))
    eps = torch.randn(2, 6, 1, generator=seeded(1))
    torch.testing.assert_close(errors, torch.stack([eps[0, :2].square().mean(), eps[1].square().mean()]))
    loss = field_loss(net, batch, t, *sets, COSINE, generator=seeded(1))
    assert float(loss) == pytest.approx(float(errors.mean()))
    assert torch.equal(net.known["context_mask"], mask)
    assert net.known["label"].tolist() == [4, 7]
    other = signal.clone()
    other[0, 2:] = 1e6
    again = field_errors(net, batch._replace(signal=other), t, *sets, COSINE, prediction="x0", generator=seeded(1))
    first = field_errors(net, batch, t, *sets, COSINE, prediction="x0", generator=seeded(1))
    assert torch.equal(again, first)
    own = torch.tensor([[5, 0], [5, 0]])
    field_errors(net, batch, t, own, own, COSINE, generator=seeded(1))
    assert net.known["context_mask"].tolist() == [[False, True], [True, True]]
    with pytest.raises(ValueError, match="no valid query"):
        field_errors(net, batch, t, sets[0], torch.tensor([3, 4]), COSINE)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"noise": "twice"}, "noise is 'twice'; there are: shared, independent"),
        ({"prediction": "score"}, "prediction is 'score'"),
    ],
)
def test_bad_options(option: dict[str, str], message: str) -> None:
    batch = Batch(torch.rand(6, 2), torch.rand(1, 6, 1))
    with pytest.raises(ValueError, match=message):
        field_loss(Recorder(), batch, torch.tensor([1]), torch.arange(2), torch.arange(3), COSINE, **option)
