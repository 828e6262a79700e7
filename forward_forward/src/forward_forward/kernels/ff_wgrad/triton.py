"""K2 in Triton: `dW = H_prev^T diag(w) H`, the sum over rows split among programs and added up in a fixed order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.backend import autocast
from torch import Tensor

from ..tiles import tile, variants


@triton.jit
def wgrad_kernel(
    hp, h, dh, dq, w, cr, dw, db, N, K, M, SETS, SPLIT, hp_n, hp_k, h_n, h_m, dh_n, dh_m,
    GATED: tl.constexpr, SHARED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One tile of the part of `dW` (slab `pid_s` of [splits, K, M]) that the `SPLIT` rows from `pid_s * SPLIT` give.

    The right operand is `D_n = w_n H_n`;
    GATED: `w_n dA_n` with `dA = (dH + 2 dq H) 1[H > 0]` (backward of a layer, cr = 1);
    SHARED: `w_n sum_r cr_rn H_rn` over the `SETS` rows that share row n of the left operand (first layer, no db).
    """
    pid_k, pid_m, pid_s = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    k = pid_k * BLOCK_K + tl.arange(0, BLOCK_K)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    first = pid_s * SPLIT
    last = tl.minimum(first + SPLIT, N)
    acc = tl.zeros((BLOCK_K, BLOCK_M), tl.float32)
    bias = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        n64 = n.to(tl.int64)
        inside = (n[:, None] < last) & (m[None, :] < M)
        left = tl.load(hp + n64[None, :] * hp_n + k[:, None] * hp_k, (n[None, :] < last) & (k[:, None] < K), other=0.0)
        scale = tl.load(w + n, n < last, other=0.0).to(tl.float32)
        d = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
        if SHARED:
            for r in range(SETS):
                act = tl.load(h + (r * N + n64)[:, None] * h_n + m[None, :] * h_m, inside, other=0.0).to(tl.float32)
                d += tl.load(cr + r * N + n, n < last, other=0.0).to(tl.float32)[:, None] * act
        else:
            d = tl.load(h + n64[:, None] * h_n + m[None, :] * h_m, inside, other=0.0).to(tl.float32)
            if GATED:
                grad = tl.load(dh + n64[:, None] * dh_n + m[None, :] * dh_m, inside, other=0.0).to(tl.float32)
                slope = 2 * tl.load(dq + n, n < last, other=0.0).to(tl.float32)
                d = tl.where(d > 0, grad + slope[:, None] * d, 0.0)
                bias += tl.sum(d, 0)
            else:
                bias += tl.sum(d * tl.load(cr + n, n < last, other=0.0).to(tl.float32)[:, None], 0)
        right = (d * scale[:, None]).to(hp.dtype.element_ty)
        if WIDE:
            left, right = left.to(tl.float32), right.to(tl.float32)
        acc = tl.dot(left, right, acc, input_precision=PRECISION)
    out = dw + (pid_s * K + k[:, None]).to(tl.int64) * M + m[None, :]
    tl.store(out, acc, (k[:, None] < K) & (m[None, :] < M))
    if not SHARED and pid_k == 0:
        tl.store(db + pid_s * M + m, bias, m < M)


def launch_wgrad(
    h_prev: Tensor,
    h: Tensor,
    w: Tensor,
    cr: Tensor,
    gate: tuple[Tensor, Tensor] | None = None,
    sets: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`(dW, db)`; `gate = (dH, dq)`: of `dA` in place of `H`; `sets`: rows of `h` for each row of `h_prev` (no db)."""
    (n, k), m = h_prev.shape, h.shape[1]
    if not n * k * m:
        if gate is not None:
            cr, h = torch.ones_like(cr), torch.where(h > 0, gate[0] + 2 * gate[1][:, None] * h, 0)
        return h.new_zeros(k, m), h.new_zeros(m) if sets is not None else cr.to(h.dtype) @ h
    t = tile(h, k, m, inner="BLOCK_N")
    grid_k, grid_m = triton.cdiv(k, t["BLOCK_K"]), triton.cdiv(m, t["BLOCK_M"])
    # Enough programs for two rounds of a large GPU, each with at least 256 rows to sum.
    splits = max(1, min(256 // (grid_k * grid_m), n // 256))
    split = triton.cdiv(triton.cdiv(n, splits), t["BLOCK_N"]) * t["BLOCK_N"]
    splits = triton.cdiv(n, split)
    dw = torch.empty(splits, k, m, dtype=torch.float32, device=h.device)
    db = torch.empty(splits, m, dtype=torch.float32, device=h.device)
    dh, dq = gate if gate is not None else (h, w)
    with torch.cuda.device_of(h):
        wgrad_kernel[(grid_k, grid_m, splits)](
            h_prev, h, dh, dq.contiguous(), w.contiguous(), cr.contiguous(), dw, db, n, k, m, sets or 1, split,
            *h_prev.stride(), *h.stride(), *dh.stride(),
            GATED=gate is not None, SHARED=sets is not None, **t,
        )  # fmt: skip
    if splits == 1:
        return dw[0].to(h.dtype), db[0].to(h.dtype)
    return dw.sum(0).to(h.dtype), db.sum(0).to(h.dtype)


@torch.library.custom_op("forward_forward::ff_wgrad", mutates_args=())
def wgrad_op(h_prev: Tensor, h: Tensor, w: Tensor, cr: Tensor) -> tuple[Tensor, Tensor]:
    return launch_wgrad(h_prev, h, w, cr)


@wgrad_op.register_fake
def _(h_prev: Tensor, h: Tensor, w: Tensor, cr: Tensor) -> tuple[Tensor, Tensor]:
    return h.new_empty(h_prev.shape[1], h.shape[1]), h.new_empty(h.shape[1])


def save(ctx: object, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)  # type: ignore[attr-defined]


def backward(ctx: object, ddw: Tensor, ddb: Tensor) -> tuple[Tensor, ...]:
    """Second derivatives, which no training here takes: plain PyTorch."""
    h_prev, h, w, cr = ctx.saved_tensors  # type: ignore[attr-defined]
    ddw, ddb = ddw.to(h.dtype), ddb.to(h.dtype)
    below, above = h @ ddw.T, h_prev @ ddw
    wide, bias = w.to(h.dtype)[:, None], cr.to(h.dtype)[:, None] * ddb
    dw = (h_prev * below).sum(1).to(w.dtype)
    return wide * below, wide * above + bias, dw, (h @ ddb).to(cr.dtype)


wgrad_op.register_autograd(backward, setup_context=save)


def ff_wgrad(h_prev: Tensor, h: Tensor, w: Tensor, cr: Tensor) -> tuple[Tensor, Tensor]:
    h_prev, h = autocast(h_prev, h)
    return wgrad_op(h_prev, h, w, cr)


POINTERS = {
    "hp": "data", "h": "data", "dh": "data", "dq": "*fp32", "w": "*fp32", "cr": "*fp32", "dw": "*fp32", "db": "*fp32"
}  # fmt: skip
NUMBERS = ("N", "K", "M", "SETS", "SPLIT", "hp_n", "hp_k", "h_n", "h_m", "dh_n", "dh_m")
AOT = [
    build
    for flags in ({"GATED": False, "SHARED": False, "SETS": 1}, {"GATED": True, "SHARED": False, "SETS": 1})
    for build in variants(wgrad_kernel, POINTERS, NUMBERS, ("hp_k", "h_m", "dh_m"), "BLOCK_N", flags)
]
