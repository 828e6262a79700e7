"""K1 in Triton: forward pass of a layer, and the gradient of its input for baselines that let gradients through."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.backend import autocast
from torch import Tensor

from ..ff_wgrad.triton import launch_wgrad
from ..tiles import tile, variants


@triton.jit
def linear_kernel(
    hp, s, w, b, h, q, N, K, M, hp_n, hp_k, w_k, w_m,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One tile of `H`, and the squares of its rows into row `pid_m` of `q` [column tiles, N]: no atomics, one order."""
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n64 = n.to(tl.int64)[:, None]
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(hp + n64 * hp_n + k[None, :] * hp_k, (n[:, None] < N) & (k[None, :] < K), other=0.0)
        right = tl.load(w + k[:, None] * w_k + m[None, :] * w_m, (k[:, None] < K) & (m[None, :] < M), other=0.0)
        if WIDE:
            left, right = left.to(tl.float32), right.to(tl.float32)
        acc = tl.dot(left, right, acc, input_precision=PRECISION)
    # diag(s) H_prev W = diag(s) (H_prev W): the scale of the normalisation is applied to the sum, not to the operand.
    scale = tl.load(s + n, n < N, other=0.0).to(tl.float32)
    bias = tl.load(b + m, m < M, other=0.0).to(tl.float32)
    out = tl.maximum(acc * scale[:, None] + bias[None, :], 0.0).to(h.dtype.element_ty)
    tl.store(h + n64 * M + m[None, :], out, (n[:, None] < N) & (m[None, :] < M))
    wide = out.to(tl.float32)
    tl.store(q + pid_m * N + n, tl.sum(wide * wide, 1), n < N)


