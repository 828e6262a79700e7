"""What is checked of every kernel, in the interpreter and on a GPU alike.

Imports nothing but PyTorch, so that it runs on a machine that has only PyTorch and Triton.
"""

from __future__ import annotations

from .fused_diffaugment.check import CHECKS as AUGMENTATIONS
from .grad_gap.check import CHECK as GRAD_GAP
from .grouped_spectral_norm.check import CHECK as SPECTRAL_NORM

CHECKS = [*AUGMENTATIONS, SPECTRAL_NORM, GRAD_GAP]
