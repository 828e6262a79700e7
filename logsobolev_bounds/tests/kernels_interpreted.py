"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: see `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from logsobolev_bounds.kernels.checks import CHECKS
from logsobolev_bounds.kernels.ghost_norms import ghost_norms
from logsobolev_bounds.kernels.ghost_norms import reference as ghost_reference
from logsobolev_bounds.kernels.quadratic_rows import quadratic_rows
from logsobolev_bounds.kernels.quadratic_rows import reference as rows_reference
from logsobolev_bounds.kernels.tilted_moments import reference as tilted_reference
from logsobolev_bounds.kernels.tilted_moments import tilted_moments
from logsobolev_bounds.kernels.tilted_moments import triton as tilted_triton
from shared.kernels.harness import TOLERANCE, Check, compare
from shared.kernels.harness import draw as operands

GOLDEN = np.load(Path(__file__).parent / "golden" / "tilted.npz", allow_pickle=False)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_against_the_definition(check: Check, dtype: torch.dtype) -> None:
    """Operands are the same numbers on both sides, sums are in float32: 16 bits are as exact as 32."""
    for shape in check.small:
        errors = compare(check, operands(check, shape, "cpu", dtype))
        assert max(errors.values()) <= TOLERANCE[torch.float32], errors


def golden(key: str) -> torch.Tensor:
    return torch.from_numpy(np.array(GOLDEN[key]))


def losses(K: int, N: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(N)
    return 8 * torch.rand(K, N, generator=generator), 3 * torch.rand(K, N, generator=generator)


def close_to_the_definition(loss: torch.Tensor, g: torch.Tensor, step: float, T: int) -> None:
    """Section 7: 1e-4 for G, 1e-4 and 1e-6 of alpha's largest loss for log M."""
    log_m, tilted = tilted_moments(loss, g, step, T)
    exact = tilted_reference.tilted_moments(loss.double(), g.double(), step, T)
    assert log_m.isfinite().all()
    torch.testing.assert_close(tilted.double(), exact[1], rtol=1e-4, atol=0)
    allowed = 1e-5 + 1e-6 * step * torch.arange(T) * loss.amax(1, keepdim=True)
    assert ((log_m - exact[0]).abs() <= allowed).all()


def test_golden_moments(launches: list[str]) -> None:
    loss, alphas = golden("loss"), golden("alphas")
    log_m, tilted = tilted_moments(loss.float(), golden("grad_sq").float(), float(alphas[1]), len(alphas))
    assert launches == ["sums_kernel", "combine_kernel"]
    assert ((log_m - golden("log_M")).abs() <= 1e-4 + 1e-6 * alphas * loss.amax(1, keepdim=True)).all()
    torch.testing.assert_close(tilted.double(), golden("G"), rtol=1e-4, atol=0)


@pytest.mark.parametrize("T", [1, 2, 17, 18, 33, 34, 65, 66, 129])
def test_any_number_of_alphas(T: int) -> None:
    close_to_the_definition(*losses(2, 131), 1 / 64, T)


@pytest.mark.parametrize("N", [1, 127, 128, 129, 3 * 128 * tilted_triton.LEAST + 5])
@pytest.mark.parametrize("K", [1, 3])
def test_any_number_of_examples(N: int, K: int) -> None:
    """Blocks that are not full; several spans of a row."""
    close_to_the_definition(*losses(K, N), 1 / 16, 17)


def test_a_constant_in_the_losses_changes_no_mean() -> None:
    """Steps of 1/64 are exact in float32 after a shift by 300."""
    loss, g = losses(2, 200)
    loss = (loss * 64).round() / 64
    log_m, tilted = tilted_moments(loss, g, 1 / 16, 17)
    shifted_log_m, shifted = tilted_moments(loss + 300, g, 1 / 16, 17)
    assert torch.equal(shifted, tilted)
    torch.testing.assert_close(shifted_log_m, log_m - 300 * torch.arange(17) / 16, rtol=1e-6, atol=1e-4)


def test_losses_up_to_ten_thousand() -> None:
    """Spans with far-off least losses too: one holds nothing that counts."""
    loss, g = losses(2, 3000)
    loss *= 1250
    loss[0, :1500] += 2000
    for T in (17, 129):
        close_to_the_definition(loss, g, 1 / (T - 1), T)
    close_to_the_definition(torch.full((1, 5), 1e4), g[:1, :5], 1.0, 17)


def test_moments_of_strided_operands() -> None:
    loss, g = (torch.full((2 * 70, 6), float("nan")) for _ in range(2))
    values = losses(3, 70)
    for x, value in zip((loss, g), values):
        x[::2, ::2] = value.T
    for a, b in zip(tilted_moments(loss[::2, ::2].T, g[::2, ::2].T, 0.1, 17), tilted_moments(*values, 0.1, 17)):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("K", "N", "h"), [(3, 1, 40), (1, 65, 16), (2, 3, 1), (1, 2, 130)])
