"""Custom operators (section 8): each a folder with its definition (`reference.py`), its Triton kernel and its public
function. Imports nothing but PyTorch.
"""

from __future__ import annotations

from . import reference
from .chamfer import chamfer_allpairs
from .fourier import fourier_linear
from .split_kv import split_kv_cross_attention

__all__ = ["chamfer_allpairs", "fourier_linear", "reference", "split_kv_cross_attention"]
