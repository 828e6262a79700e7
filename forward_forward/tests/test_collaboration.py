"""The identities of section 2.2 and the traps of section 9."""

from __future__ import annotations

import pytest
import torch
from forward_forward.collaboration import (
    check_schedule,
    collaborate,
    gamma_mask,
    local_losses,
    losses,
    residuals,
)
from forward_forward.entropy import entropy_objective, entropy_report, entropy_residuals, functional_entropy
from forward_forward.goodness import normalise
from forward_forward.labels import neutral_code, overlay
from forward_forward.metrics import GoodnessMetrics
from forward_forward.model import ForwardForwardNet
from forward_forward.negatives import hard_negatives, permuted_negatives, uniform_negatives
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.errors import UserError

N, K, THETA = 7, 3, 5.0


def setup_net(norm: str = "rms", kind: str = "sum") -> tuple[ForwardForwardNet, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = ForwardForwardNet(16, [14, 13, 12], classes=5, norm=norm, kind=kind).double()  # type: ignore[arg-type]
    images = torch.rand(N, 16, dtype=torch.float64)
    y = torch.randint(5, (N,))
    return net, images, torch.stack([y, (y + 2) % 5])


def autograd_inputs(net: ForwardForwardNet, images: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    return torch.cat([overlay(images, y, 5, net.strength) for y in pairs])


@pytest.mark.parametrize("norm", ["rms", "l2", "none"])
@pytest.mark.parametrize("kind", ["sum", "mean"])
@pytest.mark.parametrize("gamma", ["none", "prev", "all", "next", "neighbours"])
def test_closed_form_equals_autograd(norm: str, kind: str, gamma: str) -> None:
    net, images, pairs = setup_net(norm, kind)
    mask, theta, tau, weight = gamma_mask(gamma, K), torch.full((K,), THETA).double(), 3.0, 0.7
    options = {"positives": N, "norm": norm, "kind": kind, "weight": weight, "tau": tau}
    x = autograd_inputs(net, images, pairs)
    expected, _ = local_losses(x, list(net.weights), list(net.biases), mask, theta, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        passed = net.pairs(images, pairs)
        logits = collaborate(passed.goodness, mask, weight, theta)
        torch.testing.assert_close(losses(logits, N, tau), expected.detach(), rtol=1e-10, atol=1e-12)
        r = residuals(logits, N, tau)
    for i in range(K):
        gradients = torch.autograd.grad(expected[i], [net.weights[i], net.biases[i]], retain_graph=True)
        with torch.no_grad():
            for ours, theirs in zip(net.layer_gradient(passed, i, r[:, i]), gradients):
                torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_all_equals_one_global_loss_with_detached_inputs() -> None:
    net, images, pairs = setup_net()
    h, g = autograd_inputs(net, images, pairs), []
    for w, b in zip(net.weights, net.biases):
        z = h / (h.square().mean(1, keepdim=True).sqrt() + 1e-8)
        h = torch.relu(z.detach() @ w + b)
        g.append(h.square().sum(1))
    target = torch.cat([torch.ones(N), torch.zeros(N)]).double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(sum(g) - THETA, target)  # type: ignore[arg-type]
    loss.backward()
    with torch.no_grad():
        passed = net.pairs(images, pairs)
        logits = collaborate(passed.goodness, gamma_mask("all", K), 1.0, torch.full((K,), THETA).double())
        torch.testing.assert_close(logits[:, 0], logits[:, 2], rtol=1e-12, atol=1e-12)
        r = residuals(logits, N, 1.0)
        for i in range(K):
            dw, db = net.layer_gradient(passed, i, r[:, i])
            torch.testing.assert_close(dw, net.weights[i].grad, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(db, net.biases[i].grad, rtol=1e-10, atol=1e-10)


def test_no_gradient_crosses_a_layer() -> None:
    net, images, pairs = setup_net()
    x = autograd_inputs(net, images, pairs)
    theta = torch.full((K,), THETA).double()
    args = (x, list(net.weights), list(net.biases), gamma_mask("all", K), theta)
    cut, _ = local_losses(*args, positives=N, norm="rms", kind="sum")
    for i in range(K):
        for t in range(K):
            (gradient,) = torch.autograd.grad(cut[i], net.weights[t], retain_graph=True, allow_unused=True)
            assert (gradient is None or not gradient.any()) == (t != i)
    through, _ = local_losses(*args, positives=N, norm="rms", kind="sum", cut=False)
    assert torch.autograd.grad(through[2], net.weights[0])[0].any()  # what the cut prevents is there to be prevented


def test_another_layer_acts_on_a_gradient_only_through_the_residual() -> None:
    net, images, pairs = setup_net()
    with torch.no_grad():
        before = net.layer_gradient(net.pairs(images, pairs), 0, torch.ones(2 * N).double())
        net.weights[1] += 0.3
        after = net.layer_gradient(net.pairs(images, pairs), 0, torch.ones(2 * N).double())
    assert torch.equal(before[0], after[0])


def test_gamma_of_a_negative_pair_is_its_own() -> None:
    net, images, pairs = setup_net()
    with torch.no_grad():
        g = net.pairs(images, pairs).goodness
        logits = collaborate(g, gamma_mask("all", K), 1.0, torch.zeros(K).double())
    torch.testing.assert_close(logits[N:, 0], g[N:].sum(1))
    assert not torch.allclose(logits[N:, 0], g[N:, 0] + g[:N, 1:].sum(1))


def test_losses_do_not_overflow() -> None:
    logits = torch.tensor([[-1e4], [1e4]])
    assert losses(logits, 1, 1.0).item() == pytest.approx(1e4)


def test_masks_by_name() -> None:
    assert gamma_mask("prev", 3).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert gamma_mask("next", 3).tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert gamma_mask("neighbours", 3).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert gamma_mask([[0, 1], [0, 0]], 2).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("gamma", "says"),
    [
        ("some", "unknown gamma mask 'some'"),
        ([[1, 0], [0, 0]], "diagonal"),
        ([[0, 2], [0, 0]], "0 and 1"),
        ([[0]], "2 x 2"),
    ],
)
def test_bad_masks(gamma: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        gamma_mask(gamma, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", ["all", "next", "neighbours"])
def test_greedy_looks_back_only(gamma: str) -> None:
    with pytest.raises(UserError, match="greedy"):
        check_schedule("greedy", gamma_mask(gamma, 3))
    check_schedule("greedy", gamma_mask("prev", 3))
    check_schedule("alternate", gamma_mask(gamma, 3))


@given(st.integers(2, 12), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_negatives_are_wrong_labels(classes: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    y, u = torch.randint(classes, (64,), generator=g), torch.rand(64, generator=g)
    u[0], u[1] = 0.0, 1 - 2**-24  # the ends of the draw
    for wrong in (
        uniform_negatives(y, u, classes),
        hard_negatives(30 * torch.randn(64, classes, generator=g), y, u),
    ):
        assert ((wrong != y) & (wrong >= 0) & (wrong < classes)).all()
    assert torch.equal(permuted_negatives(y, u).sort().values, y.sort().values)


def test_negatives_have_the_right_distribution() -> None:
    n = 40_000
    y, u = torch.full((n,), 2), torch.rand(n, generator=torch.Generator().manual_seed(1))
    share = torch.bincount(uniform_negatives(y, u, 5), minlength=5) / n
    torch.testing.assert_close(share, torch.tensor([0.25, 0.25, 0, 0.25, 0.25]), atol=0.01, rtol=0)
    logits = torch.tensor([0.5, 1.0, 9.0, -1.0, 0.0])
    expected = torch.tensor([0.5, 1.0, -torch.inf, -1.0, 0.0]).softmax(0)
    share = torch.bincount(hard_negatives(logits.expand(n, 5), y, u), minlength=5) / n
    torch.testing.assert_close(share, expected, atol=0.01, rtol=0)


@given(st.lists(st.floats(0, 1e3), min_size=2, max_size=12), st.floats(0.1, 50))
@settings(max_examples=50, deadline=None)
def test_entropy_is_non_negative_and_homogeneous(values: list[float], c: float) -> None:
    h = torch.tensor(values, dtype=torch.float64)
    assert functional_entropy(h) >= -1e-9 * max(1.0, float(h.max()))
    torch.testing.assert_close(functional_entropy(c * h), c * functional_entropy(h), rtol=1e-9, atol=1e-9 * c * 1e3)
    assert functional_entropy(torch.full_like(h, c)).abs() < 1e-10 * c * 10


def test_entropy_chain_rule_and_residuals() -> None:
    g = torch.rand(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    report = entropy_report(g)
    torch.testing.assert_close(report["total"], report["between_layers"] + report["within_per_layer"].mean())
    g.requires_grad_(True)
    for scale_free in (False, True):
        terms = []
        for part in (g[:5], g[5:]):
            mean = part.mean()
            entropy = (part * part.log()).mean() - mean * mean.log()
            terms.append(entropy / mean if scale_free else entropy)
        (expected,) = torch.autograd.grad(terms[1] - terms[0], g)
        torch.testing.assert_close(entropy_residuals(g.detach(), 5, scale_free), expected)
        torch.testing.assert_close(entropy_objective(g.detach(), 5, scale_free), (terms[1] - terms[0]).detach())


def test_mean_goodness_is_summed_goodness_at_another_temperature() -> None:
    """With theta and tau divided by the width both give the same gradients: `mean` at tau = 1 is a softer sigmoid."""
    width, draw = 8, torch.Generator().manual_seed(0)
    h, target = torch.rand(6, width, generator=draw, dtype=torch.float64), 3
    total = residuals(h.square().sum(1) - width, target, 1.0)
    mean = residuals(h.square().mean(1) - 1.0, target, 1.0 / width)
    torch.testing.assert_close(2 * total, 2 / width * mean)


def test_smallest_gain_of_a_layer() -> None:
    """Layer 1 errs on two of four images, layers 1 and 2 on none, all three on one."""
    metric = GoodnessMetrics()
    g = torch.zeros(4, 2, 3)  # label 1 wins with the scores below, label 0 is right
    g[:2, 1, 0], g[:, 0, 1], g[0, 1, 2] = 1, 2, 5
    metric.update(g, torch.zeros(4, dtype=torch.long))
    found = metric.compute()
    assert (float(found["error_prefix1"]), float(found["error_prefix2"]), float(found["error"])) == (50, 0, 25)
    assert float(found["smallest_gain_of_a_layer"]) == -25
    assert float(found["gain_of_later_layers"]) == 25


def test_neutral_activities_the_long_way() -> None:
    net, images, _ = setup_net()
    h = torch.cat([neutral_code(N, 5, net.strength, images), images], 1)
    seen = []
    with torch.no_grad():
        for w, b in zip(net.weights, net.biases):
            h = torch.relu(normalise(h, "rms") @ w + b)
            seen.append(normalise(h, "rms"))
        torch.testing.assert_close(net.neutral_activities(images), torch.cat(seen[1:], 1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("sizes", "parameters"), [([784, 256, 256, 256], 332_544), ([3082, 1000, 1000, 1000], 5_085_000)]
)
def test_parameter_counts(sizes: list[int], parameters: int) -> None:
    assert ForwardForwardNet(sizes[0] - 10, sizes[1:]).parameter_count() == parameters
