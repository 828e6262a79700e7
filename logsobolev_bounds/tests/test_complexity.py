"""C(lambda, p) on small networks against plain autograd, what it must not depend on, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from logsobolev_bounds.complexity import (
    ComplexityError,
    Mode,
    PerDraw,
    forward_chunk,
    grid,
    loss_and_gradient,
    of_prior,
    per_draw,
)
from logsobolev_bounds.data import BadData, class_covariances, covariance
from logsobolev_bounds.errors import BoundError
from logsobolev_bounds.layers import BayesLinear, LocalReparametrisation, Weights
from logsobolev_bounds.models import BayesNet, build, one
from shared.errors import UserError

ALPHAS = grid(1.0, 17)


def prior(net: BayesNet, draws: int = 3, seed: int = 0) -> list[Weights]:
    return net.draws(draws, torch.Generator().manual_seed(seed), prior=True)


@pytest.fixture
def small() -> tuple[BayesNet, list[Weights], torch.Tensor, torch.Tensor]:
    """Two classes of six inputs each, correlated; a network of one hidden layer; float64."""
    torch.manual_seed(0)
    net = build("mlp", 5, 3, sigma_p=0.7, depth=1, width=4, bias=True).double()
    x = torch.randn(14, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    return net, prior(net), x, torch.arange(14) % 3


def by_autograd(net, stacked, x, y, sigma) -> tuple[torch.Tensor, torch.Tensor]:
    """One example and one draw at a time."""
    loss, g = (torch.empty(len(stacked[0].weight), len(y), dtype=x.dtype) for _ in range(2))
    for k in range(len(loss)):
        for i in range(len(y)):
            point = x[i : i + 1].clone().requires_grad_()
            value = F.cross_entropy(net.at(one(stacked, k), point), y[i : i + 1])
            slope = torch.autograd.grad(value, point)[0].flatten()
            loss[k, i], g[k, i] = value.detach(), slope @ sigma @ slope
    return loss, g


@pytest.mark.parametrize("kind", ["mlp", "deep", "linear", "lenet"])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_and_gradients_are_those_of_autograd(kind: str, weighted: bool) -> None:
    torch.manual_seed(1)
    settings = {"mlp": {"depth": 1, "bias": True}, "deep": {"depth": 3}, "linear": {}, "lenet": {"bias": True}}[kind]
    d, n = (784, 3) if kind == "lenet" else (6, 7)
    net = build("mlp" if kind == "deep" else kind, d, 3, sigma_p=0.3, width=5, **settings).double()
    stacked, x, y = prior(net, 2), torch.randn(n, d, dtype=torch.float64), torch.arange(n) % 3
    sigma = covariance(torch.randn(20, d, dtype=torch.float64)) if weighted else None
    expected = by_autograd(net, stacked, x, y, torch.eye(d, dtype=x.dtype) if sigma is None else sigma)
    for found, wanted in zip(loss_and_gradient(net, stacked, x, y, sigma), expected):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13)


def test_c_is_that_of_the_formulas(small) -> None:
    net, stacked, x, y = small
    sigma, m = covariance(x), 50
    loss, g = by_autograd(net, stacked, x, y, sigma)
    tilt = torch.exp(-ALPHAS * loss[..., None])
    G = (tilt * g[..., None]).sum(1) / tilt.sum(1)
    H = m / 2 * torch.trapezoid(G, ALPHAS)  # lambda / 2 times the integral, at lambda = m
    found = per_draw(net, stacked, x, y, ALPHAS)
    c, ess = found.complexity(float(m), m)
    assert c == pytest.approx(float(torch.logsumexp(H, 0)) - math.log(3), rel=1e-10)
    assert ess == pytest.approx(float(H.exp().sum() ** 2 / H.mul(2).exp().sum()), rel=1e-9)
    psi = tilt.mean(1).log() + ALPHAS * loss.mean(1, keepdim=True)
    torch.testing.assert_close(found.ratio, psi[:, -1] / found.bound[:, -1], rtol=1e-9, atol=1e-12)
    half = per_draw(net, stacked, x, y, ALPHAS, ratio_at=0.5).ratio
    torch.testing.assert_close(half, psi[:, 8] / found.bound[:, 8], rtol=1e-9, atol=1e-12)
    for outside in (1.1, 0.0):
        with pytest.raises(UserError, match="is outside the grid, which goes from 0 to 1"):
            per_draw(net, stacked, x, y, ALPHAS, ratio_at=outside)
    torch.testing.assert_close(found.loss, loss.mean(1))
    torch.testing.assert_close(found.grad_sq, g.mean(1))


@pytest.mark.parametrize("kind", ["mlp", "lenet"])
@pytest.mark.parametrize("mode", ["identity", "total", "within", "class_corrected"])
def test_neither_chunks_nor_the_order_of_draws_change_c(kind: str, mode: str) -> None:
    torch.manual_seed(2)
    d, n = (784, 12) if kind == "lenet" else (20, 40)
    net = build(kind, d, 3, sigma_p=0.1, depth=2, width=9)
    stacked, x, y = prior(net, 4), torch.rand(n, d), torch.arange(n) % 3
    values = [per_draw(net, stacked, x, y, ALPHAS, mode, budget=budget).complexity(n, n) for budget in (1, 5000, 2**28)]
    for each in values:
        assert each == pytest.approx(values[0], rel=1e-6)
    turned = [Weights(w.weight.flip(0), None) for w in stacked]
    assert per_draw(net, turned, x, y, ALPHAS, mode).complexity(n, n) == pytest.approx(values[-1], rel=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "lenet"])
def test_draws_in_groups_are_those_at_once(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of two numbers of draws: bit for bit the same prior, whatever the budget; and from where a stopped run was."""
    torch.manual_seed(3)
    d, n = (784, 12) if kind == "lenet" else (20, 40)
    net = build(kind, d, 3, sigma_p=0.1, depth=2, width=9)
    x, y, modes = torch.rand(n, d), torch.arange(n) % 3, get_args(Mode)
    groups: list[int] = []
    original = BayesNet.draws
    monkeypatch.setattr(
        BayesNet, "draws", lambda self, k, *rest, **more: (groups.append(k), original(self, k, *rest, **more))[1]
    )

    def measured(draws: int, budget: int, kept: Path | None = None) -> dict:
        groups.clear()
        return of_prior(net, draws, torch.Generator().manual_seed(0), x, y, ALPHAS, modes, 0.5, budget, kept)

    for draws in (3, 5):
        whole = measured(draws, 2**28)
        assert groups == [draws]
        apart = measured(draws, 1)
        assert groups == [1] * draws
        for mode in modes:
            each = per_draw(net, original(net, draws, torch.Generator().manual_seed(0), prior=True), x, y, ALPHAS, mode)
            for name in ("bound", "loss", "grad_sq"):
                torch.testing.assert_close(getattr(apart[mode], name), getattr(whole[mode], name), rtol=1e-5, atol=1e-9)
                assert torch.equal(getattr(whole[mode], name), getattr(each, name))
    kept = tmp_path / "draws.pt"

    def stop_in_the_third(self: BayesNet, k: int, *rest: Any, **more: Any) -> Any:
        if len(groups) == 2:
            raise KeyboardInterrupt
        groups.append(k)
        return original(self, k, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(BayesNet, "draws", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            measured(5, 1, kept)
    resumed = measured(5, 1, kept)
    assert groups == [1] * 3
    for mode in modes:
        assert torch.equal(resumed[mode].bound, apart[mode].bound)
        assert torch.equal(resumed[mode].ratio, apart[mode].ratio)
    with pytest.raises(UserError, match="is of a run with other draws"):
        measured(6, 1, kept)
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged: delete it"):
        measured(5, 1, kept)


@pytest.mark.parametrize("kind", ["mlp", "lenet"])
def test_one_gradient_serves_every_covariance_of_all_examples(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    d, n = (784, 12) if kind == "lenet" else (20, 40)
    net = build(kind, d, 3, sigma_p=0.1, depth=2, width=9)
    passes: list[int] = []
    original = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda *a, **k: (passes.append(1), original(*a, **k))[1])
    counts = []
    for modes in (("identity",), ("identity", "total", "within")):
        passes.clear()
        of_prior(net, 2, torch.Generator(), torch.rand(n, d), torch.arange(n) % 3, ALPHAS, modes)
        counts.append(len(passes))
    assert counts[0] == counts[1] > 0


def test_the_class_corrected_bound_by_hand(small) -> None:
    net, stacked, x, y = small
    parts, means, shares = [], [], []
    for label, sigma in class_covariances(x, y).items():
        loss, g = by_autograd(net, stacked, x[y == label], y[y == label], sigma)
        tilt = torch.exp(-ALPHAS * loss[..., None])
        G = (tilt * g[..., None]).sum(1) / tilt.sum(1)
        steps = torch.cat([torch.zeros(3, 1), ((G[:, 1:] + G[:, :-1]) / 2 * ALPHAS.diff()).cumsum(1)], 1)
        parts.append(ALPHAS / 2 * steps)
        means.append(loss.mean(1, keepdim=True))
        shares.append(len(loss[0]) / 14)
    total = sum(share * mean for share, mean in zip(shares, means))
    inside = [s * torch.exp(-ALPHAS * (mean - total) + part) for s, mean, part in zip(shares, means, parts)]
    found = per_draw(net, stacked, x, y, ALPHAS, "class_corrected")
    torch.testing.assert_close(found.bound, sum(inside).log(), rtol=1e-9, atol=1e-12)
    pooled = per_draw(net, stacked, x, y, ALPHAS, "within")
    assert (found.bound[:, -1] != pooled.bound[:, -1]).all()


def test_with_one_class_the_corrected_bound_is_the_total_one(small) -> None:
    net, stacked, x, _ = small
    y = torch.zeros(14, dtype=torch.int64)
    corrected, total = (per_draw(net, stacked, x, y, ALPHAS, mode) for mode in ("class_corrected", "total"))
    torch.testing.assert_close(corrected.bound, total.bound, rtol=1e-12, atol=0)
    torch.testing.assert_close(corrected.loss, total.loss, rtol=1e-12, atol=0)


def test_a_covariance_of_ones_own_is_the_one_that_counts(small) -> None:
    net, stacked, x, y = small
    own = per_draw(net, stacked, x, y, ALPHAS, "total", sigma=4 * covariance(x))
    torch.testing.assert_close(own.grad_sq, 4 * per_draw(net, stacked, x, y, ALPHAS, "total").grad_sq)


TILTED = torch.eye(5, dtype=torch.float64)
TILTED[0, 1] = 0.5
NAN = torch.full((5, 5), torch.nan, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"mode": "euclid"}, ComplexityError, "unknown covariance 'euclid': there are identity, total, within, class_"),
        ({"sigma": TILTED}, BoundError, "Sigma is not symmetric: entries differ by 0.5"),
        ({"sigma": -torch.eye(5, dtype=torch.float64)}, BoundError, "Sigma has the eigenvalue -1"),
        ({"sigma": torch.ones(5, 4)}, BoundError, r"Sigma has shape \(5, 4\): inputs have 5 entries"),
        ({"sigma": NAN}, BoundError, "Sigma has an entry that is not finite"),
        ({"sigma": torch.eye(4, dtype=torch.float64)}, BoundError, r"Sigma has shape \(4, 4\): inputs have 5 entries"),
        ({"sigma": torch.eye(5), "mode": "class_corrected"}, ComplexityError, "class_corrected takes the covariance"),
        ({"alphas": torch.linspace(0, 1, 16)}, ValueError, "T is 16: the trapezoid rule needs at least 17"),
        ({"alphas": torch.linspace(0.1, 1, 17)}, ValueError, "alphas start at 0.1"),
        ({"x": torch.empty(0, 5), "y": torch.empty(0, dtype=torch.int64)}, ComplexityError, "there are no examples"),
        ({"mode": "class_corrected", "y": torch.tensor([1, 2] + [0] * 12)}, BadData, "class 1 has 1 example: its"),
        ({"y": torch.full((14,), 3)}, ValueError, "label"),
    ],
)
def test_what_no_complexity_can_be_computed_of(small, change: dict, error: type[Exception], says: str) -> None:
    net, stacked, x, y = small
    settings = {"x": x, "y": y, "alphas": ALPHAS, "mode": "identity" if "x" in change else "total"} | change
    with pytest.raises(error, match=says) as caught:
        per_draw(net, stacked, **settings)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_grids_and_lambdas_that_do_not_fit(small) -> None:
    with pytest.raises(ComplexityError, match="T is 16: the trapezoid rule needs at least 17 points"):
        grid(1.0, 16)
    with pytest.raises(ComplexityError, match="has to be > 0"):
        grid(0.0)
    net, stacked, x, y = small
    found = per_draw(net, stacked, x, y, ALPHAS)
    assert found.complexity(25.0, 50) != found.complexity(50.0, 50)
    for lam in (26.0, 53.125, 1e6):
        with pytest.raises(ComplexityError, match=r"lambda = \S+ is not on the grid of alpha = lambda / m up to 1"):
            found.complexity(lam, 50)
    for lam, m in ((0.0, 50), (-3.125, 50), (math.nan, 50), (25.0, 0)):
        with pytest.raises(ComplexityError, match=r"lambda is .* and m \d+: lambda has to be > 0 and m at least 1"):
            found.complexity(lam, m)


