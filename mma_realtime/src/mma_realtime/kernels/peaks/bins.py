"""The registered operator. Kept apart from `triton.py`: a machine without Triton has it too."""

from __future__ import annotations

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference


@torch.library.custom_op("mma_realtime::peak_reduce", mutates_args=())
def reduce_peaks(z: Tensor, samples_per_bin: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """`(power, sample, count)` of a contiguous z; `limit` is the square of the threshold."""
    if len(z) and z.dtype is torch.complex64 and use_triton(z):
        from . import triton

        return triton.launch_peaks(z, samples_per_bin, limit)
    if z.device.type == "cpu":
        return reference.by_blocks(z, samples_per_bin, limit)
    return reference.by_bins(z, samples_per_bin, limit)


@reduce_peaks.register_fake
def _(z: Tensor, samples_per_bin: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    shape = (len(z), -(-z.shape[1] // samples_per_bin))
    return z.real.new_empty(shape), z.new_empty(shape, dtype=torch.int64), z.new_empty(shape, dtype=torch.int32)
