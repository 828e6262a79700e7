"""Spectral normalisation in Triton: all layers of a network in each launch.

A program finds its layer by its number in a table of first programs, and the layer's weights by their address in
another. Neither table changes in training: weights stay where they are, and a result's memory mostly comes back to
where it was, so tables are kept on the device. A new one is a copy of 400 bytes from the host, which cannot be recorded
in a CUDA graph. Sums over programs go through memory and are added by each reader in the same order: no atomics, two
calls agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

from .layers import accumulator

# Rows of the table of layers. Programs of a launch: the layer's first in each of the four ways to cut it.
ROWS, COLUMNS, ROW0, COLUMN0, PART0 = (tl.constexpr(i) for i in range(5))
BY_COLUMNS, BY_ROWS, BY_ENTRIES, BY_SPANS = (tl.constexpr(i) for i in range(5, 9))
SUMMED = tl.constexpr(256)  # entries at a time of the sums that every program makes for itself
NEVER = 2**62  # first program of a layer that there is not

SPLIT = 512  # rows of a program that sums columns: a tall matrix has several, and one sum of each
LEFT = {"SPLIT": SPLIT, "BLOCK_R": 32, "BLOCK_C": 64, "num_warps": 4, "num_stages": 3}
RIGHT = {"SPLIT": SPLIT, "BLOCK_R": 8, "BLOCK_C": 256, "num_warps": 4, "num_stages": 3}
SCALE = {"SPLIT": SPLIT, "BLOCK": 4096, "num_warps": 8, "num_stages": 1}
DOT = {"SPAN": 16384, "BLOCK": 2048, "num_warps": 8, "num_stages": 1}
GRADIENT = {"SPAN": 16384, "BLOCK": 4096, "num_warps": 8, "num_stages": 1}
DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@triton.jit
def field(table, name, layer, LAYERS: tl.constexpr):
    return tl.load(table + name * LAYERS + layer)


@triton.jit
def find(table, way, LAYERS: tl.constexpr):
    """`(layer, number among its programs)` of this program."""
    pid = tl.program_id(0)
    first = tl.load(table + way * LAYERS + tl.arange(0, LAYERS))
    layer = tl.sum((first <= pid).to(tl.int32), 0) - 1
    return layer, pid - tl.load(table + way * LAYERS + layer).to(tl.int32)


@triton.jit
def address(addresses, which: tl.constexpr, layer, LAYERS: tl.constexpr, DTYPE: tl.constexpr):
    return tl.load(addresses + which * LAYERS + layer).to(tl.pointer_type(DTYPE))


@triton.jit
def right_vector(parts, columns, at, SPLITS, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """u W at the columns `at`: the sum of the splits."""
    total = tl.zeros((BLOCK,), WIDE)
    for split in range(0, SPLITS):
        total += tl.load(parts + split * columns + at, at < columns, other=0.0)
    return total


@triton.jit
def left_kernel(
    addresses, table, parts, LAYERS: tl.constexpr, DTYPE: tl.constexpr, U_DTYPE: tl.constexpr, WIDE: tl.constexpr,
    SPLIT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """u W of `BLOCK_C` columns, summed over `SPLIT` rows, to parts[split, columns] of the layer."""
    layer, local = find(table, BY_COLUMNS, LAYERS)
    w = address(addresses, 0, layer, LAYERS, DTYPE)
    u = address(addresses, 1, layer, LAYERS, U_DTYPE)
    rows, columns = field(table, ROWS, layer, LAYERS).to(tl.int32), field(table, COLUMNS, layer, LAYERS).to(tl.int32)
    across = tl.cdiv(columns, BLOCK_C)
    split = local // across
    c = (local % across) * BLOCK_C + tl.arange(0, BLOCK_C)
    last = tl.minimum((split + 1) * SPLIT, rows)
    total = tl.zeros((BLOCK_R, BLOCK_C), WIDE)
    for start in range(split * SPLIT, last, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        inside = (r < last)[:, None] & (c < columns)[None, :]
        tile = tl.load(w + r[:, None] * columns + c[None, :], inside, other=0.0).to(WIDE)
        total += tl.load(u + r, r < last, other=0.0).to(WIDE)[:, None] * tile
    tl.store(parts + field(table, PART0, layer, LAYERS) + split * columns + c, tl.sum(total, 0), c < columns)


@triton.jit
def right_kernel(
    addresses, table, parts, norms, lefts, eps, LAYERS: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr,
    SPLIT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """v W^T of `BLOCK_R` rows to `lefts`, and the norm that v is divided by to `norms`; every program sums it."""
    layer, local = find(table, BY_ROWS, LAYERS)
    w = address(addresses, 0, layer, LAYERS, DTYPE)
    rows, columns = field(table, ROWS, layer, LAYERS).to(tl.int32), field(table, COLUMNS, layer, LAYERS).to(tl.int32)
    parts += field(table, PART0, layer, LAYERS)
    splits = tl.cdiv(rows, SPLIT)
    r = local * BLOCK_R + tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_R, BLOCK_C), WIDE)
    squares = tl.zeros((BLOCK_C,), WIDE)
    for start in range(0, columns, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        v = right_vector(parts, columns, c, splits, WIDE, BLOCK_C)
        inside = (r < rows)[:, None] & (c < columns)[None, :]
        total += tl.load(w + r[:, None] * columns + c[None, :], inside, other=0.0).to(WIDE) * v[None, :]
        squares += v * v
    norm = tl.maximum(tl.sqrt(tl.sum(squares, 0)), eps)
    tl.store(lefts + field(table, ROW0, layer, LAYERS) + r, tl.sum(total, 1) / norm, r < rows)
    tl.store(norms + layer, norm, local == 0)


@triton.jit
def scale_kernel(
    addresses, table, parts, norms, lefts, sigma, u, v, eps, LAYERS: tl.constexpr, DTYPE: tl.constexpr,
    WIDE: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`BLOCK` entries of W / sigma; sigma from v W^T, by every program; the same stretch of u and of v, if any."""
    layer, local = find(table, BY_ENTRIES, LAYERS)
    w = address(addresses, 0, layer, LAYERS, DTYPE)
    out = address(addresses, 2, layer, LAYERS, DTYPE)
    rows, columns = field(table, ROWS, layer, LAYERS).to(tl.int32), field(table, COLUMNS, layer, LAYERS).to(tl.int32)
    row0, column0 = field(table, ROW0, layer, LAYERS), field(table, COLUMN0, layer, LAYERS)
    lefts += row0
    squares = tl.zeros((SUMMED,), WIDE)
    for start in range(0, rows, SUMMED):
        r = start + tl.arange(0, SUMMED)
        left = tl.load(lefts + r, r < rows, other=0.0)
        squares += left * left
    total = tl.sum(squares, 0)
    norm = tl.maximum(tl.sqrt(total), eps)
    value = total / norm  # v W^T u^T with u = v W^T / norm
    k = local * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + k, (tl.load(w + k, k < rows * columns, other=0.0).to(WIDE) / value).to(DTYPE), k < rows * columns)
    tl.store(sigma + layer, value, local == 0)
    tl.store(u + row0 + k, tl.load(lefts + k, k < rows, other=0.0) / norm, k < rows)
    if local * BLOCK < columns:
        parts += field(table, PART0, layer, LAYERS)
        right = right_vector(parts, columns, k, tl.cdiv(rows, SPLIT), WIDE, BLOCK)
        tl.store(v + column0 + k, right / tl.load(norms + layer), k < columns)


