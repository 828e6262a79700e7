"""The registered operator. Kept apart from `triton.py`: a machine without Triton has it too."""

from __future__ import annotations

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference

FEW = 2**17  # points; below, on a CPU, the definition's few calls cost less than cutting into pieces


@torch.library.custom_op("mma_realtime::waveform_fd", mutates_args=())
def evaluate(table: Tensor, f: Tensor, asd: Tensor | None, double: bool) -> Tensor:
    """`[B, F]` complex128 where `double`, else complex64."""
    dtype = torch.complex128 if double else torch.complex64
    if not len(table) * len(f):
        return table.new_empty(len(table), len(f), dtype=dtype)
    if not double and use_triton(torch.empty(0, device=table.device)):  # what is written is float32
        from . import triton

        return triton.launch_waveform(table, f, asd)
    if table.is_cuda or len(table) * len(f) < FEW or bool((f[1:] < f[:-1]).any()):
        return reference.waveform_fd(table, f, asd).to(dtype)
    return reference.by_regions(table, f, asd, dtype)


@evaluate.register_fake
def _(table: Tensor, f: Tensor, asd: Tensor | None, double: bool) -> Tensor:
    return table.new_empty(len(table), len(f), dtype=torch.complex128 if double else torch.complex64)
