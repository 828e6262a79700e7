"""Attention along a spatial graph (sections 4.3 and 8.A)."""

from .subsets import HEADS, RELATIONS, subset_bits

__all__ = ["HEADS", "RELATIONS", "subset_bits"]
