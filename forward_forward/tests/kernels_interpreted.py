"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: see `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from forward_forward.kernels.checks import CHECKS
from forward_forward.kernels.ff_label_expand import ff_label_expand
from forward_forward.kernels.ff_linear import ff_linear_fwd
from forward_forward.kernels.ff_shared_first import ff_shared_first_fwd, ff_shared_first_wgrad
from forward_forward.kernels.ff_wgrad import ff_wgrad
from shared.kernels.harness import TOLERANCE, Check, compare, draw, is_real

SHAPE = {"N": 37, "K": 50, "M": 29, "C": 10}
every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def assert_close(check: Check, operands: tuple[Any, ...], tolerance: float, gradients: bool = True) -> None:
    errors = compare(check, operands, gradients)
    assert errors
    assert max(errors.values()) <= tolerance, {name: error for name, error in errors.items() if error > tolerance}


@every_check
@pytest.mark.parametrize("shape", [0, 1, 2], ids=["37x50x29", "70x33x130", "1x3x2"])
def test_values_and_every_gradient(check: Check, shape: int) -> None:
    assert_close(check, draw(check, check.small[shape], "cpu", torch.float32), TOLERANCE[torch.float32])


@every_check
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(check: Check, dtype: torch.dtype) -> None:
    assert_close(check, draw(check, SHAPE, "cpu", dtype), TOLERANCE[dtype])


def test_absolute_errors_of_the_specification() -> None:
    """Section 5: 1e-4 on q, 1e-5 on H and dW."""
    linear, wgrad = CHECKS[:2]
    operands = draw(linear, SHAPE, "cpu", torch.float32)
    (h, q), (h64, q64) = linear.function(*operands), linear.definition(*(x.double() for x in operands))
    assert (h - h64).abs().max() < 1e-5
    assert (q - q64).abs().max() < 1e-4
    operands = draw(wgrad, SHAPE, "cpu", torch.float32)
    dw, db = wgrad.function(*operands)
    dw64, db64 = wgrad.definition(*(x.double() for x in operands))
    assert (dw - dw64).abs().max() < 1e-5
    assert (db - db64).abs().max() < 1e-5


