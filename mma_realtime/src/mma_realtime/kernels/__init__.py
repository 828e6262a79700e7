"""Custom operators (section 11): each a folder with its definition (`reference.py`), its Triton kernel and its public
function. Imports nothing of the package but itself, and nothing but PyTorch.
"""

from __future__ import annotations

from . import reference
from .coincidence import Coincidences, coinc_count
from .inject import fused_inject
from .peaks import Peaks, peak_reduce
from .slides import Slides, slide_hist
from .waveform import waveform_fd

__all__ = [
    "Coincidences", "Peaks", "Slides", "coinc_count", "fused_inject", "peak_reduce", "reference", "slide_hist",
    "waveform_fd",
]  # fmt: skip