def test_rows_of_any_shape(K: int, N: int, h: int, launches: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    delta, A = torch.randn(K, N, h, generator=generator), torch.randn(K, h, h, generator=generator)
    A = A @ A.mT
    got, exact = quadratic_rows(delta, A), rows_reference.quadratic_rows(delta.double(), A.double())
    assert launches == ["rows_kernel"]
    torch.testing.assert_close(got.double(), exact, rtol=1e-4, atol=1e-6)


def test_rows_of_strided_operands_and_of_a_form_that_all_share() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, A = torch.randn(20, 9, 4, generator=generator), torch.randn(10, 10, generator=generator)
    delta = wide[::2].permute(2, 1, 0)
    shared = A.expand(4, -1, -1)
    assert not delta.is_contiguous()
    spread = torch.full((4, 20, 20), float("nan"))[:, ::2, 1::2]
    spread[:] = torch.randn(4, 10, 10, generator=generator) + 5 * torch.eye(10)
    for given in (shared, A.T.expand(4, -1, -1), shared.contiguous().mT, spread):
        exact = rows_reference.quadratic_rows(delta.double(), given.double())
        torch.testing.assert_close(quadratic_rows(delta, given).double(), exact, rtol=1e-4, atol=1e-5)


def test_rows_are_not_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(1, 70, 20, generator=generator)
    A = -torch.eye(20)[None]
    assert quadratic_rows(delta, A).tolist() == [[0.0] * 70]


@pytest.mark.parametrize("shape", [(2, 16, 90, 60), (1, 40, 200, 130), (3, 65, 257, 140)])
def test_ghost_norms_of_any_shape(shape: tuple[int, ...], launches: list[str]) -> None:
    n, t, c, o = shape
    generator = torch.Generator().manual_seed(0)
    a, delta = torch.randn(n, t, c, generator=generator), torch.randn(n, t, o, generator=generator)
    exact = ghost_reference.ghost_norms(a.double(), delta.double())
    torch.testing.assert_close(ghost_norms(a, delta).double(), exact, rtol=1e-5, atol=0)
    assert launches == ["gram_kernel"]


def test_ghost_norms_of_patches() -> None:
    """Positions last in memory, as images have them; a slice."""
    generator = torch.Generator().manual_seed(0)
    a, delta = (torch.randn(4, c, 9, generator=generator)[::2] for c in (40, 33))
    exact = ghost_reference.ghost_norms(a.mT.double(), delta.mT.double())
    torch.testing.assert_close(ghost_norms(a.mT, delta.mT).double(), exact, rtol=1e-5, atol=0)


def test_what_is_left_to_pytorch(launches: list[str]) -> None:
    """float64, a single position, and gradients that cost less than their Gram form."""
    loss, g = losses(2, 9)
    assert tilted_moments(loss.double(), g.double(), 0.1, 17)[0].dtype is torch.float64
    cube = torch.ones(2, 3, 3)
    assert quadratic_rows(cube.double(), cube.double()).dtype is torch.float64
    assert ghost_norms(cube.double(), cube.double()).tolist() == [81.0, 81.0]
    assert ghost_norms(cube, cube).tolist() == [81.0, 81.0]
    assert ghost_norms(cube[:, :1], cube[:, :1]).tolist() == [9.0, 9.0]
    assert launches == []


def test_two_calls_agree_bit_for_bit() -> None:
    for check in CHECKS:
        values = operands(check, check.small[0], "cpu", torch.float32)
        for a, b in zip(check.function(*values), check.function(*values)):
            assert torch.equal(a, b)


def test_opcheck() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    a, delta = torch.randn(2, 3, 20), torch.randn(2, 3, 17)
    for operator, args in (
        (torch.ops.logsobolev_bounds.tilted_moments, (*losses(2, 5), 0.1, 17)),
        (torch.ops.logsobolev_bounds.tilted_moments, (*(x.bfloat16() for x in losses(2, 5)), 0.1, 17)),
        (torch.ops.logsobolev_bounds.quadratic_rows, (torch.randn(2, 3, 4), torch.randn(2, 4, 4))),
        (torch.ops.logsobolev_bounds.ghost_norms, (a, delta)),
    ):
        assert set(torch.library.opcheck(operator.default, args).values()) == {"SUCCESS"}


def test_compile_fullgraph() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False
    delta, A, (loss, _) = torch.randn(2, 5, 4), torch.eye(4).expand(2, -1, -1), losses(2, 5)

    def chain(loss: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        return tilted_moments(loss, quadratic_rows(delta, A), 0.1, 17)[1] + ghost_norms(delta, delta).sum()

    torch.testing.assert_close(
        torch.compile(chain, fullgraph=True, backend="aot_eager")(loss, delta), chain(loss, delta)
    )
