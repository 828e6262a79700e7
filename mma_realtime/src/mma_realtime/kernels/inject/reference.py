"""Injection of signals and glitches into noise in plain PyTorch: the definition (section 11), and the CPU's form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .rows import Rows


def fused_inject(
    noise: Tensor,
    noise_index: Tensor,
    roll: Tensor,
    flip: Tensor,
    signals: Tensor,
    signal_index: Tensor,
    delay: Tensor,
    snr: Tensor,
    mute: Tensor,
    length: int,
    glitches: Tensor | None = None,
    glitch_index: Tensor | None = None,
    glitch_delay: Tensor | None = None,
    glitch_snr: Tensor | None = None,
) -> Tensor:
    """`[B, C, length]`; the operands are those of the public function."""
    from .rows import rows_of

    others = {
        "roll": roll, "flip": flip, "signal_index": signal_index, "delay": delay, "snr": snr, "mute": mute,
        "glitch_index": glitch_index, "glitch_delay": glitch_delay, "glitch_snr": glitch_snr,
    }  # fmt: skip
    rows = rows_of(noise_index, others)
    return by_gathers(noise, signals, glitches, rows, length).view(*noise_index.shape, length)


def delayed(bank: Tensor, index: Tensor, delay: Tensor, factor: Tensor, length: int) -> Tensor:
    """`factor * bank[index, t + delay]`, zero outside; a row of factor 0 is not read, whatever its index."""
    wide = torch.promote_types(bank.dtype, torch.float32)
    read = factor != 0
    t = torch.arange(length, device=bank.device) + delay[:, None].long()
    inside = (t >= 0) & (t < bank.shape[1]) & read[:, None]
    row = torch.where(read, index.long(), 0)
    values = bank[row[:, None], t.clamp(0, bank.shape[1] - 1)].to(wide)
    return torch.where(inside, factor.to(wide)[:, None] * values, 0.0)


def by_gathers(noise: Tensor, signals: Tensor, glitches: Tensor | None, rows: Rows, length: int) -> Tensor:
    """Index tensors of the size of the result; sums in float32 or wider."""
    wide = torch.promote_types(noise.dtype, torch.float32)
    t = (torch.arange(length, device=noise.device) + rows.roll[:, None].long()) % max(noise.shape[1], 1)
    out = rows.flip.to(wide)[:, None] * noise[rows.noise_index[:, None].long(), t].to(wide)
    banks = [(signals, rows.signal_index, rows.delay, rows.snr * rows.mute)]
    if glitches is not None:
        assert rows.glitch_index is not None
        assert rows.glitch_delay is not None
        assert rows.glitch_snr is not None
        banks.append((glitches, rows.glitch_index, rows.glitch_delay, rows.glitch_snr))
    for bank, index, delay, factor in banks:
        if bank.numel():
            out = out + delayed(bank, index, delay, factor, length)
    return out.to(noise.dtype)


def by_slices(noise: Tensor, signals: Tensor, glitches: Tensor | None, rows: Rows, length: int) -> Tensor:
    """Slices of the banks, row after row: no index tensor, no byte read twice."""
    import numpy as np  # not at the top: the kernels run where only PyTorch and Triton are installed

    L, count = noise.shape[1], len(rows.noise_index)
    out = np.empty((count, length), dtype=noise.numpy().dtype)
    bank = noise.numpy()
    places = zip(rows.noise_index.tolist(), (rows.roll % max(L, 1)).tolist(), rows.flip.tolist(), out)
    for index, start, sign, row in places:
        source, at = bank[index], 0
        while at < length:  # more than once where the bank's end lies in the window, or the window is longer
            n = min(length - at, L - start)
            np.multiply(source[start : start + n], row.dtype.type(sign), out=row[at : at + n])
            at, start = at + n, 0
    add(out, signals, rows.signal_index, rows.delay, rows.snr * rows.mute)
    if glitches is not None:
        assert rows.glitch_index is not None
        assert rows.glitch_delay is not None
        assert rows.glitch_snr is not None
        add(out, glitches, rows.glitch_index, rows.glitch_delay, rows.glitch_snr)
    return torch.from_numpy(out)


def add(out, bank: Tensor, index: Tensor, delay: Tensor, factor: Tensor) -> None:
    """Add `factor * bank[index, t + delay]` to rows of an array, where they overlap."""
    values, (length, size) = bank.numpy(), (out.shape[1], bank.shape[1])
    for row, i, d, a in zip(out, index.tolist(), delay.tolist(), factor.tolist()):
        first, last = max(0, -d), min(length, size - d)
        if a != 0 and first < last:
            row[first:last] += row.dtype.type(a) * values[i, first + d : last + d]
