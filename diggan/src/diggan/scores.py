"""Scores that the specification defines (section 9) and no library has in this form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

from diggan.kernels.fused_diffaugment.reference import hole

ZERO = 0.05  # |x| up to which a pixel counts as mid-grey, where cut-out and translation leave zeros
INSIDE = 0.25  # share of a hole that has to lie in the image
CHUNK = 500
SPLITS = 10  # of the samples, for the inception score


def inception_score(probabilities: Float[Tensor, "n classes"], splits: int = SPLITS) -> tuple[float, float]:
    """exp E KL(p(y|x) || p(y)): mean and population deviation over equal splits, in order; the remainder is dropped.

    Raises:
        UserError: fewer samples than splits.
    """
    size = len(probabilities) // splits
    if splits < 1 or size < 1:
        raise UserError(f"{len(probabilities)} samples in {splits} splits: at least one in each is needed")
    parts = probabilities.double()[: size * splits].view(splits, size, -1)
    marginal = parts.mean(1, keepdim=True)
    # A class that no sample of a split has is 0 in both terms, where a quotient would be 0 / 0.
    kl = (torch.xlogy(parts, parts) - torch.xlogy(parts, marginal)).sum(2).mean(1)
    return float(kl.exp().mean()), float(kl.exp().std(correction=0))


def kernel_distance(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float | None]:
    """KID (Binkowski et al. 2018): unbiased MMD^2 with (x.y / d + 1)^3, mean and deviation over random subsets.

    Subsets of min(size, n, m) points, drawn without repetition. Where that is all points of both sets, one subset says
    it all, and there is no deviation (None).

    Raises:
        UserError: fewer than 2 samples.
    """
    size = min(size, len(real), len(fake))
    if size < 2:
        raise UserError(f"{len(real)} real and {len(fake)} generated samples: at least 2 of each are needed")
    generator = torch.Generator().manual_seed(seed)
    # Which points are in which subset, [points, subsets]: sums over all subsets are then one product with a kernel.
    inside = []
    for points in (real, fake):
        chosen = torch.zeros(len(points), subsets, dtype=torch.float64)
        for column in range(subsets):
            chosen[torch.randperm(len(points), generator=generator)[:size], column] = 1
        inside.append(chosen)
    values = -2 * _sums(real, fake, *inside) / size**2
    for points, chosen in zip((real, fake), inside):
        own = (points.double().square().sum(1) / points.shape[1] + 1) ** 3
        values += (_sums(points, points, chosen, chosen) - own @ chosen) / (size * (size - 1))
    whole = size == len(real) == len(fake)
    return float(values.mean()), None if whole else float(values.std(correction=0))


def _sums(a: Tensor, b: Tensor, in_a: Tensor, in_b: Tensor) -> Float[Tensor, " subsets"]:
    """Of (x.y / d + 1)^3 over the pairs of every subset, a chunk of rows at a time."""
    total = torch.zeros(in_a.shape[1], dtype=torch.float64)
    for rows, chosen in zip(a.double().split(CHUNK), in_a.split(CHUNK)):
        k = rows @ b.double().T / a.shape[1] + 1
        total += (chosen * ((k * k * k) @ in_b)).sum(0)
    return total


def nearest_training_distance(samples: Float[Tensor, "n ..."], training: Float[Tensor, "m ..."]) -> Float[Tensor, " n"]:
    """Root mean square distance of every sample to the training image nearest to it: 0 where it was memorised."""
    flat = training.flatten(1)
    nearest = [torch.cdist(part.flatten(1), flat).amin(1) for part in samples.split(CHUNK)]
    return torch.cat(nearest) / flat.shape[1] ** 0.5


def leaks(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Whether an augmentation shows in an image (1 or 0; ours): a hole of cut-out's size, or an empty outermost line.

    A hole counts at every offset of section 6 with at least a quarter of it inside the image; empty means |x| <= 0.05
    in every channel.
    """
    height, width = images.shape[-2:]
    empty = (images.abs() <= ZERO).all(1).double()[:, None]
    lines = empty[:, 0].mean(2), empty[:, 0].mean(1)
    edge = torch.stack([line[:, place] == 1 for line in lines for place in (0, -1)]).any(0)
    rows, columns = _windows(height), _windows(width)
    # Sums over every window by two products with 0/1 matrices.
    filled = torch.einsum("rh,nhw,cw->nrc", rows, empty[:, 0], columns)
    area = rows.sum(1)[:, None] * columns.sum(1)
    counted = area >= INSIDE * hole(height) * hole(width)
    holes = ((filled == area) & counted).flatten(1).any(1)
    return (holes | edge).double()


def _windows(size: int) -> Float[Tensor, "offsets size"]:
    """What a hole covers of an axis, for every offset; the part outside counts for nothing here."""
    c = hole(size)
    place = torch.arange(size)
    offsets = torch.arange(size + 1 - c % 2)[:, None] - c // 2
    return ((place >= offsets) & (place < offsets + c)).double()
