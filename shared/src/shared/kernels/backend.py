"""Which implementation of an operator runs: `KERNEL_BACKEND=auto|reference|triton|interpret` (read once, at import).

`auto`: Triton for CUDA tensors, the PyTorch reference for all others. `interpret`: the Triton kernels on CPU tensors in
Triton's interpreter (slow; for tests). float64 always runs the reference.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from functools import cache

import torch
from torch import Tensor

from shared.errors import UserError

log = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "triton", "interpret")
BACKEND = os.environ.get("KERNEL_BACKEND", "auto")
if BACKEND not in BACKENDS:
    raise UserError(f"KERNEL_BACKEND is {BACKEND!r}: use one of {', '.join(BACKENDS)}")
if BACKEND == "interpret":
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError("KERNEL_BACKEND=interpret has to be set before triton is imported: set TRITON_INTERPRET=1 too")
    os.environ["TRITON_INTERPRET"] = "1"


def use_triton(x: Tensor) -> bool:
    """Whether the Triton kernels serve operands such as `x`."""
    if BACKEND == "auto":
        return x.is_cuda and x.dtype is not torch.float64 and triton_is_there()
    return BACKEND != "reference" and x.dtype is not torch.float64


@cache
def triton_is_there() -> bool:
    """Whether Triton can be imported; where it cannot, one line says what runs instead."""
    there = importlib.util.find_spec("triton") is not None
    if not there:
        log.warning("triton is not installed: custom operators run as plain PyTorch (`pip install triton`)")
    return there


def input_precision() -> str:
    """How Triton multiplies float32: PyTorch's own switch, `torch.set_float32_matmul_precision`."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def autocast(*operands: Tensor) -> tuple[Tensor, ...]:
    """Operands of a matrix product in the dtype of the surrounding `torch.autocast`, if there is one."""
    kind = operands[0].device.type
    if not torch.is_autocast_enabled(kind):
        return operands
    return tuple(x.to(torch.get_autocast_dtype(kind)) for x in operands)
