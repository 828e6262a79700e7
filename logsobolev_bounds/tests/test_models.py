"""Networks and Bayesian layers: counts of section 4, the divergence, both modes, and where one of them is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from logsobolev_bounds.bounds.kl import gaussian_divergence
from logsobolev_bounds.layers import BayesConv2d, BayesLinear, LocalReparametrisation, explicit_weights_only
from logsobolev_bounds.models import build, one
from shared.errors import UserError
from torch.distributions import Normal, kl_divergence

COUNTS = [
    ({"name": "linear", "inputs": 64}, 640),
    ({"name": "linear", "inputs": 784}, 7_840),
    ({"name": "linear", "inputs": 784, "bias": True}, 7_850),
    ({"name": "mlp", "inputs": 64, "depth": 1, "width": 64}, 4_736),
    ({"name": "mlp", "inputs": 64, "depth": 2, "width": 64}, 8_832),
    ({"name": "mlp", "inputs": 784, "depth": 1, "width": 100}, 79_400),
    ({"name": "mlp", "inputs": 784, "depth": 2, "width": 100}, 89_400),
    ({"name": "mlp", "inputs": 784, "depth": 3, "width": 100}, 99_400),
    ({"name": "lenet", "inputs": 784}, 28_880),
    ({"name": "lenet", "inputs": 784, "bias": True}, 28_938),
    ({"name": "resnet20", "inputs": 3072}, 268_336),
    ({"name": "resnet20", "inputs": 3072, "bias": True}, 268_346),
]


@pytest.mark.parametrize(("settings", "count"), COUNTS)
def test_counts(settings: dict, count: int) -> None:
    net = build(**settings)
    assert net.weights() == count
    x = torch.randn(3, settings["inputs"])
    draw = one(net.draws(2, torch.Generator().manual_seed(0)), 1)
    assert net(x).shape == net.at(draw, x).shape == (3, 10)


def test_the_divergence_is_a_sum_over_all_weights() -> None:
    torch.manual_seed(0)
    net = build("mlp", 6, 3, sigma_p=0.3, depth=1, width=4, bias=True)
    expected = 0.0
    for layer in net.layers:
        with torch.no_grad():
            layer.rho.add_(torch.randn_like(layer.rho))
        for mu, rho in ((layer.mu, layer.rho), (layer.bias_mu, layer.bias_rho)):
            q, p = Normal(mu.double(), F.softplus(rho).double()), Normal(torch.zeros((), dtype=torch.float64), 0.3)
            expected = expected + kl_divergence(q, p).sum()
    torch.testing.assert_close(net.kl(), expected, rtol=1e-6, atol=0)


def test_the_golden_divergence() -> None:
    from pathlib import Path

    import numpy as np

    path = Path(__file__).parent / "golden" / "kl_gauss.npz"
    file = {k: torch.from_numpy(np.array(v)) for k, v in np.load(path, allow_pickle=False).items()}
    sigma_p = float(file["iso_sigma_p"])
    value = gaussian_divergence(file["mu_q"], file["sigma_q"], torch.zeros_like(file["mu_q"]), sigma_p)
    torch.testing.assert_close(value, file["kl_iso_total"].reshape(()), rtol=1e-10, atol=0)


def test_more_than_a_million_weights_are_summed_in_float64() -> None:
    """Of the network: none of its layers has that many."""
    torch.manual_seed(0)
    net = build("mlp", 784, 10, sigma_p=0.1, depth=3, width=600)
    assert net.weights() == 1_196_400
    assert max(layer.mu.numel() for layer in net.layers) < 10**6
    exact = sum(gaussian_divergence(la.mu.double(), la.sigma.double(), torch.zeros(()), 0.1) for la in net.layers)
    torch.testing.assert_close(net.kl(), exact, rtol=1e-13, atol=0)


def test_twice_the_width_of_the_same_weights_has_twice_the_divergence() -> None:
    torch.manual_seed(0)
    one_layer, two = BayesLinear(5, 3, 0.2), BayesLinear(5, 6, 0.2)
    with torch.no_grad():
        two.mu.copy_(one_layer.mu.repeat(2, 1))
        two.rho.copy_(one_layer.rho.repeat(2, 1))
    torch.testing.assert_close(two.kl(), 2 * one_layer.kl())


def test_the_start_is_as_specified() -> None:
    torch.manual_seed(0)
    for sigma_p, scale in ((0.05, 0.05), (0.3, 0.05)):  # 1 / sqrt(400) = 0.05
        layer = BayesLinear(400, 300, sigma_p)
        assert layer.mu.std().item() == pytest.approx(scale, rel=0.02)
        torch.testing.assert_close(layer.sigma, torch.full_like(layer.sigma, sigma_p / 2))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_both_modes_have_the_same_distribution(kind: str) -> None:
    """Mean and variance of pre-activations over many explicit draws, and as local reparametrisation has them."""
    torch.manual_seed(0)
    if kind == "linear":
        layer, x = BayesLinear(7, 3, 0.5, bias=True).double(), torch.randn(4, 7).double()
    else:
        layer, x = BayesConv2d(2, 3, 3, 0.5, padding=1, stride=2, bias=True).double(), torch.randn(4, 2, 5, 5).double()
    mean, variance = layer.moments(x)
    draws = layer.draws(20_000, torch.Generator().manual_seed(1))
    values = torch.stack([layer.at(x, type(draws)(w, b)) for w, b in zip(draws.weight[:4000], draws.bias[:4000])])
    error = variance.sqrt() / math.sqrt(len(values))
    assert ((values.mean(0) - mean).abs() < 5 * error).all()
    torch.testing.assert_close(values.var(0), variance, rtol=0.15, atol=0)
    sampled = torch.stack([layer(x) for _ in range(4000)])
    assert ((sampled.mean(0) - mean).abs() < 5 * error).all()
    torch.testing.assert_close(sampled.var(0), variance, rtol=0.15, atol=0)


def test_prior_draws_have_the_priors_deviation_and_draws_repeat() -> None:
    net = build("mlp", 64, sigma_p=0.1, depth=1, width=64)
    first, again = (net.draws(50, torch.Generator().manual_seed(3), prior=True) for _ in range(2))
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(first, again))
    for w in first:
        assert w.weight.std().item() == pytest.approx(0.1, rel=0.02)
        assert abs(w.weight.mean().item()) < 1e-3


def test_sampling_for_each_example_is_refused_inside_a_bound() -> None:
    net, x = build("linear", 5, 3), torch.randn(2, 5)
    with explicit_weights_only(), pytest.raises(ValueError, match="use draws") as caught:
        net(x)
    assert isinstance(caught.value, LocalReparametrisation | UserError)
    net(x)


def test_resnet_uses_every_weight_and_couples_no_examples() -> None:
    torch.manual_seed(0)
    for norm in ("none", "group"):
        net = build("resnet20", 3072, sigma_p=0.1, norm=norm)
        draw = one(net.draws(1, torch.Generator().manual_seed(0)), 0)
        for w in draw:
            w.weight.requires_grad_()
        x = torch.rand(3, 3072)
        both = net.at(draw, x)
        torch.testing.assert_close(both[:1], net.at(draw, x[:1]), rtol=1e-4, atol=1e-5)
        grads = torch.autograd.grad(both.square().sum(), [w.weight for w in draw])
        assert all(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "vgg", "inputs": 64}, "unknown network 'vgg': there are linear, mlp, lenet, resnet20"),
        ({"name": "mlp", "inputs": 64, "depth": 0}, "depth is 0"),
        ({"name": "lenet", "inputs": 64}, "lenet takes images of 784 numbers, these have 64"),
        ({"name": "linear", "inputs": 64, "sigma_p": 0.0}, "sigma_p is 0.0"),
        ({"name": "linear", "inputs": 64, "init_scale": 0.0}, "init_scale is 0.0"),
        ({"name": "resnet20", "inputs": 3072, "norm": "batch"}, "batch normalisation couples examples"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build(**settings)
