"""Tile sizes of the matrix-product kernels and the AOT variants that follow from them."""

from __future__ import annotations

from typing import Any

import torch
import triton
from shared.kernels.aot import Build, variant
from shared.kernels.backend import BACKEND, input_precision
from torch import Tensor

SMALL = {"BLOCK_N": 64, "BLOCK_K": 32, "BLOCK_M": 64, "num_warps": 4, "num_stages": 3}
LARGE = {"BLOCK_N": 128, "BLOCK_K": 32, "BLOCK_M": 128, "num_warps": 8, "num_stages": 3}
IEEE = {"BLOCK_N": 64, "BLOCK_K": 32, "BLOCK_M": 64, "num_warps": 8, "num_stages": 1}  # no tensor cores: unrolled FMAs


def tile(x: Tensor, rows: int, columns: int, inner: str = "BLOCK_K") -> dict[str, Any]:
    """Launch settings for operands like `x` and a result of `rows` x `columns`.

    The large tile once there are enough of them to fill a GPU's ~132 multiprocessors. `inner`: which of the three
    blocks runs along the summed dimension.
    """
    precision = input_precision()
    if x.dtype is torch.float32 and precision == "ieee":
        chosen = IEEE
    else:
        chosen = LARGE if triton.cdiv(rows, 128) * triton.cdiv(columns, 128) >= 100 else SMALL
    # The interpreter multiplies bfloat16 as the integers that hold it; widening changes no product.
    wide = BACKEND == "interpret" and x.dtype is torch.bfloat16
    return {**renamed(chosen, inner), "PRECISION": precision, "WIDE": wide}


def renamed(chosen: dict[str, int], inner: str) -> dict[str, int]:
    """The tile with its short side along `inner`."""
    return {**chosen, "BLOCK_K": chosen[inner], inner: chosen["BLOCK_K"]}


VARIANTS = (
    ("fp32 ieee", "fp32", "ieee", IEEE),
    ("fp32 tf32 small", "fp32", "tf32", SMALL),
    ("fp32 tf32 large", "fp32", "tf32", LARGE),
    ("bf16 small", "bf16", "ieee", SMALL),
    ("bf16 large", "bf16", "ieee", LARGE),
)


def variants(
    kernel: Any,
    pointers: dict[str, str],
    numbers: tuple[str, ...],
    contiguous: tuple[str, ...],
    inner: str,
    constants: dict[str, Any] | None = None,
) -> list[Build]:
    """fp32 (IEEE and TF32) and bf16 with their tiles for aligned tensors, and fp32 for sizes and strides at large."""
    out = []
    for name, dtype, precision, launch in VARIANTS:
        fixed = {**(constants or {}), "PRECISION": precision, "WIDE": False, **dict.fromkeys(contiguous, 1)}
        args: dict[str, Any] = {"dtype": dtype, "pointers": pointers, "numbers": numbers}
        out.append(variant(kernel, name, **args, constants=fixed, launch=renamed(launch, inner)))
    fixed = {**(constants or {}), "PRECISION": "ieee", "WIDE": False}
    args = {"dtype": "fp32", "pointers": pointers, "numbers": numbers, "aligned": False}
    return [*out, variant(kernel, "fp32 ieee strided", **args, constants=fixed, launch=renamed(IEEE, inner))]
