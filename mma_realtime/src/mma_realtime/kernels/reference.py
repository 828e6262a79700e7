"""The definitions of all operators in plain PyTorch, under the names of the public functions."""

from __future__ import annotations

from .coincidence.reference import coinc_count
from .inject.reference import fused_inject
from .peaks.reference import peak_reduce
from .slides.reference import slide_hist
from .waveform.reference import waveform_fd

__all__ = ["coinc_count", "fused_inject", "peak_reduce", "slide_hist", "waveform_fd"]
