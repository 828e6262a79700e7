"""K3 on the CPU: its definition, exact and chunked forms, and the choice; starts the interpreter's tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rpgan_landscape.kernels import allpairs_relativistic as module
from rpgan_landscape.kernels.allpairs_relativistic import allpairs_relativistic, reference
from shared.kernels.harness import relative_error
from shared.kernels.interpreted import assert_passes
from torch import Tensor

KINDS = reference.KINDS
every_kind = pytest.mark.parametrize("kind", KINDS)


def logits(n: int, m: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(k, generator=g, dtype=torch.float64) * scale for k in (n, m))
    return a.clamp(-60, 60), b.clamp(-60, 60)


def exact(a: Tensor, b: Tensor, kind: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, y = (t.detach().double().requires_grad_() for t in (a, b))
    value = reference.allpairs_relativistic(x, y, kind)
    da, db = torch.autograd.grad(value, [x, y])
    return value.detach(), da, db


def worst(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    assert [x.shape for x in got] == [x.shape for x in expected]
    return max(relative_error(x, y) for x, y in zip(got, expected))


def sums(a: Tensor, b: Tensor, kind: Any) -> tuple[Tensor, ...]:
    """Value and gradients by the exact and chunked forms."""
    if kind != "ls":
        return reference.allpairs_sums(a, b, kind)
    x, y = (t.detach().requires_grad_() for t in (a, b))
    value = reference.least_squares(x, y)
    return value.detach(), *torch.autograd.grad(value, [x, y])


@pytest.fixture
def no_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public function takes the exact and chunked forms at every size."""
    monkeypatch.setattr(module, "WORTHWHILE", dict.fromkeys(KINDS, 0))


def test_triton_kernel_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("allpairs_interpreted.py"))


def test_the_torch_forms_need_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = None\n"
        "import torch\n"
        "from rpgan_landscape.kernels.allpairs_relativistic import KINDS, allpairs_relativistic\n"
        "a = torch.zeros(700, requires_grad=True)\n"
        "print([round(allpairs_relativistic(a, a, kind).item(), 4) for kind in KINDS])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[0.6931, 1.0, 1.0]", done.stderr


@every_kind
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (64, 1), (1, 65), (300, 257)], ids=str)
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_values_and_gradients_in_float64(
    kind: Any, size: tuple[int, int], scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "CHUNK", 1000)  # three rows of 300 x 257, the last chunk cut off
    a, b = logits(*size, scale)
    b[0] = a[0] - 0.25  # at least one pair that costs something
    assert worst(sums(a, b, kind), exact(a, b, kind)) <= 1e-12


@every_kind
def test_float32_at_4096(kind: Any) -> None:
    """Relative error 1e-5 (section 9 of the specification), logits up to +-60."""
    for scale in (1.0, 30.0):
        a, b = (x.float() for x in logits(4096, 4096, scale))
        assert worst(sums(a, b, kind), sums(a.double(), b.double(), kind)) <= 1e-5


