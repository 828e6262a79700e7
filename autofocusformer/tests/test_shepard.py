"""Shepard's interpolation against the authors' numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from autofocusformer.heads.shepard import nearest_tokens, shepard, weights

GOLDEN = np.load(Path(__file__).parent / "golden" / "seg_ops.npz")


def test_interpolation_is_the_authors() -> None:
    query, at, features, expected, upstream, gradient = (
        torch.from_numpy(GOLDEN[f"shep_{k}"]) for k in ("query", "db", "feat", "out", "gout", "dfeat")
    )
    features.requires_grad_()
    out = shepard(query, at, features, k=4, p=3)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    (got,) = torch.autograd.grad(out, features, upstream)
    torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-5)


def test_a_token_at_the_query_gives_its_own_feature_and_no_nan() -> None:
    at = torch.tensor([[[0, 0], [3, 0], [0, 3], [5, 5], [6, 6]]])
    features = torch.arange(5.0).view(1, 5, 1)
    torch.testing.assert_close(shepard(at, at, features), features, rtol=0, atol=1e-6)
    place, p = at.float().requires_grad_(), torch.tensor(3.0, requires_grad=True)
    idx = nearest_tokens(at, at, 4)
    w = weights(place, at[0, idx[0]][None], p)
    for grad in torch.autograd.grad(w.square().sum(), (place, p)):
        assert grad.isfinite().all()


def test_fewer_tokens_than_neighbours() -> None:
    at = torch.tensor([[[0, 0], [2, 0]]])
    out = shepard(torch.tensor([[[1, 0]]]), at, torch.tensor([[[1.0], [3.0]]]))
    torch.testing.assert_close(out, torch.tensor([[[2.0]]]))
