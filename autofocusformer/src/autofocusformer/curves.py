"""Hilbert's and Peano's curves over strips of squares: the alternatives to the paper's back-and-forth order.

A canvas wider than high is a row of squares of side `side`, each filled by one curve; the curve leaves a square where
the next one begins. A last square that is only partly there ends on a whole half (Hilbert) or third (Peano) of itself,
up to which the curve has visited exactly that part.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def hilbert_index(x: Int[Tensor, "*shape"], y: Int[Tensor, "*shape"], side: int) -> Int[Tensor, "*shape"]:
    """Place of cell (x, y) along Hilbert's curve; `side` is a power of two, 0 <= y < side, x is not bounded.

    A square is entered at its top left cell and left at its top right one.
    """
    square, x = x // side, x % side
    # The quarters are walked down the left half and up the right half; the axes swap at each finer level.
    index = torch.zeros_like(x)
    half = side // 2
    while half:
        right, low = (x >= half).long(), (y >= half).long()
        index = index * 4 + 2 * right + (right ^ low)
        x, y = x % half, y % half
        # top left: transposed; top right: transposed about the other diagonal; the lower quarters lie as they are
        top, mirrored = low == 0, (low == 0) & (right == 1)
        x, y = torch.where(mirrored, half - 1 - x, x), torch.where(mirrored, half - 1 - y, y)
        x, y = torch.where(top, y, x), torch.where(top, x, y)
        half //= 2
    return square * side**2 + index


def peano_index(x: Int[Tensor, "*shape"], y: Int[Tensor, "*shape"], side: int) -> Int[Tensor, "*shape"]:
    """Place of cell (x, y) along Peano's curve; `side` is a power of three, 0 <= y < side, x is not bounded.

    A square is entered at its top left cell and left at its bottom right one, so that every other square is upside
    down.
    """
    square, x = x // side, x % side
    y = torch.where(square % 2 == 1, side - 1 - y, y)
    index = torch.zeros_like(x)
    third = side // 3
    while third:
        column, row = x // third, y // third
        x, y = x % third, y % third
        down_or_up = torch.where(column % 2 == 1, 2 - row, row)
        index = index * 9 + column * 3 + down_or_up
        # a ninth is entered where the one before it was left: mirrored by the parity of the other coordinate
        x = torch.where(row % 2 == 1, third - 1 - x, x)
        y = torch.where(column % 2 == 1, third - 1 - y, y)
        third //= 3
    return square * side**2 + index
