"""Windows of noise with signals and glitches in them, from banks, in one pass (sections 3 and 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .rows import inject_rows, rows_of

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float, Int

__all__ = ["fused_inject"]


def fused_inject(
    noise: Float[Tensor, "n L"],
    noise_index: Int[Tensor, "B C"],
    roll: Int[Tensor, "B C"],
    flip: Float[Tensor, "B C"],
    signals: Float[Tensor, "s S"],
    signal_index: Int[Tensor, "B C"],
    delay: Int[Tensor, "B C"],
    snr: Float[Tensor, "B C"],
    mute: Float[Tensor, "B C"],
    length: int,
    glitches: Float[Tensor, "g G"] | None = None,
    glitch_index: Int[Tensor, "B C"] | None = None,
    glitch_delay: Int[Tensor, "B C"] | None = None,
    glitch_snr: Float[Tensor, "B C"] | None = None,
) -> Float[Tensor, "B C length"]:
    """`flip noise[n, (t + roll) mod L] + mute snr signals[s, t + delay] + glitch_snr glitches[g, t + glitch_delay]`.

    Signals and glitches are zero outside their bank's row; rows whose factor is 0 are not read, whatever their index.
    Sums are in float32 (float64 for float64 banks); the result has the dtype of the noise. There is no gradient: the
    operands are data. Every `[B, C]` operand may also be `[B]`, for all detectors of a window alike.

    Args:
        noise: whitened, unit variance in the band, one detector a row.
        noise_index, roll: row, and the sample of it that the window starts with (any integer: taken mod L).
        flip: 1 or -1, the noise's polarity.
        signals: whitened, optimal SNR 1, one waveform a row. A coherent bank [s, C, S] goes in as [s C, S].
        signal_index, delay: row, and the sample of it at the window's first sample: where the merger lies in the row
            minus where it is to lie in the window; negative where the signal begins after the window does.
        snr: optimal SNR in each detector, with the sign of its antenna response; 0 for windows of noise.
        mute: 0 takes the signal (not the noise) from a detector, 1 leaves it; bool or real.
        length: samples of a window.
        glitches, glitch_index, glitch_delay, glitch_snr: as for signals; muting does not touch them.

    Raises:
        ValueError: shapes that do not fit, banks that are no matrices, an empty noise bank, some but not all of the
            glitch operands, and, on a CPU, an index outside a bank. On a GPU a row outside its bank is NaN: looking at
            the indices would wait for the device.

    One program for up to 1,024 samples of one row. FLOPs: 3 a sample. Bytes: 12 a sample in float32 (two reads, one
    write; 8 without a signal, 16 with a glitch), against 60 to 80 of gathers with int64 indices, rolls and masks. Floor
    for 384 windows of 2 x 2048 samples on one H100 (3.35 TB/s): 5.6 us. On a CPU: slices of the banks, row after row,
    2 % of a training step of the quick net (benchmarks/kernels.json).
    """
    banks = {"noise": noise, "signals": signals} | ({} if glitches is None else {"glitches": glitches})
    for name, bank in banks.items():
        if bank.ndim != 2 or not bank.is_floating_point():
            raise ValueError(f"fused_inject: {name} is {tuple(bank.shape)} {bank.dtype}: real [rows, samples] needed")
        if bank.dtype is not noise.dtype or bank.device != noise_index.device:
            raise ValueError(
                f"fused_inject: {name} is {bank.dtype} on {bank.device}, "
                f"noise {noise.dtype} and noise_index on {noise_index.device}"
            )
    if not noise.shape[1]:
        raise ValueError("fused_inject: the noise bank has no samples")
    if length < 0:
        raise ValueError(f"fused_inject: length is {length}")
    given = [x is not None for x in (glitches, glitch_index, glitch_delay, glitch_snr)]
    if any(given) and not all(given):
        raise ValueError("fused_inject: give glitches, glitch_index, glitch_delay and glitch_snr, or none of them")
    others = {
        "roll": roll, "flip": flip, "signal_index": signal_index, "delay": delay, "snr": snr, "mute": mute,
        "glitch_index": glitch_index, "glitch_delay": glitch_delay, "glitch_snr": glitch_snr,
    }  # fmt: skip
    rows = rows_of(noise_index, others)
    if noise.device.type == "cpu" and not torch.compiler.is_compiling():
        inside("noise_index", rows.noise_index, len(noise), None)
        inside("signal_index", rows.signal_index, len(signals), (rows.snr != 0) & (rows.mute != 0))
        if glitches is not None and rows.glitch_index is not None and rows.glitch_snr is not None:
            inside("glitch_index", rows.glitch_index, len(glitches), rows.glitch_snr != 0)
    out = inject_rows(noise.contiguous(), signals.contiguous(), None if glitches is None else glitches.contiguous(),
                      *rows, length)  # fmt: skip
    return out.view(*noise_index.shape, length)


def inside(name: str, index: Tensor, rows: int, read: Tensor | None) -> None:
    """Refuse an index outside a bank in a row that is read.

    Raises:
        ValueError: it names the operand and the index.
    """
    wrong = (index < 0) | (index >= rows)
    if read is not None:
        wrong = wrong & read
    if wrong.any():
        raise ValueError(f"fused_inject: {name} holds {int(index[wrong][0])}, the bank has {rows} rows")
