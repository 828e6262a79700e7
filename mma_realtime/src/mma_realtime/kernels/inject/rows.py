"""The operands of an injection as one value for every row, and the registered operator that takes them so.

Kept apart from `triton.py`: a machine without Triton has it too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference

WIDE = (torch.float32, torch.float64)


class Rows(NamedTuple):
    """Draws of the B C rows of a batch, contiguous; the last three are None where there are no glitches."""

    noise_index: Tensor
    roll: Tensor
    flip: Tensor
    signal_index: Tensor
    delay: Tensor
    snr: Tensor
    mute: Tensor
    glitch_index: Tensor | None = None
    glitch_delay: Tensor | None = None
    glitch_snr: Tensor | None = None


def rows_of(noise_index: Tensor, others: dict[str, Tensor | None]) -> Rows:
    """Every operand as `[B C]`; one of `[B]` holds for all detectors of a window.

    Raises:
        ValueError: an operand that fits neither `[B, C]` nor `[B]`; indices that are no integers.
    """
    if noise_index.ndim != 2:
        raise ValueError(f"fused_inject: noise_index has shape {tuple(noise_index.shape)}: [windows, detectors]")
    B, C = noise_index.shape
    flat: dict[str, Tensor | None] = {}
    for name, x in {"noise_index": noise_index, **others}.items():
        if x is None:
            flat[name] = None
            continue
        if tuple(x.shape) not in ((B, C), (B, 1), (B,)):
            raise ValueError(f"fused_inject: {name} has shape {tuple(x.shape)}: ({B}, {C}) or ({B},) is needed")
        whole = name.endswith(("index", "roll", "delay"))
        if whole and (x.is_floating_point() or x.dtype is torch.bool):
            raise ValueError(f"fused_inject: {name} is {x.dtype}: integers are needed")
        if x.device != noise_index.device:
            raise ValueError(f"fused_inject: {name} is on {x.device}, noise_index on {noise_index.device}")
        x = (x if x.ndim == 2 else x[:, None]).expand(B, C).reshape(B * C).contiguous()
        flat[name] = x if whole or x.is_floating_point() else x.float()
    return Rows(**flat)  # type: ignore[arg-type]


@torch.library.custom_op("mma_realtime::fused_inject", mutates_args=())
def inject_rows(
    noise: Tensor,
    signals: Tensor,
    glitches: Tensor | None,
    noise_index: Tensor,
    roll: Tensor,
    flip: Tensor,
    signal_index: Tensor,
    delay: Tensor,
    snr: Tensor,
    mute: Tensor,
    glitch_index: Tensor | None,
    glitch_delay: Tensor | None,
    glitch_snr: Tensor | None,
    length: int,
) -> Tensor:
    """`[B C, length]` in the dtype of the noise."""
    rows = Rows(noise_index, roll, flip, signal_index, delay, snr, mute, glitch_index, glitch_delay, glitch_snr)
    if use_triton(noise) and len(noise_index) and length:
        from . import triton

        return triton.launch_inject(noise, signals, glitches, rows, length)
    if noise.device.type == "cpu" and noise.dtype in WIDE:
        return reference.by_slices(noise, signals, glitches, rows, length)
    return reference.by_gathers(noise, signals, glitches, rows, length)


@inject_rows.register_fake
def _(noise: Tensor, signals: Tensor, glitches: Tensor | None, noise_index: Tensor, *args: object) -> Tensor:
    length = args[-1]
    return noise.new_empty(len(noise_index), length)  # type: ignore[call-overload]
