"""Custom operators (section 11): each a folder with its definition (`reference.py`), its Triton kernel and its public
function. Imports nothing of the package but itself, and nothing but PyTorch.
"""

from __future__ import annotations

from .inject import fused_inject
from .slides import Slides, slide_hist

__all__ = ["Slides", "fused_inject", "slide_hist"]
