"""K3's Triton kernel in Triton's interpreter, on the CPU. `test_allpairs.py` runs this file in a process of its own.

By hand: see `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from rpgan_landscape.kernels.allpairs_relativistic import allpairs_relativistic, allpairs_sums, reference, triton
from rpgan_landscape.kernels.allpairs_relativistic.check import CHECK
from rpgan_landscape.kernels.allpairs_relativistic.triton import launch_allpairs
from shared.kernels.harness import TOLERANCE, compare, draw, relative_error

# N, M: below one tile of 128 x 32; several, the last cut off; one point; more than the 64 tiles of one program.
SIZES = [(37, 129), (300, 70), (1, 1), (3, 2100)]


@pytest.fixture
def long_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program takes as many tiles as it may, as with large N; otherwise small sizes have one tile a program."""
    monkeypatch.setattr(triton, "PROGRAMS", 1)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that the kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def logits(n: int, m: int, scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=g).mul(scale).clamp(-60, 60), torch.randn(m, generator=g).mul(scale).clamp(-60, 60)


def exact(a: torch.Tensor, b: torch.Tensor, kind: Any) -> tuple[torch.Tensor, ...]:
    """The definition and its gradients in float64."""
    x, y = (t.detach().double().requires_grad_() for t in (a, b))
    value = reference.allpairs_relativistic(x, y, kind)
    return (value.detach(), *torch.autograd.grad(value, [x, y]))


def assert_close(got: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    assert [x.shape for x in got] == [x.shape for x in expected]
    assert max(relative_error(x, y) for x, y in zip(got, expected)) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_value_and_gradients(kind: str, size: tuple[int, int], scale: float) -> None:
    a, b = logits(*size, scale)
    b[0] = a[0] - 0.25  # at least one pair that costs something
    assert_close(launch_allpairs(a, b, kind), exact(a, b, kind))


@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_many_tiles_in_a_program(kind: str, size: tuple[int, int], long_programs: None) -> None:
    a, b = logits(*size, 2.0)
    b[0] = a[0] - 0.25
    assert_close(launch_allpairs(a, b, kind), exact(a, b, kind))


def test_against_the_exact_shortcuts() -> None:
    a, b = logits(200, 90, 2.0)
    x, y = (t.detach().double().requires_grad_() for t in (a, b))
    moments = reference.least_squares(x, y)
    assert_close(launch_allpairs(a, b, "ls"), (moments, *torch.autograd.grad(moments, [x, y])))
    assert_close(launch_allpairs(a, b, "hinge"), reference.hinge_sums(a.double(), b.double()))


@pytest.mark.parametrize("gap", [-120.0, -100.0, -20.0, 0.0, 10.0, 13.0, 20.0, 60.0, 80.0])
def test_extreme_logits(gap: float, long_programs: None) -> None:
    """All pairs `gap` apart, around +-60: finite, and small values keep their digits (softplus(-80) is 2e-35)."""
    a, b = torch.full((70,), gap / 2), torch.full((2100,), -gap / 2)
    a += torch.linspace(0, 1, 70)
    assert_close(launch_allpairs(a, b, "logistic"), exact(a, b, "logistic"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", range(3))
def test_sixteen_bits(dtype: torch.dtype, shape: int) -> None:
    operands = draw(CHECK, CHECK.small[shape], "cpu", dtype)
    errors = compare(CHECK, operands)
    assert max(errors.values()) <= TOLERANCE[dtype], errors
    assert allpairs_relativistic(*(x.flatten() for x in operands), "logistic").dtype is torch.float32


@pytest.mark.parametrize("shape", range(3))
def test_the_check_of_the_gpu(shape: int) -> None:
    errors = compare(CHECK, draw(CHECK, CHECK.small[shape], "cpu", torch.float32))
    assert set(errors) == {"out0", "grad0", "grad1"}
    assert max(errors.values()) <= TOLERANCE[torch.float32], errors


def test_strides() -> None:
    """Every second entry of a vector, and one that starts inside another."""
    a, b = logits(80, 50, 3.0)
    nan = torch.full_like(a, float("nan"))
    awkward = torch.stack([a, nan], 1)[:, 0], torch.cat([nan[:3], b])[3:]
    assert not awkward[0].is_contiguous()
    assert_close(launch_allpairs(*awkward, "logistic"), exact(a, b, "logistic"))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("kind", reference.KINDS)
def test_empty(size: tuple[int, int], kind: Any) -> None:
    """A mean over no pair is NaN, as in the definition; it pulls at nothing."""
    a, b = (torch.randn(n, requires_grad=True) for n in size)
    value = allpairs_relativistic(a, b, kind)
    assert value.isnan()
    for gradient, x in zip(torch.autograd.grad(value, [a, b]), (a, b)):
        assert torch.equal(gradient, torch.zeros_like(x))


def test_the_public_function_calls_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kernel = triton.launch_allpairs
    monkeypatch.setattr(triton, "launch_allpairs", lambda *args: calls.append(args) or kernel(*args))
    a, b = logits(40, 30, 1.0)
    assert_close((allpairs_relativistic(a, b, "logistic"),), exact(a, b, "logistic")[:1])
    assert len(calls) == 1
    allpairs_relativistic(a.double(), b.double(), "logistic")
    for kind in ("hinge", "ls"):  # exact shortcuts, or the definition
        allpairs_relativistic(a, b, kind)
    assert len(calls) == 1


def test_repeated_calls_are_bit_identical() -> None:
    a, b = logits(300, 200, 3.0)
    before = a.clone(), b.clone()
    first, second = launch_allpairs(a, b, "logistic"), launch_allpairs(a, b, "logistic")
    assert all(torch.equal(x, y) for x, y in zip(first, second))
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


def test_second_derivatives() -> None:
    """The gradient's own gradient, in float32 through the kernel's backward, against the definition in float64."""
    a, b = (x.requires_grad_() for x in logits(20, 33, 2.0))
    x, y = (t.detach().double().requires_grad_() for t in (a, b))

    def bent(value: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        da, db = torch.autograd.grad(value.square(), leaves, create_graph=True)
        return torch.autograd.grad(da.square().sum() + (db**3).sum(), leaves)

    ours = bent(allpairs_relativistic(a, b, "logistic"), [a, b])
    assert_close(ours, bent(reference.allpairs_relativistic(x, y, "logistic"), [x, y]))


def test_opcheck() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    a, b = (x.requires_grad_() for x in logits(5, 7, 1.0))
    outcome = torch.library.opcheck(torch.ops.rpgan_landscape.allpairs_sums.default, (a, b, "logistic"))
    assert set(outcome.values()) == {"SUCCESS"}


def test_compile_fullgraph() -> None:
    a, b = (x.requires_grad_() for x in logits(6, 9, 1.0))

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return allpairs_relativistic(a, b, "logistic") + allpairs_sums(b, a, "hinge")[0]

    plain, compiled = loss(a, b), torch.compile(loss, fullgraph=True, backend="aot_eager")(a, b)
    torch.testing.assert_close(compiled, plain)
    for x, y in zip(torch.autograd.grad(compiled, [a, b]), torch.autograd.grad(plain, [a, b])):
        torch.testing.assert_close(x, y)