def test_c_grows_with_lambda_and_rests_on_fewer_draws() -> None:
    bound = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64) * ALPHAS.square()
    found = PerDraw(ALPHAS, bound, *[bound[:, 0]] * 3, "total")
    c, ess = zip(*(found.complexity(100 * float(a), 100) for a in ALPHAS[1:]))
    assert list(c) == sorted(c)
    assert list(ess) == sorted(ess, reverse=True)
    assert 2 < ess[0] < 3
    assert ess[-1] == pytest.approx(1, abs=1e-6)


class Sampling(BayesNet):
    """Forgets the draw that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([BayesLinear(5, 3, 0.1)])

    def at(self, draw, x):
        return self.forward(x)

    def run(self, x, layer):
        return layer(0, x)


def test_sampling_for_every_example_is_refused_inside_c(small) -> None:
    net, (_, _, x, y) = Sampling(), small
    with pytest.raises(LocalReparametrisation, match="a bound needs one draw for all of them") as caught:
        per_draw(net, prior(net), x.float(), y, ALPHAS)
    assert isinstance(caught.value, ValueError)
    assert net(x.float()).shape == (14, 3)  # outside it may


MEMORY = """
import json
from pathlib import Path
import torch
from logsobolev_bounds.certify import posterior_risks
from logsobolev_bounds.complexity import grid, of_prior, per_draw
from logsobolev_bounds.models import build
torch.set_num_threads(1)
torch.manual_seed(0)
net = build({network!r}, 784, 10, sigma_p=0.1, depth=2, width=1000)
x, y = torch.rand({n}, 784), torch.arange({n}) % 10
stacked = net.draws(2, torch.Generator().manual_seed(0), prior=True)
many = build("linear", 784, 10, sigma_p=0.1)
def peak():  # in MB, since it was asked for last
    hwm = next(int(line.split()[1]) for line in Path("/proc/self/status").open() if "VmHWM" in line) / 1024
    Path("/proc/self/clear_refs").write_text("5")
    return hwm
