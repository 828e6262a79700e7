"""The clusters whose centres are nearest to each token (section 3.2), without a table of all distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Int, Num

__all__ = ["nearest_clusters"]


def nearest_clusters(
    positions: Num[Tensor, "b n 2"], centres: Num[Tensor, "b k 2"], nnc: int
) -> Int[Tensor, "b n nnc"]:
    """The `nnc` clusters nearest to each token by Euclidean distance, in ascending order of their index.

    Squared distances are taken in float64 and compared in steps of 2^-30 (1e-9), so that what is equal in geometry
    ties; of equal ones the lower index is taken. All centres where there are fewer than `nnc`. Not differentiable.

    FLOPs: 5 b n k in float64. Bytes: 16 b (n + k) read, 8 b n nnc written; no more than one tile of the distances is
    ever in memory.

    Raises:
        ValueError: no centre, or none asked for.
    """
    count = min(nnc, centres.shape[1])
    if count < 1:
        raise ValueError(f"{nnc} of {centres.shape[1]} centres: at least one is needed")
    if positions.numel() and use_triton(centres.float()):
        from . import triton

        return triton.launch(positions, centres, count)
    return torch.ops.autofocusformer.nearest_clusters(positions, centres, count)


@torch.library.custom_op("autofocusformer::nearest_clusters", mutates_args=())
def _nearest_clusters(positions: Tensor, centres: Tensor, count: int) -> Tensor:
    # How many centres tie is known only when it runs: for whoever traces the network this is one step.
    return reference.nearest_clusters(positions, centres, count)


@_nearest_clusters.register_fake
def _shape(positions: Tensor, centres: Tensor, count: int) -> Tensor:
    return positions.new_empty((*positions.shape[:2], count), dtype=torch.long)
