"""Attention to nearest clusters in Triton: a program for a tile of 16 tokens of one head, then one for a few clusters.

A tile walks through the clusters that any of its tokens attends to (`tiles.unions`), multiplies densely, and masks for
each token the clusters that are not its own. The softmax is taken on the way, and starts from the blank token:
maximum q.blank_k, sum 1, result blank_v. Backwards the weights are computed again from the logarithms of the sums; keys
and values get their gradients from the tiles that use them, found by an inverse list. No atomics: two calls agree bit
for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from shared.kernels.backend import BACKEND, input_precision
from torch import Tensor

from .tiles import TILE, inverse, unions

KEYS = 64  # keys that a tile of tokens meets at a time
QUERY_KEYS = 32  # the same backwards, where more has to be in registers
FORWARD = {"num_warps": 4, "num_stages": 2}
BACKWARD = {"num_warps": 4, "num_stages": 1}
PARAMETERS = 8  # sums of the gradients by position weights and bias, 6 of them used
NONE: tl.constexpr = tl.constexpr(float("-inf"))


@triton.jit
def bias_of(dx, dy, w, head):
    """`W phi + b` of offsets (dx, dy), and 1 / d (0 where d is 0) and d."""
    d = tl.sqrt(dx * dx + dy * dy)
    inv = tl.where(d > 0, 1.0 / tl.where(d > 0, d, 1.0), 0.0)
    w += head * 6
    bias = tl.load(w) * dx + tl.load(w + 1) * dy + tl.load(w + 2) * d
    bias += (tl.load(w + 3) * dy + tl.load(w + 4) * dx) * inv + tl.load(w + 5)
    return bias, d, inv


@triton.jit
def keys_of(union, s, count, n, SIZE: tl.constexpr, GLOBAL: tl.constexpr):
    """`(cluster, row, real)` of places s among the members of a tile's clusters."""
    if GLOBAL:
        cluster = s // SIZE
        row = s
        real = s < n
    else:
        cluster = tl.load(union + s // SIZE, s < count * SIZE, other=-1)
        row = cluster * SIZE + s % SIZE
        real = (s < count * SIZE) & (row < n)
    return cluster, tl.where(real, row, 0), real


@triton.jit
def own_clusters(near, token, inside, cluster, NNC: tl.constexpr):
    """Which of the clusters [keys] each token [tokens] has on its list: [tokens, keys]."""
    first = tl.load(near + token * NNC, inside, other=-2)
    own = first[:, None] == cluster[None, :]
    for j in tl.static_range(1, NNC):
        other = tl.load(near + token * NNC + j, inside, other=-2)
        own |= other[:, None] == cluster[None, :]
    return own


@triton.jit
def forward_kernel(
    q, k, v, at, near, union, count, w, blank_k, blank_v, out, lse,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, n, tiles, H, W,
    E: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr, NNC: tl.constexpr, UNION: tl.constexpr,
    GLOBAL: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    tile, image, head = tl.program_id(0), tl.program_id(1) // H, tl.program_id(1) % H
    token, e = tile * TILE + tl.arange(0, TILE), tl.arange(0, WIDE)
    inside, there = token < n, e < E
    at += image.to(tl.int64) * n * 2
    q += image.to(tl.int64) * q_b + head.to(tl.int64) * q_h
    k += image.to(tl.int64) * k_b + head.to(tl.int64) * k_h
    v += image.to(tl.int64) * v_b + head.to(tl.int64) * v_h
    query = tl.load(q + token[:, None] * q_n + e[None, :], inside[:, None] & there[None, :], other=0.0)
    x, y = tl.load(at + token * 2, inside, other=0), tl.load(at + token * 2 + 1, inside, other=0)
    if GLOBAL:
        ends = n
        number = 0
    else:
        near += image.to(tl.int64) * n * NNC
        union += (image.to(tl.int64) * tiles + tile) * UNION
        number = tl.load(count + image * tiles + tile)
        ends = number * SIZE
    bk = tl.load(blank_k + head * E + e, there, other=0.0).to(tl.float32)
    bv = tl.load(blank_v + head * E + e, there, other=0.0).to(tl.float32)
    top = tl.sum(query.to(tl.float32) * bk[None, :], 1)  # the blank comes first
    total = tl.full((TILE,), 1.0, tl.float32)
    result = tl.zeros((TILE, WIDE), tl.float32) + bv[None, :]
    for start in range(0, ends, KEYS):
        s = start + tl.arange(0, KEYS)
        cluster, row, real = keys_of(union, s, number, n, SIZE, GLOBAL)
        key = tl.load(k + row[None, :] * k_n + e[:, None], real[None, :] & there[:, None], other=0.0)
        dx = (tl.load(at + row * 2, real, other=0)[None, :] - x[:, None]).to(tl.float32)
        dy = (tl.load(at + row * 2 + 1, real, other=0)[None, :] - y[:, None]).to(tl.float32)
        bias, _, _ = bias_of(dx, dy, w, head)
        logits = tl.dot(query, key, input_precision=PRECISION) + bias
        if GLOBAL:
            seen = real[None, :] & inside[:, None]
        else:
            seen = real[None, :] & own_clusters(near, token, inside, cluster, NNC)
        logits = tl.where(seen, logits, NONE)
        higher = tl.maximum(top, tl.max(logits, 1))
        share = tl.exp(logits - higher[:, None])
        old = tl.exp(top - higher)
        total = total * old + tl.sum(share, 1)
        value = tl.load(v + row[:, None] * v_n + e[None, :], real[:, None] & there[None, :], other=0.0)
        result = result * old[:, None] + tl.dot(share.to(value.dtype), value, input_precision=PRECISION)
        top = higher
    place = (image.to(tl.int64) * H + head) * n + token
    result = result / total[:, None]
    tl.store(out + place[:, None] * E + e[None, :], result.to(out.dtype.element_ty), inside[:, None] & there[None, :])
    tl.store(lse + place, top + tl.log(total), inside)


@triton.jit
def query_kernel(
    q, k, v, at, near, union, count, w, blank_k, blank_v, out, lse, grad, dq, delta, by_w, by_blank_k, by_blank_v,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, n, tiles, H, W,
    E: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr, NNC: tl.constexpr, UNION: tl.constexpr,
    GLOBAL: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile's queries; its part of those of the position weights and of the blank token."""
    tile, image, head = tl.program_id(0), tl.program_id(1) // H, tl.program_id(1) % H
    token, e = tile * TILE + tl.arange(0, TILE), tl.arange(0, WIDE)
    inside, there = token < n, e < E
    both = inside[:, None] & there[None, :]
    at += image.to(tl.int64) * n * 2
    q += image.to(tl.int64) * q_b + head.to(tl.int64) * q_h
    k += image.to(tl.int64) * k_b + head.to(tl.int64) * k_h
    v += image.to(tl.int64) * v_b + head.to(tl.int64) * v_h
    place = (image.to(tl.int64) * H + head) * n + token
    query = tl.load(q + token[:, None] * q_n + e[None, :], both, other=0.0)
    upstream = tl.load(grad + place[:, None] * E + e[None, :], both, other=0.0)
    ours = tl.load(out + place[:, None] * E + e[None, :], both, other=0.0)
    x, y = tl.load(at + token * 2, inside, other=0), tl.load(at + token * 2 + 1, inside, other=0)
    logarithm = tl.load(lse + place, inside, other=float("inf"))
    mean = tl.sum(upstream.to(tl.float32) * ours.to(tl.float32), 1)
    bk = tl.load(blank_k + head * E + e, there, other=0.0).to(tl.float32)
    bv = tl.load(blank_v + head * E + e, there, other=0.0).to(tl.float32)
    wide_query, wide_upstream = query.to(tl.float32), upstream.to(tl.float32)
    share_blank = tl.exp(tl.sum(wide_query * bk[None, :], 1) - logarithm)
    by_blank = share_blank * (tl.sum(wide_upstream * bv[None, :], 1) - mean)
    by_query = tl.zeros((TILE, WIDE), tl.float32)
    w0 = tl.zeros((TILE,), tl.float32)
    w1, w2, w3, w4, w5 = w0, w0, w0, w0, w0
    if GLOBAL:
        ends = n
        number = 0
    else:
        near += image.to(tl.int64) * n * NNC
        union += (image.to(tl.int64) * tiles + tile) * UNION
        number = tl.load(count + image * tiles + tile)
        ends = number * SIZE
    for start in range(0, ends, KEYS):
        s = start + tl.arange(0, KEYS)
        cluster, row, real = keys_of(union, s, number, n, SIZE, GLOBAL)
        key = tl.load(k + row[:, None] * k_n + e[None, :], real[:, None] & there[None, :], other=0.0)
        dx = (tl.load(at + row * 2, real, other=0)[None, :] - x[:, None]).to(tl.float32)
        dy = (tl.load(at + row * 2 + 1, real, other=0)[None, :] - y[:, None]).to(tl.float32)
        bias, d, inv = bias_of(dx, dy, w, head)
        logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) + bias
        if GLOBAL:
            seen = real[None, :] & inside[:, None]
        else:
            seen = real[None, :] & own_clusters(near, token, inside, cluster, NNC)
        share = tl.where(seen, tl.exp(tl.where(seen, logits, 0.0) - logarithm[:, None]), 0.0)
        value = tl.load(v + row[None, :] * v_n + e[:, None], real[None, :] & there[:, None], other=0.0)
        by_logits = share * (tl.dot(upstream, value, input_precision=PRECISION) - mean[:, None])
        by_query += tl.dot(by_logits.to(key.dtype), key, input_precision=PRECISION)
        scaled = by_logits * inv
        w0 += tl.sum(by_logits * dx, 1)
        w1 += tl.sum(by_logits * dy, 1)
        w2 += tl.sum(by_logits * d, 1)
        w3 += tl.sum(scaled * dy, 1)
        w4 += tl.sum(scaled * dx, 1)
        w5 += tl.sum(by_logits, 1)
    # A token's gradients by its logits add up to 0. What is left comes from `out` in 16 bits: it corrects <a, da>.
    left = w5 + by_blank
    by_blank -= share_blank * left
    tl.store(delta + place, mean + left, inside)
    by_query += by_blank[:, None] * bk[None, :]
    tl.store(dq + place[:, None] * E + e[None, :], by_query.to(dq.dtype.element_ty), both)
    program = (image.to(tl.int64) * H + head) * tiles + tile
    tl.store(by_w + program * W, tl.sum(w0, 0))
    tl.store(by_w + program * W + 1, tl.sum(w1, 0))
    tl.store(by_w + program * W + 2, tl.sum(w2, 0))
    tl.store(by_w + program * W + 3, tl.sum(w3, 0))
    tl.store(by_w + program * W + 4, tl.sum(w4, 0))
    tl.store(by_w + program * W + 5, -tl.sum(by_blank, 0))
    tl.store(by_blank_k + program * E + e, tl.sum(by_blank[:, None] * wide_query, 0), there)
    tl.store(by_blank_v + program * E + e, tl.sum(share_blank[:, None] * wide_upstream, 0), there)


@triton.jit
def key_kernel(
    q, k, v, at, near, users, starts, w, lse, grad, delta, dk, dv,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, n, tiles, groups, H,
    E: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr, NNC: tl.constexpr, GROUP: tl.constexpr,
    GLOBAL: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Gradients of the keys and values of `GROUP` tokens (some whole clusters), from the tiles that use them."""
    group, image, head = tl.program_id(0), tl.program_id(1) // H, tl.program_id(1) % H
    slot, e = tl.arange(0, KEYS), tl.arange(0, WIDE)
    row, there = group * GROUP + slot, e < E
    real = (slot < GROUP) & (row < n)
    both = real[:, None] & there[None, :]
    at += image.to(tl.int64) * n * 2
    q += image.to(tl.int64) * q_b + head.to(tl.int64) * q_h
    k += image.to(tl.int64) * k_b + head.to(tl.int64) * k_h
    v += image.to(tl.int64) * v_b + head.to(tl.int64) * v_h
    base = (image.to(tl.int64) * H + head) * n
    cluster = tl.where(real, row // SIZE, -1)
    key = tl.load(k + row[:, None] * k_n + e[None, :], both, other=0.0)
    value = tl.load(v + row[:, None] * v_n + e[None, :], both, other=0.0)
    x, y = tl.load(at + row * 2, real, other=0), tl.load(at + row * 2 + 1, real, other=0)
    by_key, by_value = tl.zeros((KEYS, WIDE), tl.float32), tl.zeros((KEYS, WIDE), tl.float32)
    if GLOBAL:
        first = 0
        last = tiles
    else:
        near += image.to(tl.int64) * n * NNC
        first = tl.load(starts + image * groups + group)
        last = tl.load(starts + image * groups + group + 1)
    for j in range(first, last):
        if GLOBAL:  # noqa: SIM108
            tile = j
        else:
            tile = tl.load(users + j)
        token = tile * TILE + tl.arange(0, TILE)
        inside = token < n
        here = inside[:, None] & there[None, :]
        query = tl.load(q + token[:, None] * q_n + e[None, :], here, other=0.0)
        upstream = tl.load(grad + (base + token)[:, None] * E + e[None, :], here, other=0.0)
        logarithm = tl.load(lse + base + token, inside, other=0.0)
        mean = tl.load(delta + base + token, inside, other=0.0)
        dx = (x[None, :] - tl.load(at + token * 2, inside, other=0)[:, None]).to(tl.float32)
        dy = (y[None, :] - tl.load(at + token * 2 + 1, inside, other=0)[:, None]).to(tl.float32)
        bias, _, _ = bias_of(dx, dy, w, head)
        logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) + bias
        if GLOBAL:
            seen = real[None, :] & inside[:, None]
        else:
            seen = real[None, :] & own_clusters(near, token, inside, cluster, NNC)
        share = tl.where(seen, tl.exp(tl.where(seen, logits, 0.0) - logarithm[:, None]), 0.0)
        by_value += tl.dot(tl.trans(share).to(upstream.dtype), upstream, input_precision=PRECISION)
        by_share = tl.dot(upstream, tl.trans(value), input_precision=PRECISION)
        by_logits = share * (by_share - mean[:, None])
        by_key += tl.dot(tl.trans(by_logits).to(query.dtype), query, input_precision=PRECISION)
    place = (base + row)[:, None] * E + e[None, :]
    tl.store(dk + place, by_key.to(dk.dtype.element_ty), both)
    tl.store(dv + place, by_value.to(dv.dtype.element_ty), both)


def constants(width: int, size: int, nnc: int) -> dict[str, Any]:
    """Compile-time constants of all three kernels; `nnc` 0: global."""
    return {
        "E": width,
        "WIDE": max(16, triton.next_power_of_2(width)),
        "SIZE": size,
        "NNC": nnc,
        "GLOBAL": nnc == 0,
        "TILE": TILE,
    }


def group_of(size: int) -> int:
    """Tokens of the whole clusters that one program of `key_kernel` serves: 16 at least, for the tensor cores."""
    return size * max(1, 16 // size)


def key_constants(size: int) -> dict[str, Any]:
    """Constants of `key_kernel` alone."""
    group = group_of(size)
    return {"GROUP": group, "KEYS": max(16, triton.next_power_of_2(group))}


def launch_of(kernel: Any, size: int) -> dict[str, int]:
    """Warps and stages: more warps where 4 would run out of registers."""
    if kernel is forward_kernel:
        return FORWARD
    return {**BACKWARD, "num_warps": 8} if kernel is key_kernel and group_of(size) > 16 else BACKWARD


def rowwise(x: Tensor) -> Tensor:
    """The kernels take any strides but need the entries of a row next to each other."""
    # The interpreter multiplies bfloat16 as the integers that hold it; widening changes no product.
    if BACKEND == "interpret" and x.dtype is torch.bfloat16:
        x = x.float()
    return x if x.stride(-1) == 1 else x.contiguous()


class Operands:
    """What the launches have in common."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor,
        pos_bias: Tensor, size: int,
    ) -> None:  # fmt: skip
        batch, self.heads, n, self.width = q.shape
        self.q, self.k, self.v = (rowwise(x) for x in (q, k, v))
        self.at = positions.to(torch.int32).contiguous()
        self.near = self.union = self.count = None
        self.tiles = triton.cdiv(n, TILE)
        nnc = 0 if near is None else near.shape[2]
        if near is not None:
            self.near = near.to(torch.int32).contiguous()
            union, count = unions(near)
            self.union, self.count = union.to(torch.int32), count.to(torch.int32)
        self.w = torch.cat([pos_weight, pos_bias[:, None]], 1).float().contiguous()
        self.grid = (self.tiles, batch * self.heads)
        self.strides = [s for x in (self.q, self.k, self.v) for s in x.stride()[:3]]
        self.constants = {**constants(self.width, size, nnc), "PRECISION": input_precision()}
        self.places = nnc * TILE


def launch_forward(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor,
    blank_k: Tensor, blank_v: Tensor, size: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`(out, l)`."""
    x = Operands(q, k, v, positions, near, pos_weight, pos_bias, size)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q):
        forward_kernel[x.grid](
            x.q, x.k, x.v, x.at, x.near, x.union, x.count, x.w, blank_k.contiguous(), blank_v.contiguous(), out, lse,
            *x.strides, q.shape[2], x.tiles, x.heads, PARAMETERS, **x.constants, UNION=x.places, KEYS=KEYS, **FORWARD,
        )  # fmt: skip
    return out, lse


def launch_backward(
    grad: Tensor, out: Tensor, logarithm: Tensor, q: Tensor, k: Tensor, v: Tensor, positions: Tensor,
    near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor, blank_k: Tensor, blank_v: Tensor, size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients by q, k, v, pos_weight, pos_bias, blank_k, blank_v."""
    batch, heads, n, width = q.shape
    x = Operands(q, k, v, positions, near, pos_weight, pos_bias, size)
    grad, out = rowwise(grad.to(q.dtype).contiguous()), out.contiguous()
    dq, dk, dv = (torch.empty(q.shape, dtype=t.dtype, device=q.device) for t in (q, k, v))
    delta = torch.empty_like(logarithm)
    programs = (batch, heads, x.tiles)
    by_w = torch.empty(*programs, PARAMETERS, device=q.device)
    by_blank_k, by_blank_v = (torch.empty(*programs, width, device=q.device) for _ in range(2))
    group = group_of(size)
    groups = triton.cdiv(n, group)
    users = starts = None
    if x.union is not None:
        users, starts = inverse(x.union, group // size, groups)
    with torch.cuda.device_of(q):
        query_kernel[x.grid](
            x.q, x.k, x.v, x.at, x.near, x.union, x.count, x.w, blank_k.contiguous(), blank_v.contiguous(), out,
            logarithm, grad, dq, delta, by_w, by_blank_k, by_blank_v, *x.strides, n, x.tiles, heads, PARAMETERS,
            **x.constants, UNION=x.places, KEYS=QUERY_KEYS, **launch_of(query_kernel, size),
        )  # fmt: skip
        key_kernel[(groups, batch * heads)](
            x.q, x.k, x.v, x.at, x.near, users, starts, x.w, logarithm, grad, delta, dk, dv, *x.strides, n, x.tiles,
            groups, heads, **x.constants, **key_constants(size), **launch_of(key_kernel, size),
        )  # fmt: skip
    w = by_w.sum((0, 2))
    small = (w[:, :5], w[:, 5], by_blank_k.sum((0, 2)), by_blank_v.sum((0, 2)))
    like = (pos_weight, pos_bias, blank_k, blank_v)
    by_small = [s.to(t.dtype, copy=True, memory_format=torch.contiguous_format) for s, t in zip(small, like)]
    return dq, dk, dv, by_small[0], by_small[1], by_small[2], by_small[3]


# Head widths, cluster sizes and numbers of clusters of all variants: Mini, Tiny, Small and Base (its 384-px form has
# clusters of 24), Nano, and Mini in windows of 48; 0 neighbours: a global stage.
SHAPES = [
    (16, 8, 6), (24, 8, 6), (32, 8, 6), (32, 24, 6), (8, 8, 3), (16, 8, 3), (24, 8, 0), (32, 8, 0), (16, 8, 0),
    (32, 24, 0), (16, 48, 1), (32, 48, 1), (24, 48, 1),
]  # fmt: skip
ARITHMETIC = (("fp32", "ieee"), ("fp32", "tf32"), ("bf16", "ieee"), ("fp16", "ieee"))
STRIDES = tuple(f"{x}_{axis}" for x in "qkv" for axis in "bhn")


def build(kernel: Any, shape: tuple[int, int, int], dtype: str, precision: str) -> Build:
    width, size, nnc = shape
    floats = dict.fromkeys(("w", "lse", "delta", "by_w", "by_blank_k", "by_blank_v"), "*fp32")
    ints = dict.fromkeys(("at", "near", "union", "count", "users", "starts"), "*i32")
    data = dict.fromkeys(("q", "k", "v", "blank_k", "blank_v", "out", "grad", "dq", "dk", "dv"), "data")
    absent = ("near", "union", "count", "users", "starts") if nnc == 0 else ()
    pointers = {p: t for p, t in (data | floats | ints).items() if p in kernel.arg_names and p not in absent}
    own = {"UNION": nnc * TILE, "KEYS": KEYS if kernel is forward_kernel else QUERY_KEYS}
    if kernel is key_kernel:
        own = key_constants(size)
    numbers = [x for x in (*STRIDES, "n", "tiles", "groups", "H", "W") if x in kernel.arg_names]
    where = "global" if nnc == 0 else f"{nnc} clusters of {size}"
    return variant(
        kernel,
        f"{dtype} {precision}, width {width}, {where}",
        dtype=dtype,
        pointers=pointers,
        numbers=tuple(numbers),
        constants={**constants(width, size, nnc), "PRECISION": precision, **own}
        | {p: None for p in absent if p in kernel.arg_names},
        launch=launch_of(kernel, size),
        aligned=False,
    )


AOT = [
    build(kernel, shape, dtype, precision)
    for kernel in (forward_kernel, query_kernel, key_kernel)
    for shape in SHAPES
    for dtype, precision in ARITHMETIC
    if (dtype, precision) == ("fp32", "ieee") or shape == (32, 8, 6)
]
