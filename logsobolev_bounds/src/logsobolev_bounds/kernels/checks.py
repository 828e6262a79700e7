"""What is checked of every kernel, in the interpreter and on a GPU alike.

Imports nothing but PyTorch, so that it runs on a machine that has only PyTorch and Triton.
"""

from __future__ import annotations

from .ghost_norms.check import CHECK as GHOST_NORMS
from .quadratic_rows.check import CHECK as QUADRATIC_ROWS
from .tilted_moments.check import CHECK as TILTED_MOMENTS

CHECKS = [TILTED_MOMENTS, QUADRATIC_ROWS, GHOST_NORMS]
