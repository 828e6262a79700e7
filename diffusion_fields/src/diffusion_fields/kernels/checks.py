"""What is checked of every kernel, in the interpreter and on a GPU alike.

Imports nothing but PyTorch, so that it runs on a machine that has only PyTorch and Triton.
"""

from __future__ import annotations

from .chamfer.check import CHECK as CHAMFER
from .fourier.check import CHECK as FOURIER
from .split_kv.check import CHECK as SPLIT_KV

CHECKS = [FOURIER, CHAMFER, SPLIT_KV]
