"""The operators' definitions and the choice among their implementations; starts the interpreter's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forward_forward.goodness import normalise
from forward_forward.kernels.checks import CHECKS
from forward_forward.kernels.ff_wgrad_step import ff_wgrad_step_, numbers_of
from forward_forward.labels import overlay
from forward_forward.optimiser import SmoothedSGD
from shared.kernels.harness import Check, draw, is_real, relative_error
from shared.kernels.interpreted import assert_passes, run_python


def test_triton_kernels_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("kernels_interpreted.py"))


def test_an_unknown_backend_is_refused() -> None:
    done = run_python("-c", "import shared.kernels.backend", KERNEL_BACKEND="cuda")
    assert "KERNEL_BACKEND is 'cuda': use one of auto, reference, triton, interpret" in done.stderr
    done = run_python("-c", "import triton, shared.kernels.backend", KERNEL_BACKEND="interpret")
    assert "has to be set before triton is imported" in done.stderr


def test_the_reference_needs_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = None\n"
        "from forward_forward.kernels.checks import CHECKS\n"
        "from shared.kernels.harness import compare, draw\n"
        "import torch\n"
        "for c in CHECKS: assert max(compare(c, draw(c, c.small[0], 'cpu', torch.float32)).values()) < 1e-4\n"
        "bad = {'lightning', 'pytorch_lightning', 'wandb', 'rich'} & set(sys.modules)\n"
        "print('done', bad)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def literal_step(x: torch.Tensor, labels: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The first layer as section 2.1 writes it: overlay the code, normalise, multiply."""
    return torch.relu(normalise(overlay(x, labels, 10, 1.25), "rms") @ w + b)


def test_first_layer_operators_are_the_first_layer() -> None:
    """K3 and K4 against the network's definition and autograd, in float64."""
    torch.manual_seed(0)
    n, d, m = 7, 11, 5
    x = torch.rand(n, d, dtype=torch.float64)
    w, b = torch.randn(10 + d, m, dtype=torch.float64, requires_grad=True), torch.randn(m, dtype=torch.float64)
    b.requires_grad_()
    labels = torch.randint(0, 10, (2, n))
    s = 1 / (((x.square().sum(1) + 1.25**2) / (10 + d)).sqrt() + 1e-8)
    expand, forward, wgrad = (check.function for check in CHECKS[2:5])
    with torch.no_grad():
        h, q = forward(x @ w[10:], s, w[:10], b, 1.25, labels)
        every, _ = expand(x @ w[10:], s, w[:10], b, 1.25)
    literal = torch.cat([literal_step(x, y, w, b) for y in labels])
    torch.testing.assert_close(h, literal)
    torch.testing.assert_close(q, literal.square().sum(1))
    by_label = torch.stack([literal_step(x, torch.full((n,), c), w, b) for c in range(10)], 1)
    torch.testing.assert_close(every, by_label.flatten(0, 1))
    cr = torch.randn(2 * n, dtype=torch.float64)
    dw_img, dw_label, db = wgrad(x, s, h, cr, labels, 1.25, 10)
    # d/dh of sum cr h^2 / 2 is cr h
    dw, db_literal = torch.autograd.grad((cr[:, None] * literal.square() / 2).sum(), [w, b])
    torch.testing.assert_close(torch.cat([dw_label, dw_img]), dw)
    torch.testing.assert_close(db, db_literal)


@pytest.mark.parametrize("check", [c for c in CHECKS if c.gradients], ids=lambda check: check.name)
def test_the_reference_is_differentiable(check: Check) -> None:
    """`gradcheck` in float64: what the kernels' gradients are compared with is right itself."""
    operands = draw(check, {"N": 4, "K": 3, "M": 3, "C": 3}, "cpu", torch.float64)
    exact = tuple(x.double().requires_grad_() if is_real(x) else x for x in operands)
    assert torch.autograd.gradcheck(check.definition, exact)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_reference_in_float32(check: Check) -> None:
    operands = draw(check, check.small[1], "cpu", torch.float32)
    got = check.definition(*operands)
    expected = check.definition(*(x.double() if is_real(x) else x for x in operands))
    assert all(relative_error(a, b) < 2e-6 for a, b in zip(got, expected))


@pytest.mark.parametrize("rule", ["adam", "smoothed"])
def test_the_fused_update_is_the_optimisers(rule: str) -> None:
    """Three steps of K2b's definition against torch.optim.Adam and SmoothedSGD, in float64."""
    torch.manual_seed(0)
    n, k, m = 7, 5, 4
    start = torch.randn(k, m, dtype=torch.float64), torch.randn(m, dtype=torch.float64)
    theirs = [torch.nn.Parameter(x.clone()) for x in start]
    ours = [x.clone() for x in start]
    optimiser: torch.optim.Optimizer = (
        torch.optim.Adam(theirs, 0.01, weight_decay=0.1)
        if rule == "adam"
        else SmoothedSGD(theirs, 0.01, weight_decay=0.1)
    )
    state = [torch.zeros_like(x) for x in (ours[0], ours[0], ours[1], ours[1])]
    for step in range(1, 4):
        below, h = torch.randn(n, k, dtype=torch.float64), torch.randn(n, m, dtype=torch.float64).relu()
        w, cr = torch.randn(2, n, dtype=torch.float64)
        theirs[0].grad, theirs[1].grad = below.T @ (w[:, None] * h), cr @ h
        optimiser.step()
        numbers = numbers_of(optimiser.param_groups[0], torch.tensor(float(step)), rule, torch.device("cpu"))  # type: ignore[arg-type]
        ff_wgrad_step_(below, h, w, cr, ours[0], ours[1], state[0], state[1], state[2], state[3], numbers, rule)  # type: ignore[arg-type]
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b.detach(), rtol=1e-6, atol=1e-6)  # the numbers are float32


def test_a_dead_row_has_a_gradient() -> None:
    """The gradient of q at a row of zeros is 0, not NaN."""
    linear = CHECKS[0].function
    x, w = torch.randn(3, 4), torch.randn(4, 5, requires_grad=True)
    _, q = linear(x, torch.ones(3), w, torch.full((5,), -1e3))
    assert torch.equal(q, torch.zeros(3))
    q.sum().backward()
    assert torch.equal(w.grad, torch.zeros(4, 5))  # type: ignore[arg-type]
