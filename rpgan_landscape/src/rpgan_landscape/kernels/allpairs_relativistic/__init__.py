"""K3: relativistic loss of every real point against every fake one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from shared.kernels.backend import BACKEND, use_triton
from torch import Tensor

from . import reference
from .reference import KINDS, Kind
from .sums import allpairs_sums

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

# From this many pairs on the other forms beat the definition: measured on one CPU core (benchmarks/bench_allpairs.py),
# and for the kernel the specification's estimate.
WORTHWHILE: dict[Kind, int] = {"logistic": 3 << 17, "hinge": 1 << 17, "ls": 1 << 15}
KERNEL_WORTHWHILE = 10**6


def worthwhile(a: Tensor, kind: Kind) -> int:
    """Pairs below which the definition is used."""
    if kind == "logistic" and use_triton(a):
        return KERNEL_WORTHWHILE if BACKEND == "auto" else 0
    return WORTHWHILE[kind]


def allpairs_relativistic(a: Float[Tensor, " N"], b: Float[Tensor, " M"], kind: Kind) -> Float[Tensor, ""]:
    """`L(a, b) = 1/(NM) sum_ij h(a_i - b_j)` (section 2 of the specification, g_A with the sign of a loss).

    h is softplus(-t) for `logistic`, max(0, 1 - t) for `hinge`, (1 - t)^2 for `ls`. Differentiable any number of times.
    float64 is computed in float64, every other dtype in float32, which is also the dtype of the result.

    Args:
        a, b: critic outputs: real and fake for the critic's loss, fake and real for the generator's.
        kind: `logistic`, `hinge` or `ls`.

    Raises:
        ValueError: a or b is not a vector; an unknown kind.

    ls from moments, O(N + M); hinge by sorting, O((N + M) log M); logistic by a tiled kernel on CUDA and in chunks that
    stay in the cache elsewhere; the plain definition where there are few pairs. Only that makes the N x M matrix.

    Logistic, of each pair: about 12 FLOPs and two special functions (exponential, reciprocal; one logarithm serves 64
    pairs). Bytes: `4 (N + M)` read, and partial sums of `4 N M (1/128 + 1/2048)` written and read. Floor on one H100
    (132 multiprocessors of 16 special functions a clock at 1.75 GHz), N = M = 16384: 0.15 ms; the definition moves
    about 9 GB, 2.7 ms.
    """
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"a and b have shapes {tuple(a.shape)} and {tuple(b.shape)}: flatten them to vectors")
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: use {', '.join(KINDS)}")
    if a.dtype is not b.dtype or a.dtype not in (torch.float32, torch.float64):
        dtype = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
        a, b = a.to(dtype), b.to(dtype)
    pairs = a.numel() * b.numel()
    if not pairs or pairs < worthwhile(a, kind):
        return reference.allpairs_relativistic(a, b, kind)
    if kind == "ls":
        return reference.least_squares(a, b)
    return allpairs_sums(a, b, kind)[0]
