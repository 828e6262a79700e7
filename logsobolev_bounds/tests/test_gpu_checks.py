"""What is timed on a GPU beside the kernels is the same quantity, and of the size that the target names."""

from __future__ import annotations

import torch
from logsobolev_bounds.gpu_checks import CHECK


def test_the_quadratic_rows_with_a_covariance_are_the_norms_of_the_gradient() -> None:
    delta, W, Sigma = CHECK.operands(torch.Generator().manual_seed(0), **CHECK.small[0])
    (ours,), (whole,) = CHECK.function(delta, W, Sigma), CHECK.definition(delta, W, Sigma)
    torch.testing.assert_close(ours, whole, rtol=1e-10, atol=0)
    by_hand = delta[1, 5] @ W[1]
    torch.testing.assert_close(whole[1, 5], by_hand @ Sigma @ by_hand, rtol=1e-10, atol=0)
    assert torch.linalg.eigvalsh(Sigma).min() > -1e-9


def test_the_timed_size_is_the_targets() -> None:
    (shape,) = CHECK.timed
    assert (shape["D"], shape["H"]) == (3072, 256)
    flops, entries = CHECK.cost(**shape)
    materialised = 2.0 * shape["N"] * (shape["H"] * shape["D"] + shape["D"] ** 2)
    assert materialised / flops > 4  # so that the target is within reach
    assert entries < shape["N"] * shape["D"]  # less than the gradient alone