per_draw(net, stacked, x[:20], y[:20], grid(1.0, 17), "identity")
posterior_risks(net, x[:20], y[:20], 2, 1e-4, torch.Generator())
def taken(call):
    peak()
    before = peak()
    value = call()
    return peak() - before, value
out = []
for budget in (2**20, 2**33):
    out.append(taken(lambda: posterior_risks(net, x, y, 2, 1e-4, torch.Generator(), budget)["nll"]))
    c = lambda: per_draw(net, stacked, x, y, grid(1.0, 17), "identity", budget=budget).complexity(100.0, 100)[0]
    out.append(taken(c))
for draws in (100, 400):
    def c(): return of_prior(many, draws, torch.Generator(), x[:20], y[:20], grid(1.0, 17), ("identity",), budget=2**20)
    out.append(taken(lambda: float(c()["identity"].bound.sum())))
print(json.dumps(out))
"""

COVARIANCES = """
import json
from pathlib import Path
import torch
from logsobolev_bounds.complexity import grid, of_prior
from logsobolev_bounds.models import build
torch.set_num_threads(1)
torch.manual_seed(0)
net = build("linear", 784, 10, sigma_p=0.1)
x, y = torch.rand(6000, 784), torch.arange(6000) % 2
def peak():  # in MB, since it was asked for last
    hwm = next(int(line.split()[1]) for line in Path("/proc/self/status").open() if "VmHWM" in line) / 1024
    Path("/proc/self/clear_refs").write_text("5")
    return hwm