@triton.jit
def input_grad_kernel(
    h, dh, dq, w, hp, s, dhp, ds, N, K, M, dh_n, dh_m, w_k, w_m, hp_n, hp_k,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One tile of `diag(s) G`, G = dA W^T, and `sum_k H_prev G` of its rows into row `pid_k` of `ds` [tiles, N].

    `dA = (dH + 2 dq H) 1[H > 0]` is formed on the way into the product.
    """
    pid_n, pid_k = tl.program_id(0), tl.program_id(1)
    n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = pid_k * BLOCK_K + tl.arange(0, BLOCK_K)
    n64 = n.to(tl.int64)[:, None]
    slope = 2 * tl.load(dq + n, n < N, other=0.0).to(tl.float32)
    acc = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for start in range(0, M, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        inside = (n[:, None] < N) & (m[None, :] < M)
        act = tl.load(h + n64 * M + m[None, :], inside, other=0.0).to(tl.float32)
        grad = tl.load(dh + n64 * dh_n + m[None, :] * dh_m, inside, other=0.0).to(tl.float32)
        da = tl.where(act > 0, grad + slope[:, None] * act, 0.0).to(w.dtype.element_ty)
        right = tl.load(w + k[None, :] * w_k + m[:, None] * w_m, (k[None, :] < K) & (m[:, None] < M), other=0.0)
        if WIDE:
            da, right = da.to(tl.float32), right.to(tl.float32)
        acc = tl.dot(da, right, acc, input_precision=PRECISION)
    inside = (n[:, None] < N) & (k[None, :] < K)
    scale = tl.load(s + n, n < N, other=0.0).to(tl.float32)
    tl.store(dhp + n64 * K + k[None, :], (acc * scale[:, None]).to(dhp.dtype.element_ty), inside)
    left = tl.load(hp + n64 * hp_n + k[None, :] * hp_k, inside, other=0.0).to(tl.float32)
    tl.store(ds + pid_k * N + n, tl.sum(left * acc, 1), n < N)


def q_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


@torch.library.custom_op("forward_forward::ff_linear_fwd", mutates_args=())
def linear_op(h_prev: Tensor, s: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    (n, k), m = h_prev.shape, w.shape[1]
    t = tile(h_prev, n, m)
    h, tiles = h_prev.new_empty(n, m), triton.cdiv(m, t["BLOCK_M"])
    if not h.numel():
        return h, h_prev.new_zeros(n, dtype=q_dtype(h_prev))
    q = torch.empty(tiles, n, dtype=torch.float32, device=h.device)
    grid = (triton.cdiv(n, t["BLOCK_N"]), tiles)
    with torch.cuda.device_of(h):
        linear_kernel[grid](
            h_prev, s.contiguous(), w, b.contiguous(), h, q, n, k, m, *h_prev.stride(), *w.stride(),
            **t,
        )  # fmt: skip
    return h, q[0] if tiles == 1 else q.sum(0)


@linear_op.register_fake
def _(h_prev: Tensor, s: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    n = h_prev.shape[0]
    return h_prev.new_empty(n, w.shape[1]), h_prev.new_empty(n, dtype=q_dtype(h_prev))


@torch.library.custom_op("forward_forward::ff_linear_bwd", mutates_args=())
def linear_backward_op(
    h_prev: Tensor, s: Tensor, w: Tensor, h: Tensor, dh: Tensor, dq: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`(dH_prev, ds, dW, db)` of `ff_linear_fwd`; `h` is its result."""
    (n, k), m = h_prev.shape, w.shape[1]
    dhp = torch.zeros_like(h_prev, memory_format=torch.contiguous_format)
    if not n * k * m:
        dw, db = launch_wgrad(h_prev, h, s, s, (dh, dq))
        return dhp, torch.zeros_like(s), dw.to(w.dtype), db
    t = tile(h_prev, n, k, inner="BLOCK_M")
    tiles = triton.cdiv(k, t["BLOCK_K"])
    ds = torch.empty(tiles, n, dtype=torch.float32, device=h.device)
    with torch.cuda.device_of(h):
        input_grad_kernel[(triton.cdiv(n, t["BLOCK_N"]), tiles)](
            h, dh, dq.contiguous(), w, h_prev, s.contiguous(), dhp, ds, n, k, m,
            *dh.stride(), *w.stride(), *h_prev.stride(), **t,
        )  # fmt: skip
    dw, db = launch_wgrad(h_prev, h, s, s, (dh, dq))
    return dhp, ds.sum(0).to(s.dtype), dw.to(w.dtype), db


@linear_backward_op.register_fake
def _(h_prev: Tensor, s: Tensor, w: Tensor, h: Tensor, dh: Tensor, dq: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return h_prev.new_empty(h_prev.shape), s.new_empty(s.shape), w.new_empty(w.shape), h.new_empty(w.shape[1])


def save(ctx: object, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    h_prev, s, w, b = inputs
    ctx.bias_dtype = b.dtype  # type: ignore[attr-defined]
    ctx.save_for_backward(h_prev, s, w, output[0])  # type: ignore[attr-defined]


def backward(ctx: object, dh: Tensor, dq: Tensor) -> tuple[Tensor, ...]:
    dhp, ds, dw, db = linear_backward_op(*ctx.saved_tensors, dh, dq)  # type: ignore[attr-defined]
    return dhp, ds, dw, db.to(ctx.bias_dtype)  # type: ignore[attr-defined]


linear_op.register_autograd(backward, setup_context=save)


def ff_linear_fwd(h_prev: Tensor, s: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    h_prev, w = autocast(h_prev, w)
    return linear_op(h_prev, s, w, b)


VECTORS = {"s": "*fp32", "b": "*fp32"}
AOT = [
    *variants(
        linear_kernel,
        {"hp": "data", "w": "data", "h": "data", "q": "*fp32", **VECTORS},
        ("N", "K", "M", "hp_n", "hp_k", "w_k", "w_m"),
        ("hp_k", "w_m"),
        "BLOCK_K",
    ),
    *variants(
        input_grad_kernel,
        {"h": "data", "dh": "data", "dq": "*fp32", "w": "data", "hp": "data", "s": "*fp32", "dhp": "data",
         "ds": "*fp32"},
        ("N", "K", "M", "dh_n", "dh_m", "w_k", "w_m", "hp_n", "hp_k"),
        ("dh_m", "w_m", "hp_k"),
        "BLOCK_M",
    ),
]  # fmt: skip
