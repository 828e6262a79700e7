"""The operators as they run on a CPU, against golden values; the collection of kernels; the interpreter's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logsobolev_bounds.kernels import inputs
from logsobolev_bounds.kernels.checks import CHECKS
from logsobolev_bounds.kernels.ghost_norms import ghost_norms, gram_is_cheaper
from logsobolev_bounds.kernels.ghost_norms import reference as ghost_reference
from logsobolev_bounds.kernels.quadratic_rows import gram_of_first_layer, quadratic_rows
from logsobolev_bounds.kernels.tilted_moments import reference as tilted_reference
from logsobolev_bounds.kernels.tilted_moments import tilted_moments
from shared.kernels.build import kernel_modules, listed
from shared.kernels.harness import TOLERANCE, Check, compare, draw
from shared.kernels.interpreted import assert_passes, run_python
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

torch.set_num_threads(1)
GOLDEN = np.load(Path(__file__).parent / "golden" / "tilted.npz", allow_pickle=False)


def test_triton_kernels_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("kernels_interpreted.py"))


def test_the_checks_need_nothing_but_pytorch() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = None\n"
        "from logsobolev_bounds.kernels.checks import CHECKS\n"
        "from shared.kernels.harness import compare, draw\n"
        "import torch\n"
        "for c in CHECKS: assert max(compare(c, draw(c, c.small[0], 'cpu', torch.float32)).values()) < 1e-4, c.name\n"
        "bad = {'lightning', 'pytorch_lightning', 'wandb', 'rich'} & set(sys.modules)\n"
        "print('done', bad)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def test_every_folder_is_checked_and_compiled() -> None:
    folders = {module.split(".")[-2] for module in kernel_modules("logsobolev_bounds")}
    assert folders == {check.kernel for check in CHECKS} == {"ghost_norms", "quadratic_rows", "tilted_moments"}
    assert all(listed(module) for module in kernel_modules("logsobolev_bounds"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_forms_of_the_cpu_against_the_definition(check: Check, dtype: torch.dtype) -> None:
    for shape in check.small:
        errors = compare(check, draw(check, shape, "cpu", dtype))
        assert max(errors.values()) <= (1e-13 if dtype is torch.float64 else TOLERANCE[torch.float32]), errors


def golden(key: str) -> Tensor:
    return torch.from_numpy(np.array(GOLDEN[key]))


@pytest.mark.parametrize("function", [tilted_moments, tilted_reference.tilted_moments])
def test_golden_moments(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """In float64; the rest of the file's chain (psi and the integral) from them."""
    loss, g, alphas = golden("loss"), golden("grad_sq"), golden("alphas")
    log_m, tilted = function(loss, g, float(alphas[1]), len(alphas))
    torch.testing.assert_close(log_m, golden("log_M"), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(tilted, golden("G"), rtol=1e-10, atol=0)
    psi = log_m + alphas * loss.mean(1, keepdim=True)
    torch.testing.assert_close(psi, golden("psi"), rtol=1e-10, atol=1e-12)
    areas = torch.cumulative_trapezoid(tilted, alphas)
    torch.testing.assert_close(areas, golden("integral_trapz")[:, 1:], rtol=1e-10, atol=0)


def test_golden_moments_in_float32() -> None:
    loss, g, alphas = golden("loss"), golden("grad_sq"), golden("alphas")
    log_m, tilted = tilted_moments(loss.float(), g.float(), float(alphas[1]), len(alphas))
    assert log_m.dtype is tilted.dtype is torch.float32
    allowed = 1e-4 + 1e-6 * alphas * loss.amax(1, keepdim=True)
    assert ((log_m - golden("log_M")).abs() <= allowed).all()
    torch.testing.assert_close(tilted.double(), golden("G"), rtol=1e-4, atol=0)


@pytest.mark.parametrize("T", [1, 2, 16, 17, 65, 129, 400])
def test_any_number_of_alphas(T: int) -> None:
    generator = torch.Generator().manual_seed(T)
    loss, g = (torch.rand(2, 41, generator=generator, dtype=torch.float64) * 9 for _ in range(2))
    for ours, exact in zip(tilted_moments(loss, g, 0.03, T), tilted_reference.tilted_moments(loss, g, 0.03, T)):
        assert ours.shape == (2, T)
        torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-13)


def test_examples_beyond_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    loss, g = (torch.rand(5, 103, generator=generator, dtype=torch.float64) * 9 for _ in range(2))
    exact = tilted_reference.tilted_moments(loss, g, 0.1, 17)
    for chunk in (1, 25, 210, 10_000):
        monkeypatch.setattr(tilted_reference, "CHUNK", chunk)
        for a, b in zip(tilted_moments(loss, g, 0.1, 17), exact):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


