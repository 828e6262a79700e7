"""What every operator here refuses: empty operands, unequal dtypes or devices, and operands that want a gradient."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from shared.kernels.backend import BACKEND
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator


def check(name: str, **operands: Tensor) -> None:
    """Refuse what the operator `name` has no answer for.

    Raises:
        ValueError: no entries, not real numbers, another dtype or device than the first, or a gradient is wanted.
    """
    first_name, first = next(iter(operands.items()))
    for key, x in operands.items():
        if not x.numel():
            raise ValueError(f"{name}: {key} has shape {tuple(x.shape)}: there is nothing to evaluate")
        if not x.is_floating_point():
            raise ValueError(f"{name}: {key} is {x.dtype}: real numbers are needed")
        if (x.dtype, x.device) != (first.dtype, first.device):
            raise ValueError(
                f"{name}: {key} is {x.dtype} on {x.device}, {first_name} is {first.dtype} on {first.device}"
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name} has no gradient (it evaluates): detach {key}, or call it under torch.no_grad()")


def wide(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in, and the dtype of results: 16-bit operands give float32."""
    return torch.promote_types(dtype, torch.float32)


def multiplied(x: Tensor) -> Tensor:
    """An operand of `tl.dot`: the interpreter multiplies bfloat16 as the integers that hold it; there it is widened."""
    return x.float() if BACKEND == "interpret" and x.dtype is torch.bfloat16 else x


@contextmanager
def full_products() -> Iterator[None]:
    """Matrix products of float32 without TF32, whatever `torch.set_float32_matmul_precision` says outside.

    Not where `torch.compile` traces: the switch has no place in a graph.
    """
    before = "highest" if torch.compiler.is_compiling() else torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
