"""The definitions of the operators against the golden vectors of the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diggan.kernels.fused_diffaugment import Draws, draw, fused_diffaugment, parse_policy
from diggan.kernels.fused_diffaugment.reference import hole, largest_shift
from diggan.kernels.grad_gap import grad_gap, norms
from diggan.kernels.grouped_spectral_norm import grouped_spectral_norm
from shared.errors import UserError

GOLDEN = np.load(Path(__file__).parent / "golden" / "diffaugment.npz", allow_pickle=False)
POLICIES = ["color", "translation", "cutout", "color+translation+cutout", "translation+cutout"]


def golden(key: str) -> torch.Tensor:
    value = torch.from_numpy(GOLDEN[key])
    return value.double() if value.is_floating_point() else value


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("images", ["a", "b", "c"])
def test_diffaugment_is_the_authors(images: str, policy: str) -> None:
    prefix = f"{images}/{policy}"
    recorded = {name: golden(f"{prefix}/{name}") for name in Draws._fields if f"{prefix}/{name}" in GOLDEN.files}
    x = golden(f"{images}/x").requires_grad_()
    out = fused_diffaugment(x, policy.replace("+", ","), Draws(**recorded))
    torch.testing.assert_close(out, golden(f"{prefix}/out"), rtol=1e-6, atol=1e-6)
    (grad,) = torch.autograd.grad((out * golden(f"{images}/upstream")).sum(), x)
    torch.testing.assert_close(grad, golden(f"{prefix}/grad_x"), rtol=1e-6, atol=1e-6)


def test_draws_reach_both_ends_and_no_further() -> None:
    drawn = draw("color,translation,cutout", 4000, 9, 12, torch.Generator().manual_seed(0))
    for shift, size in ((drawn.shift_h, 9), (drawn.shift_w, 12)):
        assert (int(shift.min()), int(shift.max())) == (-largest_shift(size), largest_shift(size))
    # A hole of 5 rows (odd) has offsets 0 .. 8, one of 6 columns (even) 0 .. 12.
    assert (hole(9), hole(12)) == (5, 6)
    assert (int(drawn.offset_h.min()), int(drawn.offset_h.max())) == (0, 8)
    assert (int(drawn.offset_w.min()), int(drawn.offset_w.max())) == (0, 12)
    assert 0 <= float(drawn.brightness_u.min()) < 0.01 < 0.99 < float(drawn.brightness_u.max()) < 1
    again = draw("color,translation,cutout", 4000, 9, 12, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again))


def test_an_unknown_policy_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"'rotation'.*color, translation, cutout"):
        parse_policy("color,rotation")


def test_a_missing_draw_is_named() -> None:
    with pytest.raises(ValueError, match="shift_h is missing"):
        fused_diffaugment(torch.zeros(1, 1, 4, 4), "translation", Draws())


def test_spectral_norm_converges_to_the_largest_singular_value() -> None:
    generator = torch.Generator().manual_seed(0)
    w = [torch.randn(5, 3, 3, 3, generator=generator).double(), torch.randn(7, 4, generator=generator).double()]
    u = [torch.randn(1, len(each), generator=generator).double() for each in w]
    for _ in range(500):
        normalised, sigma, u = grouped_spectral_norm(w, u)
    for weight, s, n in zip(w, sigma, normalised):
        torch.testing.assert_close(s[0], torch.linalg.matrix_norm(weight.flatten(1), 2), rtol=1e-6, atol=0)
        torch.testing.assert_close(n, weight / s)


def test_gap_of_a_zero_row_has_no_nan_in_any_derivative() -> None:
    g = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    penalty, n, state = grad_gap(g, None, 0.5)
    assert n.tolist() == [5.0, 0.0, 0.0, 1.0]
    assert penalty.item() == (25 + 1) / 2
    (first,) = torch.autograd.grad(penalty, g, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), g)
    assert first.isfinite().all()
    assert second.isfinite().all()
    assert first[1].tolist() == [0.0, 0.0]
    assert not state.requires_grad
    assert norms(torch.zeros(2, 3, dtype=torch.float16)).dtype is torch.float32


def test_smoothing_keeps_half_of_the_last() -> None:
    g = torch.eye(2, dtype=torch.float64) * torch.tensor([4.0, 2.0])
    penalty, _, state = grad_gap(g, torch.tensor([2.0, 6.0]), 0.5)
    assert state.tolist() == [3.0, 4.0]
    assert penalty.item() == 1.0
