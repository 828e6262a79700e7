"""Counts in bins with given edges, in PyTorch and in NumPy.

Bin i holds `edges[i] <= v < edges[i + 1]`, the last one its upper edge too (as `numpy.histogram` has it); what lies
outside is in none.
"""

from __future__ import annotations

import torch
from torch import Tensor


def binned(values: Tensor, edges: Tensor) -> Tensor:
    """`[bins]` int64."""
    place = torch.searchsorted(edges, values, right=True) - 1
    place = torch.where(values == edges[-1], len(edges) - 2, place)
    place = place[(place >= 0) & (place < len(edges) - 1)]
    return torch.bincount(place, minlength=len(edges) - 1)


def binned_arrays(arrays: list, edges):
    """The same of a list of NumPy arrays."""
    import numpy as np  # not at the top: the kernels run where only PyTorch and Triton are installed

    if not arrays:
        return np.zeros(len(edges) - 1, np.int64)
    values = np.concatenate(arrays)
    place = np.searchsorted(edges, values, "right") - 1
    place[values == edges[-1]] = len(edges) - 2
    return np.bincount(place[(place >= 0) & (place < len(edges) - 1)], minlength=len(edges) - 1)


def check_edges(name: str, edges: Tensor) -> None:
    """Raise `ValueError` for edges that are none."""
    if edges.ndim != 1 or len(edges) < 2 or not bool((edges.diff() > 0).all()):
        raise ValueError(f"{name}: edges have to ascend, two of them at least")
