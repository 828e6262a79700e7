"""Triton kernels of the first layer's (image, label) pairs, for all labels (K3) or for R label sets (K4).

The row of pair (n, r) is `n row_n + r row_r`: image by image for K3 (row_n = C, row_r = 1), set by set for K4
(row_n = 1, row_r = N).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

LAUNCH = {"BLOCK_N": 16, "BLOCK_M": 128, "num_warps": 4, "num_stages": 2}
SUMS = {"BLOCK_R": 32, "BLOCK_M": 64, "BLOCK_C": 16, "num_warps": 4, "num_stages": 1}
ROWS_PER_PROGRAM = 512


@triton.jit
def pairs_kernel(
    base, s, code, b, labels, h, q, N, M, SETS, row_n, row_r, base_n, base_m, code_c, code_m, strength,
    GATHER: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """`h = relu(s base + b + s strength code[label])` for all sets of a tile of images; squares of the tile's rows."""
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (n[:, None] < N) & (m[None, :] < M)
    scale = tl.load(s + n, n < N, other=0.0).to(tl.float32)[:, None]
    image = tl.load(base + n.to(tl.int64)[:, None] * base_n + m[None, :] * base_m, inside, other=0.0).to(tl.float32)
    image = image * scale + tl.load(b + m, m < M, other=0.0).to(tl.float32)[None, :]
    for r in range(SETS):
        if GATHER:
            label = tl.load(labels + r * N + n, n < N, other=0)
            row = tl.load(code + label[:, None] * code_c + m[None, :] * code_m, inside, other=0.0).to(tl.float32)
        else:
            row = tl.load(code + r * code_c + m * code_m, m < M, other=0.0).to(tl.float32)[None, :]
        out = tl.maximum(image + scale * strength * row, 0.0).to(h.dtype.element_ty)
        place = n.to(tl.int64) * row_n + r * row_r
        tl.store(h + place[:, None] * M + m[None, :], out, inside)
        wide = tl.where(inside, out.to(tl.float32), 0.0)
        tl.store(q + pid_m * N * SETS + place, tl.sum(wide * wide, 1), n < N)


