"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: KERNEL_BACKEND=interpret pytest <this file>.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diggan.kernels.checks import CHECKS
from diggan.kernels.fused_diffaugment import Draws, draw, fused_diffaugment
from diggan.kernels.fused_diffaugment import check as diffaugment_check
from diggan.kernels.fused_diffaugment import reference as diffaugment_reference
from diggan.kernels.fused_diffaugment import triton as diffaugment_triton
from diggan.kernels.fused_diffaugment.maps import augment
from shared.kernels import backend
from shared.kernels.harness import TOLERANCE, Check, compare
from shared.kernels.harness import draw as operands
from triton.runtime import interpreter

assert backend.BACKEND == "interpret", "start this file with KERNEL_BACKEND=interpret"
torch.set_num_threads(1)
GOLDEN = np.load(Path(__file__).parent / "golden" / "diffaugment.npz", allow_pickle=False)
POLICIES = ["color", "translation", "cutout", "color,translation,cutout", "translation,cutout"]
# Any order, and operations that come twice: a blank border is coloured, a coloured image shifted out and back.
ORDERS = ["cutout,translation,color", "color,translation,color,cutout", "translation,cutout,translation"]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that are launched."""
    names = list[str]()
    launch = interpreter.GridExecutor.__call__

    def counted(self: interpreter.GridExecutor, *args: object, **kwargs: object) -> None:
        names.append(self.fn.__name__)
        launch(self, *args, **kwargs)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", counted)
    return names


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_against_the_definition(check: Check, dtype: torch.dtype) -> None:
    for shape in check.small:
        errors = compare(check, operands(check, shape, "cpu", dtype))
        assert "grad0" in errors
        assert max(errors.values()) <= TOLERANCE[dtype], errors


def golden(images: str, policy: str) -> tuple[torch.Tensor, Draws, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, draws, result, upstream gradient and gradient of the authors' code."""
    prefix = f"{images}/{policy.replace(',', '+')}"
    recorded = {n: torch.from_numpy(GOLDEN[f"{prefix}/{n}"]) for n in Draws._fields if f"{prefix}/{n}" in GOLDEN.files}
    tensors = [torch.from_numpy(GOLDEN[key]) for key in (f"{images}/x", f"{prefix}/out", f"{images}/upstream")]
    return tensors[0], Draws(**recorded), tensors[1], tensors[2], torch.from_numpy(GOLDEN[f"{prefix}/grad_x"])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("images", ["a", "b", "c"])
def test_diffaugment_is_the_authors(images: str, policy: str, launches: list[str]) -> None:
    x, draws, expected, upstream, gradient = golden(images, policy)
    x.requires_grad_()
    out = fused_diffaugment(x, policy, draws)
    assert launches == ["diffaugment_kernel"]
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    (grad,) = torch.autograd.grad((out * upstream).sum(), x)
    assert launches == ["diffaugment_kernel"] * 2
    torch.testing.assert_close(grad, gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("policy", [*POLICIES, *ORDERS])
@pytest.mark.parametrize("size", [(2, 3, 9, 12), (1, 1, 7, 5), (1, 5, 40, 31)], ids=str)
def test_diffaugment_in_any_order(policy: str, size: tuple[int, int, int, int]) -> None:
    """Value, gradient and the gradient of that, in float64 through the kernel, to the last digits."""
    generator = torch.Generator().manual_seed(0)
    x, up, again = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(3))
    drawn = draw(policy, size[0], *size[2:], generator)
    results = []
    for function in (augment, lambda x, names, drawn: diffaugment_reference.fused_diffaugment(x, policy, drawn)):
        leaf, seed = x.clone().requires_grad_(), up.clone().requires_grad_()
        out = function(leaf, policy.split(","), drawn)
        (grad,) = torch.autograd.grad(out, leaf, seed, create_graph=True)
        results.append((out.detach(), grad.detach(), *torch.autograd.grad(grad, seed, again)))
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("policy", ["color,translation,cutout", ORDERS[1]])
def test_diffaugment_by_finite_differences(policy: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    drawn = draw(policy, 2, 4, 5, generator)

    def function(x: torch.Tensor) -> torch.Tensor:
        return augment(x, policy.split(","), drawn)

    assert torch.autograd.gradcheck(function, x, fast_mode=True)
    # Quadratic in x, so that there is a second derivative.
    assert torch.autograd.gradgradcheck(lambda x: function(x * x), x, fast_mode=True)


@pytest.mark.parametrize("programs", [132, 4])
def test_diffaugment_of_a_large_image(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tiles in as many programs or in two, the last cut off; strides of a slice, transposed or channels last."""
    monkeypatch.setattr(diffaugment_triton, "PROGRAMS", programs)
    diffaugment_triton.constants.cache_clear()
    policy, generator = "color,translation,cutout", torch.Generator().manual_seed(3)
    whole = torch.randn(2, 67, 4, 70, generator=generator)[:, :, :3]
    drawn = draw(policy, 2, 67, 70, generator)
    for x in (whole.transpose(1, 2), whole.transpose(1, 2).contiguous(memory_format=torch.channels_last)):
        assert not x.is_contiguous()
        expected = diffaugment_reference.fused_diffaugment(x.double(), policy, drawn)
        torch.testing.assert_close(fused_diffaugment(x, policy, drawn).double(), expected, rtol=1e-5, atol=1e-5)
    diffaugment_triton.constants.cache_clear()


def test_a_hole_beyond_the_border_covers_the_edge() -> None:
    """Offsets further out than any that `draw` gives."""
    x, far = torch.ones(4, 2, 9, 6), torch.tensor([-20, 20, 4, -3])
    draws = Draws(offset_h=far, offset_w=far.flip(0))
    out = fused_diffaugment(x, "cutout", draws)
    assert torch.equal(out, diffaugment_reference.fused_diffaugment(x, "cutout", draws))
    assert ((out == 0).sum((1, 2, 3)) > 0).all()


def test_diffaugment_opcheck() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    drawn = draw("color,cutout", 2, 4, 4, torch.Generator().manual_seed(0))
    for part in ("map", "linear", "adjoint"):
        x = torch.randn(2, 3, 4, 4, requires_grad=True)
        outcome = torch.library.opcheck(torch.ops.diggan.diffaugment.default, (x, *drawn, "color,cutout", part))
        assert set(outcome.values()) == {"SUCCESS"}


def test_diffaugment_of_no_image_and_of_no_policy(launches: list[str]) -> None:
    x = torch.randn(2, 3, 4, 4)
    assert fused_diffaugment(x, "", Draws()) is x
    drawn = draw("color", 0, 4, 4, torch.Generator())
    assert fused_diffaugment(x[:0], "color", drawn).shape == (0, 3, 4, 4)
    with pytest.raises(ValueError, match="shift_h is missing"):
        fused_diffaugment(x, "translation", Draws())
    with pytest.raises(ValueError, match=r"draws.shift_h has shape \(3,\) for 2 images"):
        fused_diffaugment(x, "translation", draw("translation", 3, 4, 4, torch.Generator()))
    fused_diffaugment(x.double(), "color", draw("color", 2, 4, 4, torch.Generator()))
    assert launches == []


def test_diffaugment_plan() -> None:
    """Section 7.1 expects of the chain of operations some 30 launches and 15 passes over the images."""
    plan = diffaugment_check.plan(N=100, C=3, H=32, W=32)
    assert plan["launches"] == 1
    assert 2 * 100 * 12288 <= plan["bytes"] <= 2 * 100 * 12288 * 1.01
    assert plan["eager_launches"] >= 30
    assert plan["eager_bytes"] >= 10 * plan["bytes"]
