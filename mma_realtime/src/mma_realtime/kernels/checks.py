"""What is checked of every kernel, in the interpreter and on a GPU alike.

Imports nothing but PyTorch, so that it runs on a machine that has only PyTorch and Triton.
"""

from __future__ import annotations

from .coincidence.check import CHECK as COINCIDENCE
from .inject.check import CHECK as INJECT
from .peaks.check import CHECK as PEAKS
from .slides.check import CHECK as SLIDES
from .waveform.check import CHECK as WAVEFORM

CHECKS = [INJECT, PEAKS, SLIDES, COINCIDENCE, WAVEFORM]