@triton.jit
def image_grad_kernel(
    base, s, code, labels, h, dh, dq, dbase, ds, N, M, SETS, row_n, row_r, base_n, base_m, code_c, code_m, dh_r, dh_m,
    strength, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """`dbase = s sum_r dA_r` and `ds = sum_rm dA (base + strength code)`, with `dA = (dH + 2 dq H) 1[H > 0]`."""
    pid_n, pid_m = tl.program_id(0), tl.program_id(1)
    n = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (n[:, None] < N) & (m[None, :] < M)
    image = tl.load(base + n.to(tl.int64)[:, None] * base_n + m[None, :] * base_m, inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    slope_s = tl.zeros((BLOCK_N,), tl.float32)
    for r in range(SETS):
        place = n.to(tl.int64) * row_n + r * row_r
        act = tl.load(h + place[:, None] * M + m[None, :], inside, other=0.0).to(tl.float32)
        grad = tl.load(dh + place[:, None] * dh_r + m[None, :] * dh_m, inside, other=0.0).to(tl.float32)
        slope = 2 * tl.load(dq + place, n < N, other=0.0).to(tl.float32)
        da = tl.where(act > 0, grad + slope[:, None] * act, 0.0)
        label = tl.load(labels + r * N + n, n < N, other=0)
        row = tl.load(code + label[:, None] * code_c + m[None, :] * code_m, inside, other=0.0).to(tl.float32)
        total += da
        slope_s += tl.sum(da * (image + strength * row), 1)
    scale = tl.load(s + n, n < N, other=0.0).to(tl.float32)
    tl.store(
        dbase + n.to(tl.int64)[:, None] * M + m[None, :], (total * scale[:, None]).to(dbase.dtype.element_ty), inside
    )
    tl.store(ds + pid_m * N + n, slope_s, n < N)


@triton.jit
def label_sums_kernel(
    h, dh, dq, cr, s, labels, dcode, db, N, M, C, SETS, SPLIT, row_n, row_r, h_r, h_m, dh_r, dh_m, strength,
    GATED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`dW_label[c] = sum over rows of label c of strength s d` and `db = sum d`, for `SPLIT` rows into slab `pid_s`.

    `d` is `cr H`, or `dA` (GATED). The scatter-add is a product with the one-hot codes: one order of summation, no
    atomics. It is in IEEE float32 always: BLOCK_C is 16 and the kernel is bound by memory.
    """
    pid_c, pid_m, pid_s = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = pid_c * BLOCK_C + tl.arange(0, BLOCK_C)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    first = pid_s * SPLIT
    last = tl.minimum(first + SPLIT, N * SETS)
    acc = tl.zeros((BLOCK_C, BLOCK_M), tl.float32)
    bias = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(first, last, BLOCK_R):
        i = start + tl.arange(0, BLOCK_R)  # pairs counted set by set
        n, r = i % N, i // N
        place = n.to(tl.int64) * row_n + r * row_r
        inside = (i[:, None] < last) & (m[None, :] < M)
        d = tl.load(h + place[:, None] * h_r + m[None, :] * h_m, inside, other=0.0).to(tl.float32)
        if GATED:
            grad = tl.load(dh + place[:, None] * dh_r + m[None, :] * dh_m, inside, other=0.0).to(tl.float32)
            slope = 2 * tl.load(dq + place, i < last, other=0.0).to(tl.float32)
            d = tl.where(d > 0, grad + slope[:, None] * d, 0.0)
        else:
            d *= tl.load(cr + place, i < last, other=0.0).to(tl.float32)[:, None]
        bias += tl.sum(d, 0)
        label = tl.load(labels + i, i < last, other=-1)
        weight = strength * tl.load(s + n, i < last, other=0.0).to(tl.float32)
        onehot = tl.where(c[:, None] == label[None, :], weight[None, :], 0.0)
        acc = tl.dot(onehot, d, acc, input_precision="ieee")
    tl.store(dcode + (pid_s * C + c[:, None]) * M + m[None, :], acc, (c[:, None] < C) & (m[None, :] < M))
    if pid_c == 0:
        tl.store(db + pid_s * M + m, bias, m < M)


def q_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def launch_pairs(
    base: Tensor, s: Tensor, code: Tensor, b: Tensor, strength: float, labels: Tensor | None, sets: int
) -> tuple[Tensor, Tensor]:
    """`(H, q)` of all pairs; `labels` None: set r has label r, rows image by image."""
    n, m = base.shape
    h = base.new_empty(n * sets, m)
    if not h.numel():
        return h, base.new_zeros(n * sets, dtype=q_dtype(base))
    row_n, row_r = (sets, 1) if labels is None else (1, n)
    tiles = triton.cdiv(m, LAUNCH["BLOCK_M"])
    q = torch.empty(tiles, n * sets, dtype=torch.float32, device=h.device)
    with torch.cuda.device_of(h):
        pairs_kernel[(triton.cdiv(n, LAUNCH["BLOCK_N"]), tiles)](
            base, s.contiguous(), code, b.contiguous(), s if labels is None else labels.contiguous(), h, q, n, m, sets,
            row_n, row_r, *base.stride(), *code.stride(), float(strength), GATHER=labels is not None, **LAUNCH,
        )  # fmt: skip
    return h, q[0] if tiles == 1 else q.sum(0)


def launch_pairs_backward(
    base: Tensor, s: Tensor, code: Tensor, strength: float, labels: Tensor, rows: tuple[int, int], h: Tensor,
    dh: Tensor, dq: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`(dbase, ds, dW_label, db)`; `labels` [sets, N], `rows = (row_n, row_r)`."""
    n, m = base.shape
    dbase = torch.zeros_like(base, memory_format=torch.contiguous_format)
    if not h.numel():
        return dbase, torch.zeros_like(s), torch.zeros_like(code), code.new_zeros(m)
    labels, dq = labels.contiguous(), dq.contiguous()
    tiles = triton.cdiv(m, LAUNCH["BLOCK_M"])
    ds = torch.empty(tiles, n, dtype=torch.float32, device=h.device)
    with torch.cuda.device_of(h):
        image_grad_kernel[(triton.cdiv(n, LAUNCH["BLOCK_N"]), tiles)](
            base, s.contiguous(), code, labels, h, dh, dq, dbase, ds, n, m, len(labels), *rows,
            *base.stride(), *code.stride(), *dh.stride(), float(strength), **LAUNCH,
        )  # fmt: skip
    dcode, db = launch_label_sums(h, s, s, labels, strength, len(code), rows, (dh, dq))
    return dbase, ds.sum(0).to(s.dtype), dcode.to(code.dtype), db.to(code.dtype)


def launch_label_sums(
    h: Tensor, cr: Tensor, s: Tensor, labels: Tensor, strength: float, classes: int, rows: tuple[int, int],
    gate: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`(dW_label, db)` in float32 from `d = cr H`, or from `dA` with `gate = (dH, dq)`."""
    (sets, n), m = labels.shape, h.shape[1]
    if not h.numel():
        return h.new_zeros(classes, m, dtype=torch.float32), h.new_zeros(m, dtype=torch.float32)
    splits = triton.cdiv(sets * n, ROWS_PER_PROGRAM)
    dcode = torch.empty(splits, classes, m, dtype=torch.float32, device=h.device)
    db = torch.empty(splits, m, dtype=torch.float32, device=h.device)
    dh, dq = gate if gate is not None else (h, cr)
    grid = (max(1, triton.cdiv(classes, SUMS["BLOCK_C"])), triton.cdiv(m, SUMS["BLOCK_M"]), splits)
    with torch.cuda.device_of(h):
        label_sums_kernel[grid](
            h, dh, dq.contiguous(), cr.contiguous(), s.contiguous(), labels.contiguous(), dcode, db, n, m, classes,
            sets, ROWS_PER_PROGRAM, *rows, *h.stride(), *dh.stride(), float(strength), GATED=gate is not None, **SUMS,
        )  # fmt: skip
    return dcode.sum(0), db.sum(0)


def builds(
    kernel: object, pointers: dict[str, str], numbers: str, ones: str, launch: dict[str, int], **flags: bool
) -> list[Build]:
    """fp32 and bf16 for contiguous tensors, fp32 for strides at large."""
    out = []
    for dtype, aligned in (("fp32", True), ("bf16", True), ("fp32", False)):
        fixed = {**flags, **(dict.fromkeys(ones.split(), 1) if aligned else {})}
        name = " ".join([dtype, *(["strided"] if not aligned else []), *(k.lower() for k, v in flags.items() if v)])
        args = {
            "dtype": dtype,
            "pointers": pointers,
            "numbers": tuple(numbers.split()),
            "scalars": {"strength": "fp32"},
        }
        out.append(variant(kernel, name, **args, constants=fixed, launch=launch, aligned=aligned))  # type: ignore[arg-type]
    return out


DATA, VECTOR, LABELS = "data", "*fp32", "*i64"
FORWARD = {"base": DATA, "s": VECTOR, "code": DATA, "b": VECTOR, "h": DATA, "q": VECTOR}
FORWARD_NUMBERS = "N M SETS row_n row_r base_n base_m code_c code_m"
IMAGE = {"base": DATA, "s": VECTOR, "code": DATA, "labels": LABELS, "h": DATA, "dh": DATA, "dq": VECTOR}
SUM = {"h": DATA, "dh": DATA, "dq": VECTOR, "cr": VECTOR, "s": VECTOR, "labels": LABELS, "dcode": VECTOR, "db": VECTOR}
SUM_NUMBERS = "N M C SETS SPLIT row_n row_r h_r h_m dh_r dh_m"
EXPAND_AOT = builds(
    pairs_kernel, {**FORWARD, "labels": VECTOR}, FORWARD_NUMBERS, "base_m code_m row_r", LAUNCH, GATHER=False
)
SHARED_AOT = [
    *builds(pairs_kernel, {**FORWARD, "labels": LABELS}, FORWARD_NUMBERS, "base_m code_m row_n", LAUNCH, GATHER=True),
    *builds(
        image_grad_kernel,
        {**IMAGE, "dbase": DATA, "ds": VECTOR},
        f"{FORWARD_NUMBERS} dh_r dh_m",
        "base_m code_m dh_m",
        LAUNCH,
    ),
    *builds(label_sums_kernel, SUM, SUM_NUMBERS, "h_m dh_m", SUMS, GATED=False),
    *builds(label_sums_kernel, SUM, SUM_NUMBERS, "h_m dh_m", SUMS, GATED=True),
]