class Largest(TorchDispatchMode):
    """Entries of the largest result that is not a view."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        old, new = ([x for x in tree_leaves(v) if isinstance(x, Tensor)] for v in ((args, kwargs), out))
        held = {x.untyped_storage().data_ptr() for x in old}
        self.entries = max([self.entries, *(x.numel() for x in new if x.untyped_storage().data_ptr() not in held)])
        return out


def test_working_memory() -> None:
    """No [K, N, T], no [N, T, T] and no gradients of all examples at once."""
    loss = torch.rand(3, 40_000)
    with Largest() as largest:
        tilted_moments(loss, loss, 1 / 64, 65)
    assert largest.entries <= 2 * 9 * tilted_reference.CHUNK < loss.numel() * 65 / 50
    for shape in ((600, 60, 400, 300), (600, 150, 90, 80)):
        n, t, c, o = shape
        a, delta = torch.rand(n, t, c), torch.rand(n, t, o)
        with Largest() as largest:
            ghost_norms(a, delta)
        assert largest.entries <= ghost_reference.BUDGET
        assert n * c * o > ghost_reference.BUDGET


@pytest.mark.parametrize("shape", [(4, 7, 5, 6), (4, 3, 50, 40), (3, 1, 5, 2), (2, 40, 1, 1)])
def test_both_forms_of_ghost_norms(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    n, t, c, o = shape
    generator = torch.Generator().manual_seed(0)
    a, delta = (torch.randn(n, t, size, generator=generator, dtype=torch.float64) for size in (c, o))
    exact = ghost_reference.ghost_norms(a, delta)
    forms = [ghost_norms, ghost_reference.by_gram, ghost_reference.direct]
    for budget in (2**22, 1):
        monkeypatch.setattr(ghost_reference, "BUDGET", budget)
        for form in forms + [ghost_reference.single] * (t == 1):
            torch.testing.assert_close(form(a, delta), exact, rtol=1e-12, atol=1e-13)


def test_the_form_is_chosen_by_cost() -> None:
    assert gram_is_cheaper(16, 576, 64)
    assert not gram_is_cheaper(1024, 27, 16)
    for T, c, o in ((5, 9, 12), (6, 9, 12), (4, 9, 9), (5, 9, 9), (2, 4, 4)):
        assert gram_is_cheaper(T, c, o) == (2 * T * T * (c + o) < 2 * T * c * o)


def test_quadratic_rows_are_not_negative() -> None:
    """A form of rank 1 at right angles to the row, in float32."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(1, 50, 1, generator=generator)
    delta = torch.randn(1, 2000, 50, generator=generator)
    delta -= (delta @ w) @ w.mT / (w.mT @ w)
    A = w @ w.mT
    assert ((delta @ A) * delta).sum(2).min() < 0
    assert quadratic_rows(delta, A).min() >= 0


def test_gram_of_the_first_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    W, root = (torch.randn(3, n, 7, generator=generator, dtype=torch.float64) for n in (4, 7))
    Sigma = root[0] @ root[0].T
    for given in (None, Sigma):
        gram = gram_of_first_layer(W, given)
        for k in range(3):
            torch.testing.assert_close(gram[k], W[k] @ (torch.eye(7).double() if given is None else given) @ W[k].T)
    delta = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    gradient = delta @ W
    expected = torch.einsum("kni,ij,knj->kn", gradient, Sigma, gradient)
    torch.testing.assert_close(quadratic_rows(delta, gram_of_first_layer(W, Sigma)), expected)


def test_products_are_in_full_precision_and_the_switch_comes_back() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with inputs.full_products():
            assert torch.get_float32_matmul_precision() == "highest"
        with pytest.raises(ZeroDivisionError), inputs.full_products():
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


ONES = torch.ones(2, 3)
CUBE = torch.ones(2, 3, 3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: tilted_moments(torch.ones(2, 0), torch.ones(2, 0), 0.1, 17), "nothing to evaluate"),
        (lambda: tilted_moments(torch.ones(0, 2), torch.ones(0, 2), 0.1, 17), "nothing to evaluate"),
        (lambda: tilted_moments(ONES, torch.ones(2, 4), 0.1, 17), r"loss has shape \(2, 3\) and g \(2, 4\)"),
        (lambda: tilted_moments(ONES[0], ONES[0], 0.1, 17), r"\[draws, examples\]"),
        (lambda: tilted_moments(ONES, ONES.double(), 0.1, 17), "g is torch.float64"),
        (lambda: tilted_moments(ONES.long(), ONES.long(), 0.1, 17), "real numbers"),
        (lambda: tilted_moments(ONES, ONES, 0.0, 17), "step is 0.0"),
        (lambda: tilted_moments(ONES, ONES, float("inf"), 17), "step is inf"),
        (lambda: tilted_moments(ONES, ONES, float("nan"), 17), "step is nan"),
        (lambda: tilted_moments(ONES, ONES, 0.1, 0), "T is 0"),
        (lambda: tilted_moments(ONES, ONES.clone().requires_grad_(), 0.1, 17), "no gradient .* detach g"),
        (lambda: quadratic_rows(torch.ones(2, 0, 3), CUBE), "nothing to evaluate"),
        (lambda: quadratic_rows(ONES, CUBE), r"delta has shape \(2, 3\)"),
        (lambda: quadratic_rows(CUBE, torch.ones(1, 3, 3)), r"A \(1, 3, 3\)"),
        (lambda: quadratic_rows(CUBE.clone().requires_grad_(), CUBE), "detach delta"),
        (lambda: gram_of_first_layer(torch.ones(0, 2, 3)), "nothing to evaluate"),
        (lambda: gram_of_first_layer(CUBE, torch.ones(2, 2)), r"Sigma \(2, 2\)"),
        (lambda: ghost_norms(torch.ones(0, 2, 3), torch.ones(0, 2, 3)), "nothing to evaluate"),
        (lambda: ghost_norms(ONES, ONES), r"a has shape \(2, 3\)"),
        (lambda: ghost_norms(CUBE, torch.ones(2, 2, 3)), r"delta \(2, 2, 3\)"),
        (lambda: ghost_norms(CUBE, CUBE.clone().requires_grad_()), "detach delta"),
    ],
)
def test_bad_operands_are_refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_operands_that_could_have_a_gradient_are_taken_under_no_grad() -> None:
    with torch.no_grad():
        assert quadratic_rows(CUBE.clone().requires_grad_(), CUBE).tolist() == [[9.0] * 3] * 2
