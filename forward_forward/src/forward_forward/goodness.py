"""Goodness and the normalisation that hides it from the next layer (section 2.1; Hinton 2022, section 2).

With `q_n = sum_j h_nj^2` everything here is a function of `q` and the width: goodness is `q` or `q / width`, and the
normalised activity is `z_n = s_n h_n` with a row scale `s_n`. No normalised copy of the activities is ever needed.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Norm = Literal["rms", "l2", "none"]
Goodness = Literal["sum", "mean"]


def row_scale(q: Float[Tensor, " n"], width: int, norm: Norm) -> Float[Tensor, " n"]:
    """`s` with `N(h) = s h`. A dead row (q = 0) has a finite s, so its z is 0 and never NaN."""
    if norm == "rms":
        return 1 / ((q / width).sqrt() + 1e-8)
    if norm == "l2":
        return 1 / (q.sqrt() + 1e-4)
    return torch.ones_like(q)


def normalise(h: Float[Tensor, "n width"], norm: Norm) -> Float[Tensor, "n width"]:
    """`N(h)`, per row: `rms` gives mean square 1 (Hinton's choice), `l2` norm 1, `none` the identity."""
    return h * row_scale(h.square().sum(1), h.shape[1], norm)[:, None]


def goodness(q: Float[Tensor, " n"], width: int, kind: Goodness) -> Float[Tensor, " n"]:
    """`g_i` from the sum of squares of the activities BEFORE normalisation."""
    return q if kind == "sum" else q / width


def goodness_slope(width: int, kind: Goodness) -> float:
    """`c` in `dg/dh = c h`: 2 for `sum`, 2 / width for `mean`."""
    return 2.0 if kind == "sum" else 2.0 / width


def absolute_theta(theta: float, unit: Literal["absolute", "width"], width: int, kind: Goodness) -> float:
    """The threshold on the goodness of one layer. In units of the width it means the same for `sum` and `mean`."""
    return theta * width if unit == "width" and kind == "sum" else theta
