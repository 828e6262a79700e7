"""Peaks of SNR series in bins of time in plain PyTorch: the definition (section 11), and the CPU's form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 2**15  # samples that the CPU's form squares at once: 256 kB


class Peaks(NamedTuple):
    """`[M, bins]` each: largest |z|^2 (real), its sample (int64), samples above the threshold (int32)."""

    power: Tensor
    sample: Tensor
    loud: Tensor


def peak_reduce(z: Tensor, samples_per_bin: int, threshold: float) -> Peaks:
    """The operands and the result are those of the public function."""
    return Peaks(*by_bins(z, samples_per_bin, threshold**2))


def by_bins(z: Tensor, samples_per_bin: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    M, T = z.shape
    bins = -(-T // samples_per_bin)
    power = F.pad(z.real.square() + z.imag.square(), (0, bins * samples_per_bin - T), value=-1.0)
    parts = power.view(M, bins, samples_per_bin)
    place = parts.argmax(2, keepdim=True)  # the first of equals; a NaN is larger than all
    sample = place[..., 0] + samples_per_bin * torch.arange(bins, device=z.device)
    return parts.gather(2, place)[..., 0], sample, (parts > limit).sum(2, dtype=torch.int32)


def by_blocks(z: Tensor, samples_per_bin: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """Whole bins of a few samples at a time. Only bins whose maximum is loud are counted in."""
    import numpy as np  # not at the top: the kernels run where only PyTorch and Triton are installed

    M, T = z.shape
    bins, whole = -(-T // samples_per_bin), T // samples_per_bin
    real = torch.view_as_real(z).view(M, 2 * T).numpy()
    power, sample = np.empty((M, bins), real.dtype), np.empty((M, bins), np.int64)
    counts = np.zeros((M, bins), np.int32)
    some = max(1, BLOCK // samples_per_bin)
    squares, sums = (np.empty(n * some * samples_per_bin, real.dtype) for n in (2, 1))
    pieces = [(first, min(some, whole - first), samples_per_bin) for first in range(0, whole, some)]
    if whole < bins:
        pieces.append((whole, 1, T - whole * samples_per_bin))
    for series, tops, places, number in zip(real, power, sample, counts):
        for first, n, size in pieces:
            start, total = first * samples_per_bin, n * size
            np.square(series[2 * start : 2 * (start + total)], out=squares[: 2 * total])
            np.add(squares[0 : 2 * total : 2], squares[1 : 2 * total : 2], out=sums[:total])
            parts = sums[:total].reshape(n, size)
            place = parts.argmax(1)
            flat = place + np.arange(n) * size
            top = sums[flat]
            tops[first : first + n], places[first : first + n] = top, flat + start
            heard = np.flatnonzero(~(top <= limit))  # loud, or NaN
            if len(heard) > n // 16:
                number[first : first + n] = np.count_nonzero(parts > limit, axis=1)
            else:
                number[first + heard] = np.count_nonzero(parts[heard] > limit, axis=1)
    return torch.from_numpy(power), torch.from_numpy(sample), torch.from_numpy(counts)
