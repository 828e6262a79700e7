"""How good generated fields are (section 5 of the paper): Frechet distance, coverage, Chamfer, and spectra.

Of features of images: `frechet`, `knn_metrics`. Of surfaces: `chamfer_allpairs`, `mmd_cov`. Of Gaussian random fields,
whose law is known: `grf_metrics`, where true samples of the same number give the noise of every figure.
All of them in float64, of NumPy arrays or tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from diffusion_fields import kernels
from diffusion_fields.errors import FieldError

Array = Tensor | np.ndarray
ROWS = 1000  # of a matrix of distances, held at a time


def _doubles(name: str, values: Array, *shape: int | None) -> Tensor:
    """As float64; None in `shape` stands for any positive number."""
    tensor = torch.as_tensor(values).detach().double()
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    if tensor.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)):
        raise FieldError(f"{name} of shape {tuple(tensor.shape)}: ({sizes}) is expected")
    if not tensor.numel():
        raise FieldError(f"{name} of shape {tuple(tensor.shape)} is empty: at least one sample is needed")
    if not bool(tensor.isfinite().all()):
        raise FieldError(f"{name} holds NaN or infinity: the samples, or what made the features, have diverged")
    return tensor


def _root_trace(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """tr (S_a S_b)^1/2 for S_a = a' a, S_b = b' b.

    It is the sum of the singular values of a b', so no covariance is formed and no square root of a nearly singular one
    taken: `shared.metrics.distances` (eigenvalues of S_a S_b, not symmetric) agrees where both covariances are regular,
    but loses half the digits where a feature is constant, as activations that are always 0 are.
    """
    factors = [torch.linalg.qr(each, mode="r").R for each in (a, b)]
    return torch.linalg.svdvals(factors[0] @ factors[1].T).sum()


def frechet(feats_a: Float[Array, "n d"], feats_b: Float[Array, "m d"]) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2), covariances unbiased.

    Raises:
        FieldError: fewer than two samples, unequal widths, or numbers that are not finite.
    """
    a = _doubles("features", feats_a, None, None)
    b = _doubles("features", feats_b, None, a.shape[1])
    if min(len(a), len(b)) < 2:
        raise FieldError(f"{len(a)} and {len(b)} samples: a covariance needs at least 2 of each")
    means = a.mean(0), b.mean(0)
    a, b = ((each - mean) / (len(each) - 1) ** 0.5 for each, mean in zip((a, b), means, strict=True))
    spread = a.square().sum() + b.square().sum() - 2 * _root_trace(a, b)
    return float((means[0] - means[1]).square().sum() + spread.clamp_min(0))


