"""K3 in Triton: one pass over tiles of pairs gives the value, the row sums and the column sums of h'.

Each program writes its own partial sums; a second pass adds them in a fixed order. No atomics: two calls agree bit
for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import variant
from torch import Tensor

TILE = {"BLOCK_N": 128, "BLOCK_M": 32, "num_warps": 4, "num_stages": 2}
TILES = 64  # of a program: a product of 64 factors below 2 stays below 2^64
PROGRAMS = 1024  # some eight for each multiprocessor of a large GPU
FAR = 1e30  # past the end of a and b: pads have h = h' = 0 (logistic and hinge)


@triton.jit
def allpairs_kernel(
    a, b, value, rows, columns, N, M, SPAN, KIND: tl.constexpr, FAR: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """`BLOCK_N` rows times the `SPAN` columns from `pid_s * SPAN`, in terms of x = b_j - a_i.

    Writes `sum h` to value[pid_n, pid_s], `sum_j -h'` to rows[pid_s, :], `sum_i -h'` to columns[pid_n, :].
    Logistic: h = max(x, 0) + log(1 + e), -h' = 1/(1 + e) or e/(1 + e), with e = exp(-|x|) <= 1. The logarithms of a
    place in the tile are taken together: `product` = prod(1 + e) - 1 loses no digits where all e are small.
    """
    pid_n, pid_s = tl.program_id(0), tl.program_id(1)
    n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    left = tl.load(a + n, n < N, other=FAR)
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    product = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    row = tl.zeros((BLOCK_N,), tl.float32)
    first = pid_s * SPAN
    last = tl.minimum(first + SPAN, M)
    for start in range(first, last, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        right = tl.load(b + m, m < last, other=-FAR)
        x = right[None, :] - left[:, None]
        if KIND == "logistic":
            e = tl.exp(-tl.abs(x))
            inverse = 1 / (1 + e)
            slope = tl.where(x > 0, inverse, e * inverse)
            total += tl.maximum(x, 0.0)
            product += e + e * product
        elif KIND == "hinge":
            slope = tl.where(x > -1, 1.0, 0.0)
            total += tl.maximum(1 + x, 0.0)
        else:
            slope = tl.where((n[:, None] < N) & (m[None, :] < last), 2 * (1 + x), 0.0)
            total += slope * slope / 4
        row += tl.sum(slope, 1)
        tl.store(columns + pid_n.to(tl.int64) * M + m, tl.sum(slope, 0), m < last)
    if KIND == "logistic":
        # log(1 + p) to all digits of p (Higham, Accuracy and Stability of Numerical Algorithms, section 1.14.1)
        up = 1 + product
        total += tl.where(up == 1, product, tl.log(up) * product / tl.where(up == 1, 1.0, up - 1))
    tl.store(value + pid_n * tl.num_programs(1) + pid_s, tl.sum(tl.sum(total, 1), 0))
    tl.store(rows + pid_s.to(tl.int64) * N + n, row, n < N)


def launch_allpairs(a: Tensor, b: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """`(L, dL/da, dL/db)` for float32 vectors of N, M > 0 entries.

    Partial sums take 4 M N / 128 bytes, the only memory that grows with N M.
    """
    n, m = len(a), len(b)
    grid_n = triton.cdiv(n, TILE["BLOCK_N"])
    widest = TILES * TILE["BLOCK_M"]
    splits = max(triton.cdiv(m, widest), min(triton.cdiv(m, TILE["BLOCK_M"]), triton.cdiv(PROGRAMS, grid_n)))
    span = triton.cdiv(triton.cdiv(m, splits), TILE["BLOCK_M"]) * TILE["BLOCK_M"]
    splits = triton.cdiv(m, span)
    value = torch.empty(grid_n, splits, dtype=torch.float32, device=a.device)
    rows = torch.empty(splits, n, dtype=torch.float32, device=a.device)
    columns = torch.empty(grid_n, m, dtype=torch.float32, device=a.device)
    with torch.cuda.device_of(a):
        allpairs_kernel[(grid_n, splits)](
            a.contiguous(), b.contiguous(), value, rows, columns, n, m, span, KIND=kind, FAR=FAR, **TILE
        )
    total = value.sum(dtype=torch.float64) / (n * m)
    return total.float(), rows.sum(0) / (-n * m), columns.sum(0) / (n * m)


AOT = [
    variant(
        allpairs_kernel,
        kind + ("" if aligned else " any size"),
        dtype="fp32",
        pointers=dict.fromkeys(("a", "b", "value", "rows", "columns"), "data"),
        numbers=("N", "M", "SPAN"),
        constants={"KIND": kind, "FAR": FAR},
        launch=TILE,
        aligned=aligned,
    )
    for kind in ("logistic", "hinge", "ls")
    for aligned in (True, False)
]