@every_check
def test_strides(check: Check) -> None:
    """Transposed matrices, every second entry of vectors, slices that start inside a tensor."""

    def awkward(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        if x.ndim == 2:
            return torch.cat([x[:1], x]).T.contiguous().T[1:]
        return torch.stack([x, torch.full_like(x, float("nan"))], 1)[:, 0]

    operands = tuple(awkward(x) for x in draw(check, SHAPE, "cpu", torch.float32))
    assert not operands[0].is_contiguous()
    assert_close(check, operands, TOLERANCE[torch.float32])


@every_check
@pytest.mark.parametrize("name", ["N", "M", "K"])
def test_empty(check: Check, name: str) -> None:
    operands = draw(check, {**SHAPE, name: 0} if name != "K" else {**SHAPE, "K": 0}, "cpu", torch.float32)
    if name == "K" and check.kernel == "ff_linear":  # weights are drawn with a factor 1 / sqrt(K)
        operands = (*operands[:2], torch.zeros(0, SHAPE["M"]), operands[3])
    assert_close(check, operands, TOLERANCE[torch.float32])


def test_one_label_set_is_still_scaled() -> None:
    """R = 1: the row scale and the residual both enter."""
    check = CHECKS[4]
    x, s, h, cr, labels, *rest = draw(check, SHAPE, "cpu", torch.float32)
    assert_close(check, (x, s, h[:37], cr[:37], labels[:1], *rest), TOLERANCE[torch.float32])


def test_dead_rows() -> None:
    """q = 0 below gives z = 0: whatever s is, the layer's output is relu(b), and nothing is NaN."""
    q = torch.zeros(4)
    s = 1 / ((q / 5).sqrt() + 1e-8)
    b = torch.tensor([1.0, -1.0, 0.5])
    h, q = ff_linear_fwd(torch.zeros(4, 5), s, torch.randn(5, 3), b)
    assert torch.equal(h, b.relu().expand(4, 3))
    assert torch.equal(q, torch.full((4,), 1.25))
    dw, db = ff_wgrad(torch.zeros(4, 5), torch.zeros(4, 3), s, torch.ones(4))
    assert torch.equal(dw, torch.zeros(5, 3))
    assert torch.equal(db, torch.zeros(3))


@every_check
def test_repeated_calls_are_bit_identical(check: Check) -> None:
    operands = draw(check, check.small[1], "cpu", torch.float32)
    before = [x.clone() if isinstance(x, torch.Tensor) else x for x in operands]
    first, second = check.function(*operands), check.function(*operands)
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert all(torch.equal(a, b) for a, b in zip(before, operands) if isinstance(a, torch.Tensor))


def test_rows_split_among_programs() -> None:
    """More than 512 rows: the sums over rows are made in several slabs."""
    shape = {"N": 550, "K": 5, "M": 3, "C": 4}
    for check in (CHECKS[1], CHECKS[4]):
        assert_close(check, draw(check, shape, "cpu", torch.float32), TOLERANCE[torch.float32], gradients=False)


OPERATORS = {
    "ff_linear": "ff_linear_fwd",
    "ff_wgrad": "ff_wgrad",
    "ff_label_expand": "ff_label_expand",
    "ff_shared_first": "ff_shared_first_fwd",
    "ff_shared_first.wgrad": "ff_shared_first_wgrad",
}


def test_opcheck_of_the_fused_step() -> None:
    """Its schema says what it changes, and changes nothing else; it has no gradient."""
    check = next(c for c in CHECKS if c.kernel == "ff_wgrad_step")
    operands = draw(check, {"N": 5, "K": 4, "M": 3, "C": 3}, "cpu", torch.float32)

    torch.utils.deterministic.fill_uninitialized_memory = False
    operator = torch.ops.forward_forward.ff_wgrad_step_.default
    outcome = torch.library.opcheck(operator, (*operands, "adam"), test_utils=("test_schema", "test_faketensor"))
    assert set(outcome.values()) == {"SUCCESS"}


@pytest.mark.parametrize("check", [c for c in CHECKS if c.gradients], ids=lambda check: check.name)
def test_opcheck(check: Check) -> None:
    operator = getattr(torch.ops.forward_forward, OPERATORS[check.name])
    operands = draw(check, {"N": 5, "K": 4, "M": 3, "C": 3}, "cpu", torch.float32)
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    leaves = tuple(x.requires_grad_() if is_real(x) else x for x in operands)
    outcome = torch.library.opcheck(operator.default, leaves)
    assert set(outcome.values()) == {"SUCCESS"}


def test_compile_fullgraph() -> None:
    """One graph through all operators, and its gradient, as without a compiler."""

    def step(x: torch.Tensor, w: torch.Tensor, code: torch.Tensor, b: torch.Tensor, labels: torch.Tensor) -> Any:
        s = torch.ones(x.shape[0])
        h, q = ff_shared_first_fwd(x @ w, s, code, b, 1.0, labels)
        h2, q2 = ff_linear_fwd(h, q, w, b)
        dw, db = ff_wgrad(h, h2, q2, q)
        dimg, dlabel, _ = ff_shared_first_wgrad(x, s, h, q, labels, 1.0, 3)
        h3, _ = ff_label_expand(x, s, code, b, 1.0)
        return h2.sum() + dw.sum() + db.sum() + dimg.sum() + dlabel.sum() + h3.sum()

    torch.manual_seed(0)
    args = [torch.randn(6, 4), torch.randn(4, 4) / 2, torch.randn(3, 4), torch.randn(4)]
    args = [x.requires_grad_() for x in args]
    labels = torch.randint(0, 3, (2, 6))
    plain = step(*args, labels)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(*args, labels)
    torch.testing.assert_close(compiled, plain)
    for a, b in zip(torch.autograd.grad(compiled, args), torch.autograd.grad(plain, args)):
        torch.testing.assert_close(a, b)


def test_autocast() -> None:
    """Under autocast the products are in bfloat16, q in float32, gradients in the dtype of the weights."""
    x, s, w, b = (t.requires_grad_() for t in draw(CHECKS[0], SHAPE, "cpu", torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        h, q = ff_linear_fwd(x, s, w, b)
    assert (h.dtype, q.dtype) == (torch.bfloat16, torch.float32)
    h.float().sum().backward()
    assert w.grad is not None
    assert w.grad.dtype is torch.float32