@pytest.mark.parametrize("gap", [-120.0, -20.0, 0.0, 30.0, 80.0])
def test_extreme_logits(gap: float) -> None:
    """Finite, and small values keep their digits: softplus(-80) is 2e-35."""
    a, b = torch.linspace(0, 1, 70) + gap / 2, torch.full((90,), -gap / 2)
    assert worst(reference.allpairs_sums(a, b, "logistic"), exact(a, b, "logistic")) <= 1e-5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-8, 8), min_size=1, max_size=9),
    st.lists(st.integers(-8, 8), min_size=1, max_size=9),
    st.sampled_from([0.25, 0.1, 1 / 3]),
)
def test_hinge_with_ties_and_pairs_on_the_kink(left: list[int], right: list[int], step: float) -> None:
    """On a grid many pairs are exactly one apart; for steps that round, on either side of it by the last digit."""
    a, b = (torch.tensor(x, dtype=torch.float64) * step for x in (left, right))
    value, da, db = reference.hinge_sums(a, b)
    torch.testing.assert_close(value, reference.allpairs_relativistic(a, b, "hinge"), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(-da.sum(), db.sum(), rtol=1e-12, atol=1e-14)  # both sides count the same pairs
    gap = a[:, None] - b  # a pair on the kink may count or not: the slope lies between
    lowest, highest = (gap < 1 - 1e-9).double(), (gap < 1 + 1e-9).double()
    pairs = len(a) * len(b)
    assert (-da * pairs >= lowest.sum(1) - 1e-9).all()
    assert (-da * pairs <= highest.sum(1) + 1e-9).all()
    assert (db * pairs >= lowest.sum(0) - 1e-9).all()
    assert (db * pairs <= highest.sum(0) + 1e-9).all()


@every_kind
def test_gradients_of_every_order(kind: Any, no_definition: None) -> None:
    """First and second derivatives by finite differences, the third against the definition, in float64."""
    a, b = (x.requires_grad_() for x in logits(5, 4, 1.5))
    assert torch.autograd.gradcheck(lambda x, y: allpairs_relativistic(x, y, kind), (a, b))
    assert torch.autograd.gradgradcheck(lambda x, y: allpairs_relativistic(x, y, kind), (a, b))

    def third(function: Any) -> tuple[Tensor | None, ...]:
        grads = torch.autograd.grad(function(a, b, kind).square(), [a, b], create_graph=True)
        again = torch.autograd.grad(sum((g**3).sum() for g in grads), [a, b], create_graph=True)
        return torch.autograd.grad(sum((g**2).sum() for g in again), [a, b])

    for ours, definition in zip(third(allpairs_relativistic), third(reference.allpairs_relativistic)):
        torch.testing.assert_close(ours, definition, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", ["logistic", "hinge"])
def test_opcheck(kind: str) -> None:
    a, b = (x.float().requires_grad_() for x in logits(5, 7, 1.0))
    outcome = torch.library.opcheck(torch.ops.rpgan_landscape.allpairs_sums.default, (a, b, kind))
    assert set(outcome.values()) == {"SUCCESS"}


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(kind: Any, dtype: torch.dtype, no_definition: None) -> None:
    """Computed in float32 (float64 in float64) from the numbers given; gradients come back in their own dtype."""
    a, b = (x.to(dtype).requires_grad_() for x in logits(40, 30, 6.0))
    value = allpairs_relativistic(a, b, kind)
    assert value.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    grads = torch.autograd.grad(value, [a, b])
    assert {g.dtype for g in grads} == {dtype}
    expected = exact(a.detach(), b.detach(), kind)
    assert relative_error(value, expected[0]) <= 1e-6
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3}[dtype]
    assert worst(grads, expected[1:]) <= tolerance  # half of the last digit of a 16-bit gradient


def test_autocast_changes_nothing(no_definition: None) -> None:
    a, b = (x.float() for x in logits(40, 30, 6.0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = [allpairs_relativistic(a, b, kind) for kind in KINDS]
    assert all(torch.equal(x, allpairs_relativistic(a, b, kind)) for x, kind in zip(inside, KINDS))


@every_kind
def test_not_contiguous(kind: Any) -> None:
    a, b = logits(40, 30, 2.0)
    expected = exact(a, b, kind)
    awkward = torch.stack([a, a + 100], 1)[:, 0], b.repeat_interleave(2)[::2]
    assert not awkward[0].is_contiguous()
    assert worst(sums(*awkward, kind), expected) <= 1e-12


def test_only_few_pairs_take_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    definition = reference.allpairs_relativistic

    def counted(a: Tensor, b: Tensor, kind: Any) -> Tensor:
        calls.append((len(a), len(b)))
        return definition(a, b, kind)

    monkeypatch.setattr(reference, "allpairs_relativistic", counted)
    for kind in KINDS:
        calls.clear()
        side = int(module.WORTHWHILE[kind] ** 0.5)
        for n in (side - 1, side + 2):
            a, b = (x.float() for x in logits(n, n, 1.0))
            torch.testing.assert_close(allpairs_relativistic(a, b, kind), definition(a, b, kind))
        assert calls == [(side - 1, side - 1)]


@every_kind
@pytest.mark.parametrize("size", [(0, 3), (3, 0)])
def test_no_pairs(kind: Any, size: tuple[int, int]) -> None:
    assert allpairs_relativistic(torch.ones(size[0]), torch.ones(size[1]), kind).isnan()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"shapes \(3, 1\) and \(4,\): flatten"):
        allpairs_relativistic(torch.ones(3, 1), torch.ones(4), "ls")
    with pytest.raises(ValueError, match="unknown kind 'w': use logistic, hinge, ls"):
        allpairs_relativistic(torch.ones(3), torch.ones(4), "w")  # type: ignore[arg-type]


def test_the_chunks_need_no_matrix() -> None:
    """No tensor of the logistic loss, forward and backward, is larger than a chunk or a vector."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else (out,):
                if isinstance(x, Tensor):
                    self.entries = max(self.entries, x.untyped_storage().nbytes() // x.element_size())
            return out

    a, b = (x.float().requires_grad_() for x in logits(700, 600, 1.0))
    largest = {}
    for name, function in (("chunks", reference.logistic_sums), ("definition", reference.allpairs_relativistic)):
        with Largest() as seen:
            if name == "chunks":
                function(a.detach(), b.detach())  # type: ignore[call-arg]
            else:
                torch.autograd.grad(function(a, b, "logistic"), [a, b])  # type: ignore[call-arg]
        largest[name] = seen.entries
    assert largest["chunks"] <= 100_000
    assert largest["definition"] >= 700 * 600
