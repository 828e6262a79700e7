"""Chamfer distances of all pairs of clouds in Triton: distances live in registers only, each is computed once.

No atomics: sums are one program's, or taken in a fixed order; two calls agree bit for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import variant
from torch import Tensor
from torch.nn import functional as F

TILE = {"BLOCK_M": 128, "BLOCK_K": 16, "num_warps": 4, "num_stages": 1}
FAR = tl.constexpr(1e18)  # where the points past the end of a cloud lie: opposite ends for the two clouds
SCRATCH = 2**26  # nearest distances of columns that are held at once


@triton.jit
def nearest_kernel(
    G, R, rows, columns, first, m, M, K, BLOCKS, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    """`BLOCK_M` points of one cloud of G against all of one of R, clouds as three planes of coordinates.

    Writes the sum of the points' nearest squared distances to rows[pair, block], and what is nearest to each point of
    R among them to columns[pair, block, :].
    """
    place = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    pair = first + place
    G += (pair // m) * 3 * M
    R += (pair % m) * 3 * K
    columns += (place * BLOCKS + block) * K
    a = block * BLOCK_M + tl.arange(0, BLOCK_M)
    x = tl.load(G + a, a < M, other=FAR)
    y = tl.load(G + M + a, a < M, other=0.0)
    z = tl.load(G + 2 * M + a, a < M, other=0.0)
    best = tl.full((BLOCK_M, BLOCK_K), float("inf"), tl.float32)
    for start in range(0, K, BLOCK_K):
        b = start + tl.arange(0, BLOCK_K)
        u = x[:, None] - tl.load(R + b, b < K, other=-FAR)[None, :]
        v = y[:, None] - tl.load(R + K + b, b < K, other=0.0)[None, :]
        w = z[:, None] - tl.load(R + 2 * K + b, b < K, other=0.0)[None, :]
        distance = u * u + v * v + w * w
        best = tl.minimum(best, distance)
        tl.store(columns + b, tl.min(distance, 0), b < K)
    near = tl.where(a < M, tl.min(best, 1), 0.0)
    tl.store(rows + place * BLOCKS + block, tl.sum(near, 0))


def planes(x: Tensor) -> Tensor:
    """`[clouds, 3, points]` in float32: missing coordinates are 0."""
    return F.pad(x.float(), (0, 3 - x.shape[2])).mT.contiguous()


def launch_chamfer(G: Tensor, R: Tensor) -> Tensor:
    """`[n, m]` in float32, for clouds of at most three coordinates."""
    (n, M), (m, K) = G.shape[:2], R.shape[:2]
    G, R = planes(G), planes(R)
    blocks = triton.cdiv(M, TILE["BLOCK_M"])
    some = max(1, min(n * m, SCRATCH // (blocks * K)))
    out = torch.empty(n * m, dtype=torch.float32, device=G.device)
    rows = torch.empty(some, blocks, dtype=torch.float32, device=G.device)
    columns = torch.empty(some, blocks, K, dtype=torch.float32, device=G.device)
    with torch.cuda.device_of(G):
        for first in range(0, n * m, some):
            pairs = min(some, n * m - first)
            nearest_kernel[(pairs, blocks)](G, R, rows, columns, first, m, M, K, blocks, **TILE)
            out[first : first + pairs] = rows[:pairs].sum(1) / M + columns[:pairs].amin(1).mean(1)
    return out.view(n, m)


AOT = [
    variant(
        nearest_kernel,
        "aligned" if aligned else "any size",
        dtype="fp32",
        pointers=dict.fromkeys(("G", "R", "rows", "columns"), "data"),
        numbers=("first", "m", "M", "K", "BLOCKS"),
        constants={},
        launch=TILE,
        aligned=aligned,
    )
    for aligned in (True, False)
]
