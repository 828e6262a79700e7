"""K3 in plain PyTorch: the definition, and three ways to its value and gradients without the N x M matrix.

    L(a, b) = 1/(NM) sum_ij h(a_i - b_j);    h(t) = log(1 + e^-t) (logistic), max(0, 1 - t) (hinge), (1 - t)^2 (ls)

least squares from moments in O(N + M); hinge from sorted numbers in O((N + M) log M); logistic in chunks of rows that
stay in the cache, O(N M) operations in O(N + M) memory.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["logistic", "hinge", "ls"]
KINDS: tuple[Kind, ...] = ("logistic", "hinge", "ls")
# Pairs at a time. On the CPU the four arrays of a chunk take 1 MiB in float32, a core's own cache; elsewhere few
# launches count.
CHUNK, CHUNK_ELSEWHERE = 1 << 16, 1 << 24


def penalty(t: Tensor, kind: Kind) -> Tensor:
    """h(t), elementwise. `-logsigmoid(t)` is softplus(-t) without the cut-off of PyTorch's softplus at 20."""
    if kind == "logistic":
        return -F.logsigmoid(t)
    return F.relu(1 - t) if kind == "hinge" else (1 - t).square()


def chunk_rows(a: Tensor, columns: int) -> int:
    return max(1, (CHUNK if a.device.type == "cpu" else CHUNK_ELSEWHERE) // columns)


def allpairs_relativistic(a: Tensor, b: Tensor, kind: Kind) -> Tensor:
    """The definition: makes the N x M matrix."""
    return penalty(a[:, None] - b, kind).mean()


def least_squares(a: Tensor, b: Tensor) -> Tensor:
    """mean_ij (1 - a_i + b_j)^2 = (1 - mean a + mean b)^2 + var a + var b, in O(N + M). Differentiable."""
    return (1 - a.mean() + b.mean()).square() + a.var(correction=0) + b.var(correction=0)


def hinge_sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, dL/da and dL/db of the hinge, exactly, in O((N + M) log M).

    Pair (i, j) is active where b_j > a_i - 1; with A_i active pairs in row i and B_j in column j the active terms sum
    to sum_i A_i (1 - a_i) + sum_j B_j b_j, and NM dL/da_i = -A_i, NM dL/db_j = B_j. Row i is active from position p_i
    of the sorted b on; B_j counts the p_i up to the position of b_j, so A and B agree on every pair whatever rounds.
    The two sums may cancel: float64.
    """
    n, m = len(a), len(b)
    wide_a, wide_b = a.double(), b.double().contiguous()
    ordered = wide_b.sort().values
    first = torch.searchsorted(ordered, wide_a - 1, right=True)
    position = torch.searchsorted(ordered, wide_b)
    rows, columns = m - first, torch.searchsorted(first.sort().values, position, right=True)
    value = ((rows * (1 - wide_a)).sum() + (columns * wide_b).sum()) / (n * m)
    return value.to(a.dtype), rows.to(a.dtype) / (-n * m), columns.to(a.dtype) / (n * m)


def logistic_sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, dL/da and dL/db of the logistic loss, a chunk of rows at a time.

    With t = a_i - b_j and s(-t) the logistic function, NM dL/da_i = -sum_j s(-t), NM dL/db_j = sum_i s(-t).
    """
    n, m = len(a), len(b)
    height = chunk_rows(a, m)
    value = torch.zeros((), dtype=torch.float64, device=a.device)
    da, db = torch.empty_like(a), torch.zeros_like(b)
    memory = a.new_empty(min(height, n), m)
    for start in range(0, n, height):
        rows = slice(start, min(start + height, n))
        t = torch.sub(a[rows, None], b, out=memory[: rows.stop - start])
        value -= F.logsigmoid(t).sum()
        slope = t.neg_().sigmoid_()
        da[rows] = slope.sum(1)
        db += slope.sum(0)
    return (value / (n * m)).to(a.dtype), da.div_(-n * m), db.div_(n * m)


def allpairs_sums(a: Tensor, b: Tensor, kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """L, dL/da and dL/db for `logistic` and `hinge`; not differentiable (`second_order` is)."""
    return hinge_sums(a, b) if kind == "hinge" else logistic_sums(a, b)


def second_order(a: Tensor, b: Tensor, kind: Kind, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `u . dL/da + v . dL/db` with respect to a and b; itself differentiable.

    With H_ij = h''(a_i - b_j) and w_ij = H_ij (u_i - v_j): sum_j w_ij / NM and -sum_i w_ij / NM.
    """
    n, m = len(a), len(b)
    if kind == "hinge":  # h'' = 0
        return torch.zeros_like(a), torch.zeros_like(b)
    height = chunk_rows(a, m)
    rows, columns = list[Tensor](), torch.zeros_like(b)
    for a_rows, u_rows in zip(a.split(height), u.split(height)):
        s = torch.sigmoid(b - a_rows[:, None])
        w = s * (1 - s) * (u_rows[:, None] - v)
        rows.append(w.sum(1))
        columns = columns - w.sum(0)
    return torch.cat(rows) / (n * m), columns / (n * m)