def c(mode, n, budget):
    found = of_prior(net, 2, torch.Generator().manual_seed(0), x[:n], y[:n], grid(1.0, 17), (mode,), budget=budget)
    return float(found[mode].complexity(100.0, 100)[0])
out = []
for mode in ("total", "within", "class_corrected"):
    c(mode, 20, 2**20)
    for budget in (2**22, 2**33):
        peak()
        before = peak()
        value = c(mode, 6000, budget)
        out.append((peak() - before, value))
print(json.dumps(out))
"""

ONE_ARENA = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


@pytest.mark.parametrize(
    ("network", "n", "own", "layer"),
    [("lenet", 1000, 0.3, 47.8), pytest.param("mlp", 4000, 34.2, 15.3, marks=pytest.mark.slow)],
)
def test_memory_is_bounded_by_the_budget(network: str, n: int, own: float, layer: float) -> None:
    """Peak memory in MB of risks and of C: with a budget of 1 MB, and with more than enough.

    `own` is what two draws of the weights take while they are made (five copies), whatever the budget; what is left is
    the allocator's, which gives back what it need not keep. `layer` is one layer's output for every example: without a
    budget at least that much more is held.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(network=network, n=n)], capture_output=True, text=True, check=True,
        timeout=200, env=ONE_ARENA,
    )  # fmt: skip
    found = json.loads(done.stdout)
    for grown, _ in found[4:]:  # 400 draws of 7,840 weights are 12.5 MB, and five copies 63
        assert grown < 1 + 8
    for (small, value), (large, again) in zip(found[:2], found[2:4]):
        assert small < 1 + own + 8
        assert large > small + layer
        assert again == pytest.approx(value, rel=1e-6)


def test_the_memory_of_an_assumed_covariance_is_bounded_by_the_budget() -> None:
    """6,000 examples of 784 pixels are 18 MB, and 36 in float64; a covariance in float64 is 4.7 MB.

    A few covariances are held at a time, whatever the budget; without one a float64 copy of all examples of a class.
    """
    done = subprocess.run(
        [sys.executable, "-c", COVARIANCES], capture_output=True, text=True, check=True, timeout=200, env=ONE_ARENA
    )
    found = json.loads(done.stdout)
    for (small, value), (large, again) in zip(found[::2], found[1::2]):
        assert small < 4 + 6 * 4.7
        assert large > small + 4
        assert again == pytest.approx(value, rel=1e-6)


def test_a_forward_pass_takes_as_many_examples_as_the_budget_allows() -> None:
    net, x = build("lenet", 784), torch.zeros(3, 784)
    assert forward_chunk(net, x, 1) == 1
    assert forward_chunk(net, x, 2**28) == 2**28 // (4 * 40 * 784)
    assert forward_chunk(build("mlp", 784, depth=2, width=50), x, 6000) == 10