@triton.jit
def dot_kernel(
    addresses, table, dots, LAYERS: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr,
    SPAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """<g, W> of `SPAN` entries of a layer."""
    layer, local = find(table, BY_SPANS, LAYERS)
    w = address(addresses, 0, layer, LAYERS, DTYPE)
    g = address(addresses, 1, layer, LAYERS, DTYPE)
    size = (field(table, ROWS, layer, LAYERS) * field(table, COLUMNS, layer, LAYERS)).to(tl.int32)
    total = tl.zeros((BLOCK,), WIDE)
    for start in range(0, SPAN, BLOCK):
        k = local * SPAN + start + tl.arange(0, BLOCK)
        left = tl.load(g + k, k < size, other=0.0).to(WIDE)
        total += left * tl.load(w + k, k < size, other=0.0).to(WIDE)
    tl.store(dots + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def gradient_kernel(
    addresses, table, dots, dsigma, sigma, u, v, LAYERS: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr,
    SPAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`BLOCK` entries of g / sigma - (<g, W> / sigma^2 - dsigma) u v^T."""
    layer, local = find(table, BY_ENTRIES, LAYERS)
    g = address(addresses, 1, layer, LAYERS, DTYPE)
    out = address(addresses, 2, layer, LAYERS, DTYPE)
    rows, columns = field(table, ROWS, layer, LAYERS).to(tl.int32), field(table, COLUMNS, layer, LAYERS).to(tl.int32)
    size = rows * columns
    dots += field(table, BY_SPANS, layer, LAYERS)
    spans = tl.cdiv(size, SPAN)
    total = tl.zeros((SUMMED,), WIDE)
    for start in range(0, spans, SUMMED):
        i = start + tl.arange(0, SUMMED)
        total += tl.load(dots + i, i < spans, other=0.0)
    value = tl.load(sigma + layer)
    along = tl.sum(total, 0) / (value * value) - tl.load(dsigma + layer).to(WIDE)
    k = local * BLOCK + tl.arange(0, BLOCK)
    row = k // columns
    left = tl.load(u + field(table, ROW0, layer, LAYERS) + row, k < size, other=0.0)
    right = tl.load(v + field(table, COLUMN0, layer, LAYERS) + k - row * columns, k < size, other=0.0)
    grad = tl.load(g + k, k < size, other=0.0).to(WIDE)
    tl.store(out + k, (grad / value - along * left * right).to(DTYPE), k < size)


class Layout:
    """The table of layers of these shapes on a device, and how many programs each launch has."""

    def __init__(self, shapes: tuple[tuple[int, int], ...], device: torch.device) -> None:
        self.layers = triton.next_power_of_2(len(shapes))
        splits = [triton.cdiv(r, SPLIT) for r, _ in shapes]
        sizes = [
            [r for r, _ in shapes],
            [c for _, c in shapes],
            [s * c for s, (_, c) in zip(splits, shapes)],
            [s * triton.cdiv(c, LEFT["BLOCK_C"]) for s, (_, c) in zip(splits, shapes)],
            [triton.cdiv(r, RIGHT["BLOCK_R"]) for r, _ in shapes],
            [triton.cdiv(r * c, SCALE["BLOCK"]) for r, c in shapes],
            [triton.cdiv(r * c, DOT["SPAN"]) for r, c in shapes],
        ]
        first = [[sum(each[:i]) for i in range(len(shapes))] for each in sizes]
        self.rows, self.columns, self.parts, self.by_columns, self.by_rows, self.by_entries, self.by_spans = map(
            sum, sizes
        )
        pad = [NEVER] * (self.layers - len(shapes))
        self.table = torch.tensor([row + pad for row in (*sizes[:2], *first)], dtype=torch.int64, device=device)


@lru_cache
def layout(shapes: tuple[tuple[int, int], ...], device: torch.device, stream: int) -> Layout:
    """Kept for each stream: a copy to the device is in order on its own only."""
    return Layout(shapes, device)


@lru_cache(maxsize=256)
def addresses(places: tuple[tuple[int, ...], ...], device: torch.device, stream: int) -> Tensor:
    """Table of addresses [3, layers]."""
    width = triton.next_power_of_2(len(places[0]))
    return torch.tensor([row + (0,) * (width - len(row)) for row in places], dtype=torch.int64, device=device)


def stream_of(x: Tensor) -> int:
    return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0


def tables(*operands: Sequence[Tensor]) -> tuple[Tensor, Layout, dict[str, Any]]:
    """`(addresses, layout, constants)` of lists of tensors, the first of them weights."""
    weights = operands[0]
    first, stream = weights[0], stream_of(weights[0])
    plan = layout(tuple((len(w), w.numel() // len(w)) for w in weights), first.device, stream)
    places = tuple(tuple(x.data_ptr() for x in each) for each in operands)
    fixed = {"LAYERS": plan.layers, "DTYPE": DTYPES[first.dtype], "WIDE": DTYPES[accumulator(first.dtype)]}
    return addresses(places, first.device, stream), plan, fixed


def launch_spectral_norm(
    weights: Sequence[Tensor], us: Sequence[Tensor], eps: float
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """`(W / sigma, sigma, u, v)` for weights of one dtype, none of them empty.

    Raises:
        ValueError: a u that is not as long as its layer has outputs.
    """
    for i, (w, u) in enumerate(zip(weights, us, strict=True)):
        if u.numel() != len(w):
            raise ValueError(f"layer {i} has {len(w)} outputs and a u of shape {tuple(u.shape)}")
    weights, us = [w.contiguous() for w in weights], [u.to(us[0]).contiguous() for u in us]
    out = [torch.empty(w.shape, dtype=w.dtype, device=w.device) for w in weights]
    where, plan, fixed = tables(weights, us, out)

    def empty(size: int) -> Tensor:
        return torch.empty(size, dtype=accumulator(weights[0].dtype), device=weights[0].device)

    parts, norms, lefts = empty(plan.parts), empty(len(weights)), empty(plan.rows)
    sigma, u, v = empty(len(weights)), empty(plan.rows), empty(plan.columns)
    with torch.cuda.device_of(weights[0]):
        left_kernel[(plan.by_columns,)](where, plan.table, parts, U_DTYPE=DTYPES[us[0].dtype], **fixed, **LEFT)
        right_kernel[(plan.by_rows,)](where, plan.table, parts, norms, lefts, eps, **fixed, **RIGHT)
        scale_kernel[(plan.by_entries,)](where, plan.table, parts, norms, lefts, sigma, u, v, eps, **fixed, **SCALE)
    return out, sigma, u, v


def launch_backward(
    grads: Sequence[Tensor], weights: Sequence[Tensor], dsigma: Tensor, sigma: Tensor, u: Tensor, v: Tensor
) -> list[Tensor]:
    """Gradient by the weights, from the gradients by W / sigma and by sigma."""
    weights = [w.contiguous() for w in weights]
    grads = [g.to(w.dtype).contiguous() for g, w in zip(grads, weights)]
    out = [torch.empty(w.shape, dtype=w.dtype, device=w.device) for w in weights]
    where, plan, fixed = tables(weights, grads, out)
    dots = torch.empty(plan.by_spans, dtype=sigma.dtype, device=sigma.device)
    with torch.cuda.device_of(sigma):
        dot_kernel[(plan.by_spans,)](where, plan.table, dots, **fixed, **DOT)
        gradient_kernel[(plan.by_entries,)](
            where, plan.table, dots, dsigma.contiguous(), sigma, u, v, **fixed, **GRADIENT
        )
    return out


def build(kernel: Any, pointers: tuple[str, ...], launch: dict[str, int], dtype: str, **more: Any) -> Build:
    kinds = {"fp32": tl.float32, "bf16": tl.bfloat16, "fp16": tl.float16}
    return variant(
        kernel,
        dtype,
        dtype="fp32",
        pointers={"addresses": "*i64", "table": "*i64", **dict.fromkeys(pointers, "data")},
        numbers=(),
        scalars={"eps": "fp32"} if "eps" in kernel.arg_names else None,
        constants={"LAYERS": 16, "DTYPE": kinds[dtype], "WIDE": tl.float32, **more},
        launch=launch,
    )


AOT = [
    build(kernel, pointers, launch, dtype, **more)
    for kernel, pointers, launch, more in (
        (left_kernel, ("parts",), LEFT, {"U_DTYPE": tl.float32}),
        (right_kernel, ("parts", "norms", "lefts"), RIGHT, {}),
        (scale_kernel, ("parts", "norms", "lefts", "sigma", "u", "v"), SCALE, {}),
        (dot_kernel, ("dots",), DOT, {}),
        (gradient_kernel, ("dots", "dsigma", "sigma", "u", "v"), GRADIENT, {}),
    )
    for dtype in ("fp32", "bf16", "fp16")
]
