"""Waveforms in frequency, whitened, from a table of coefficients (sections 2.3 and 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import layout, reference
from .bank import evaluate

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Complex, Float, Float64

__all__ = ["layout", "reference", "waveform_fd"]


def waveform_fd(
    table: Float64[Tensor, "system column"],
    f: Float64[Tensor, " freq"],
    asd: Float[Tensor, "*system freq"] | None = None,
    dtype: torch.dtype = torch.complex64,
) -> Complex[Tensor, "system freq"]:
    """`h(f) = a(f) exp(-i psi(f))` of every system at every frequency, divided by the asd where there is one.

    Phases are float64 (they reach 1e5 rad) until whole turns are taken away. There is no gradient
    (`kernels.reference.waveform_fd` has one).

    Args:
        table: coefficients, columns of `layout` (Hz, s, rad); float64, from `gw.waveforms`.
        f: frequencies in Hz, 0 allowed (h is 0 there), float64; on a CPU ascending ones are faster.
        asd: square root of the one-sided power spectral density in strain/sqrt(Hz), one curve for all or one for each
            system, in the units of strain that AMPLITUDE has. Positive at frequencies where h is not 0.
        dtype: complex64 or complex128 (always plain PyTorch).

    Returns:
        strain/Hz, or 1/sqrt(Hz) whitened.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit; a gradient is wanted.

    The kernel: a program holds the powers of some frequencies in registers (f, ln f, f^(1/3), f^(-7/6), f^(3/4) are
    computed once for all systems) and goes through systems; each computes only the pieces that its frequencies meet.
    FLOPs: ~300 a point by the textbook, here ~30 float64 and ~40 float32 operations. Bytes: 8 B a point written, 4 B
    read where every system has its own curve. Floor for 20,000 systems x 2,049 frequencies on one H100: 0.10 ms for
    the bytes (3.35 TB/s), 0.18 ms for 300 FLOPs a point at 67 TFLOP/s. Eager PyTorch makes some 60 passes over
    float64: 20 GB, 6 ms.
    On a CPU: products of matrices of coefficients and powers, piece by piece (`reference.by_regions`).
    """
    fits = table.ndim == 2 and table.shape[1] == layout.WIDTH and f.ndim == 1
    if not fits or (asd is not None and asd.shape not in (f.shape, (len(table), len(f)))):
        curve = "no asd" if asd is None else f"an asd of shape {tuple(asd.shape)}"
        raise ValueError(
            f"waveform_fd: a table of shape {tuple(table.shape)}, f of shape {tuple(f.shape)}, {curve}: "
            f"[systems, {layout.WIDTH}], [frequencies], and [frequencies] or [systems, frequencies] are needed"
        )
    for name, x in (("table", table), ("f", f)):
        if x.dtype is not torch.float64:
            raise ValueError(f"waveform_fd: {name} is {x.dtype}: phases need float64")
    for name, y in (("f", f), ("asd", asd)):
        if y is not None and y.device != table.device:
            raise ValueError(f"waveform_fd: {name} is on {y.device}, the table on {table.device}")
    if asd is not None and not asd.is_floating_point():
        raise ValueError(f"waveform_fd: asd is {asd.dtype}: real numbers are needed")
    if dtype not in (torch.complex64, torch.complex128):
        raise ValueError(f"waveform_fd: dtype is {dtype}: complex64 or complex128")
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (table, f, asd)):
        raise ValueError("waveform_fd has no gradient: detach its operands, or use its reference")
    return evaluate(table, f, asd, dtype is torch.complex128)
