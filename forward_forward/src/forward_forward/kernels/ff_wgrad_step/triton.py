"""K2b in Triton: a program sums one tile of dW over all rows and updates its weights; dW never reaches memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import tile, variants


@triton.jit
def apply(p, g, m, v, numbers, VECTOR: tl.constexpr, RULE: tl.constexpr):
    lr, beta1, beta2 = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    epsilon, correction1, correction2 = tl.load(numbers + 3), tl.load(numbers + 4), tl.load(numbers + 5)
    decay = tl.load(numbers + 6)
    if RULE == "adam":
        g += decay * p
        m += (1 - beta1) * (g - m)
        v = beta2 * v + (1 - beta2) * g * g
        p -= lr / correction1 * m / (tl.sqrt(v / correction2) + epsilon)
    else:
        m += (1 - beta1) * (g - m)
        if not VECTOR:
            p *= 1 - lr * decay
        p -= lr * m
    return p, m, v


@triton.jit
def wgrad_step_kernel(
    hp, h, w, cr, weight, bias, mw, vw, mb, vb, numbers, N, K, M, hp_n, hp_k, h_n, h_m,
    RULE: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    pid_k, pid_m = tl.program_id(0), tl.program_id(1)
    k = pid_k * BLOCK_K + tl.arange(0, BLOCK_K)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    acc = tl.zeros((BLOCK_K, BLOCK_M), tl.float32)
    slope = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        n64 = n.to(tl.int64)
        left = tl.load(hp + n64[None, :] * hp_n + k[:, None] * hp_k, (n[None, :] < N) & (k[:, None] < K), other=0.0)
        d = tl.load(h + n64[:, None] * h_n + m[None, :] * h_m, (n[:, None] < N) & (m[None, :] < M), other=0.0)
        d = d.to(tl.float32)
        slope += tl.sum(d * tl.load(cr + n, n < N, other=0.0).to(tl.float32)[:, None], 0)
        right = (d * tl.load(w + n, n < N, other=0.0).to(tl.float32)[:, None]).to(hp.dtype.element_ty)
        if WIDE:
            left, right = left.to(tl.float32), right.to(tl.float32)
        acc = tl.dot(left, right, acc, input_precision=PRECISION)
    inside = (k[:, None] < K) & (m[None, :] < M)
    place = k[:, None].to(tl.int64) * M + m[None, :]
    p, first, second = apply(
        tl.load(weight + place, inside, other=0.0), acc, tl.load(mw + place, inside, other=0.0),
        tl.load(vw + place, inside, other=0.0), numbers, False, RULE,
    )  # fmt: skip
    tl.store(weight + place, p, inside)
    tl.store(mw + place, first, inside)
    if RULE == "adam":
        tl.store(vw + place, second, inside)
    if pid_k == 0:
        b, first_b, second_b = apply(
            tl.load(bias + m, m < M, other=0.0), slope, tl.load(mb + m, m < M, other=0.0),
            tl.load(vb + m, m < M, other=0.0), numbers, True, RULE,
        )  # fmt: skip
        tl.store(bias + m, b, m < M)
        tl.store(mb + m, first_b, m < M)
        if RULE == "adam":
            tl.store(vb + m, second_b, m < M)


@torch.library.custom_op(
    "forward_forward::ff_wgrad_step_",
    mutates_args=("weight", "bias", "m_weight", "v_weight", "m_bias", "v_bias"),
)
def wgrad_step_op(
    h_prev: Tensor, h: Tensor, w: Tensor, cr: Tensor,
    weight: Tensor, bias: Tensor, m_weight: Tensor, v_weight: Tensor, m_bias: Tensor, v_bias: Tensor,
    numbers: Tensor, rule: str,
) -> None:  # fmt: skip
    state = (weight, bias, m_weight, v_weight, m_bias, v_bias)
    if any(x.dtype is not torch.float32 or not x.is_contiguous() for x in state):
        raise ValueError("weights and moments have to be float32 and contiguous: they are updated where they lie")
    (n, k), m = h_prev.shape, h.shape[1]
    t = tile(h, 1, 1, inner="BLOCK_N")  # the small tile for any size: weights and moments of a large one would spill
    grid = (max(1, triton.cdiv(k, t["BLOCK_K"])), max(1, triton.cdiv(m, t["BLOCK_M"])))
    with torch.cuda.device_of(h):
        wgrad_step_kernel[grid](
            h_prev, h, w.contiguous(), cr.contiguous(), *state, numbers.float().contiguous(), n, k, m,
            *h_prev.stride(), *h.stride(), RULE=rule, **t,
        )  # fmt: skip


@wgrad_step_op.register_fake
def _(h_prev, h, w, cr, weight, bias, m_weight, v_weight, m_bias, v_bias, numbers, rule) -> None:
    return None


def ff_wgrad_step_(h_prev: Tensor, h: Tensor, w: Tensor, cr: Tensor, *rest: object) -> None:
    weight, bias, m_weight, v_weight, m_bias, v_bias, numbers, rule = rest
    wgrad_step_op(h_prev, h, w, cr, weight, bias, m_weight, v_weight, m_bias, v_bias, numbers, rule)


POINTERS = {
    "hp": "data", "h": "data", "w": "*fp32", "cr": "*fp32", "weight": "*fp32", "bias": "*fp32", "mw": "*fp32",
    "vw": "*fp32", "mb": "*fp32", "vb": "*fp32", "numbers": "*fp32",
}  # fmt: skip
NUMBERS = ("N", "K", "M", "hp_n", "hp_k", "h_n", "h_m")
AOT = [
    build
    for rule in ("adam", "smoothed")
    for build in variants(wgrad_step_kernel, POINTERS, NUMBERS, ("hp_k", "h_m"), "BLOCK_N", {"RULE": rule})
    if "large" not in build.variant
]
