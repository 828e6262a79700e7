"""What the operators here have in common: refusing operands, and operands of `tl.dot` in the interpreter."""

from __future__ import annotations

import torch
from shared.kernels.backend import BACKEND
from torch import Tensor


def check(name: str, **operands: Tensor) -> None:
    """Refuse operands that are not real numbers or lie on different devices.

    Raises:
        ValueError: it names the operator and the operand.
    """
    first_name, first = next(iter(operands.items()))
    for key, x in operands.items():
        if not x.is_floating_point():
            raise ValueError(f"{name}: {key} is {x.dtype}: real numbers are needed")
        if x.device != first.device:
            raise ValueError(f"{name}: {key} is on {x.device}, {first_name} on {first.device}")


def same_dtype(name: str, **operands: Tensor) -> None:
    """Refuse operands of different dtypes.

    Raises:
        ValueError: it names the operator and the operand.
    """
    first_name, first = next(iter(operands.items()))
    for key, x in operands.items():
        if x.dtype is not first.dtype:
            raise ValueError(f"{name}: {key} is {x.dtype}, {first_name} is {first.dtype}")


def wants_gradient(*operands: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in operands)


def multiplied(x: Tensor) -> Tensor:
    """An operand of `tl.dot`: the interpreter multiplies bfloat16 as the integers that hold it; there it is widened."""
    return x.float() if BACKEND == "interpret" and x.dtype is torch.bfloat16 else x