def knn_metrics(real: Float[Array, "n d"], fake: Float[Array, "m d"], k: int = 3) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    A point's ball reaches to its k-th nearest other point of its own set, and holds what lies on its edge. Distances
    are of differences: `shared.metrics.coverage` takes |a|^2 + |b|^2 - 2ab, whose rounding moves points off that edge.

    Raises:
        FieldError: unequal widths, numbers that are not finite, or k not below the sizes of both sets.
    """
    a = _doubles("features", real, None, None)
    b = _doubles("features", fake, None, a.shape[1])
    if not 1 <= k < min(len(a), len(b)):
        raise FieldError(f"k is {k} for {len(a)} real and {len(b)} generated samples: 1 <= k < both is needed")
    reach_a, reach_b = (torch.cat([d.kthvalue(k + 1, 1).values for _, d in _distances(own, own)]) for own in (a, b))
    precise, recalled, covered, inside = torch.zeros(len(b), dtype=torch.bool, device=b.device), 0, 0, 0
    for rows, distance in _distances(a, b):
        in_real = distance <= reach_a[rows, None]
        precise |= in_real.any(0)
        inside += int(in_real.sum())
        covered += int(in_real.any(1).sum())
        recalled += int((distance <= reach_b).any(1).sum())
    return {
        "precision": float(precise.double().mean()),
        "recall": recalled / len(a),
        "density": inside / (k * len(b)),
        "coverage": covered / len(a),
    }


def _distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Iterator[tuple[Tensor, Float[Tensor, "rows m"]]]:
    """Some rows of the matrix of distances at a time."""
    for rows in torch.arange(len(a), device=a.device).split(ROWS):
        yield rows, torch.cdist(a[rows], b, compute_mode="donot_use_mm_for_euclid_dist")


def chamfer_allpairs(generated: Float[Array, "n M 3"], real: Float[Array, "m K 3"]) -> Float[Tensor, "n m"]:
    """Mean squared distance to the nearest point, both ways, summed: `kernels.chamfer_allpairs`, of arrays as well."""
    clouds = torch.as_tensor(generated), torch.as_tensor(real)
    common = torch.promote_types(clouds[0].dtype, clouds[1].dtype)
    return kernels.chamfer_allpairs(clouds[0].to(common), clouds[1].to(common))


def mmd_cov(chamfer: Float[Array, "generated real"]) -> tuple[float, float]:
    """(MMD, COV): mean over real of the distance to the nearest generated; share of the real that are nearest to one.

    Raises:
        FieldError: no matrix, an empty one, or distances that are not finite.
    """
    distance = _doubles("the matrix of distances [generated, real]", chamfer, None, None)
    return float(distance.amin(0).mean()), len(distance.argmin(1).unique()) / distance.shape[1]


@dataclass(frozen=True)
class GRFMetrics:
    """Args:
    spectrum_ratio: C_l(sample) / C_l for every degree l (on the circle: mode) whose true variance is not 0.
    grain: g, the mean squared residual off the band.
    w2_sq: squared Wasserstein distance of the Gaussians of the coefficients, second moments about 0.
    w2_sq_noise: the same of as many true samples.
    kurtosis: of the coefficients, averaged over those of the band; 3 for Gaussians.
    """

    spectrum_ratio: dict[int, float]
    grain: float
    w2_sq: float
    w2_sq_noise: float
    kurtosis: float


def coefficients(
    samples: Float[Array, "n points"], basis: Float[Array, "points modes"]
) -> tuple[Float[Tensor, "n modes"], Float[Tensor, ""]]:
    """(coefficients on the basis by least squares, mean squared residual)."""
    matrix = _doubles("the basis", basis, None, None)
    fields = _doubles("samples", samples, None, len(matrix))
    if matrix.shape[1] > len(matrix):
        raise FieldError(f"{matrix.shape[1]} modes from {len(matrix)} points: give at least one point for each mode")
    found = torch.linalg.lstsq(matrix, fields.T).solution.T
    return found, (fields - found @ matrix.T).square().mean()


def w2_sq_second_moments(found: Float[Tensor, "n modes"], variances: Float[Tensor, " modes"]) -> float:
    """Squared Wasserstein distance of N(0, E a a') and N(0, diag(variances)) (Bures)."""
    a = found / len(found) ** 0.5
    return float(a.square().sum() + variances.sum() - 2 * _root_trace(a, variances.sqrt().diag()))


def grf_metrics(
    samples: Float[Array, "n points"],
    basis: Float[Array, "points modes"],
    variances: Float[Array, " modes"],
    degrees: Int[Array, " modes"],
    seed: int = 0,
) -> GRFMetrics:
    """What is known of a Gaussian random field against what was sampled.

    Args:
        samples: values of one channel at the points.
        basis: orthonormal functions at the points, the constant among them.
        variances: true variances of their coefficients (0 for the constant).
        degrees: l of every column; on the circle the mode.
        seed: of the true samples.

    Raises:
        FieldError: shapes that do not fit, more modes than points, numbers that are not finite.
    """
    found, residual = coefficients(samples, basis)
    modes = found.shape[1]
    true = _doubles("the variances", variances, modes).to(found)
    degree = _doubles("the degrees", degrees, modes).to(found)
    second = found.square().mean(0)
    ratio = {
        int(l): float(second[degree == l].sum() / true[degree == l].sum())
        for l in degree.unique()
        if bool(true[degree == l].sum() > 0)
    }
    generator = torch.Generator().manual_seed(seed)
    exact = torch.randn(found.shape, generator=generator, dtype=torch.float64).to(found) * true.sqrt()
    fourth = found.pow(4).mean(0) / second.square().clamp_min(torch.finfo(torch.float64).tiny)
    return GRFMetrics(
        ratio,
        float(residual),
        w2_sq_second_moments(found, true),
        w2_sq_second_moments(exact, true),
        float(fourth[true > 0].mean()),
    )


class SpectrumRatio(Metric):
    """r_l in a loop: `update` with fields at the basis' points, `compute` gives one ratio for every degree.

    Args:
        basis, variances, degrees: as of `grf_metrics`.
    """

    full_state_update = False
    basis: Tensor
    variances: Tensor
    degrees: Tensor
    squares: Tensor
    seen: Tensor

    def __init__(
        self, basis: Float[Array, "points modes"], variances: Float[Array, " modes"], degrees: Int[Array, " modes"]
    ) -> None:
        super().__init__()
        matrix = _doubles("the basis", basis, None, None)
        self.set_dtype(torch.float64)
        self.register_buffer("basis", matrix)
        self.register_buffer("variances", _doubles("the variances", variances, matrix.shape[1]))
        self.register_buffer("degrees", _doubles("the degrees", degrees, matrix.shape[1]))
        self.add_state("squares", torch.zeros(matrix.shape[1], dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("seen", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, samples: Float[Tensor, "n points"]) -> None:
        found, _ = coefficients(samples, self.basis)
        self.squares = self.squares + found.square().sum(0)
        self.seen = self.seen + len(found)

    def compute(self) -> Float[Tensor, " degrees"]:
        """For every degree whose variance is not 0, ascending."""
        rows = [self.degrees == l for l in self.degrees.unique()]
        known = [row for row in rows if bool(self.variances[row].sum() > 0)]
        return torch.stack([self.squares[row].sum() / self.seen / self.variances[row].sum() for row in known])
