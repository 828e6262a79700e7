"""What every data source returns: fields as pairs of coordinates and signals (specification, sections 2.1 and 4).

A `FieldSet` holds its data resident as tensors, or draws its fields from a generator; either way a batch is one call,
`field_set.train(index, generator)`, and a function of its two arguments alone.

Coordinates. A pixel has the coordinates (x, y): x along the columns to the right, y along the rows downwards, both in
[-1, 1]; pixel (row i, column j) of an h x w image is number i w + j and lies at ((2j + 1)/w - 1, (2i + 1)/h - 1), its
centre. A grid of any other size over the same square is `pixel_grid(height, width)`, so that a finer one covers the
same domain. Points in space are (x, y, z) in [-1, 1]^3; points on the circle and the sphere are unit vectors.

Signals. Bounded data lie in [-1, 1], others have unit variance; `denormalise` gives the units of the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from ..errors import FieldError

Kind = Literal["real", "embedded", "synthetic"]
Placement = Literal["centre", "corner"]


class FieldBatch(NamedTuple):
    """B fields of N pairs: coordinates [N, c] where one grid is shared, else [B, N, c]; signal [B, N, s].

    `label` [B] is the class, `mask` [B, N] is true where a pair is valid; None where there is none.
    """

    coords: Tensor
    signal: Tensor
    label: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Source:
    """A training or test part. `size` fields, or None where they are drawn from the generator without end.

    Called with the numbers of B fields (of drawn ones only how many counts) and a generator, it gives a `FieldBatch`.
    """

    @property
    def size(self) -> int | None:
        return None

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        raise NotImplementedError

    def to(self, device: torch.device) -> Self:
        """The same part with its tensors on a device."""
        tensors = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(
            self, **{name: value.to(device) for name, value in tensors.items() if isinstance(value, Tensor)}
        )


@dataclass(frozen=True)
class Truth:
    """The exact law of random fields f = sum_k z_k basis_k with independent z_k of variance `variances[k]`.

    Args:
        variances: of the coefficients, one per column of the basis.
        degree: l (sphere) or m (circle) of each column; column 0 is the constant.
        spectrum: variance of one coefficient of each degree, from 0: C_l on the sphere, pi v_m on the circle.
        basis: the orthonormal functions at points [n, c] -> [n, columns], in float64.
        gaussian: whether the coefficients are Gaussian (elsewhere the covariance alone is known).
    """

    variances: Float64[np.ndarray, " columns"]
    degree: np.ndarray
    spectrum: Float64[np.ndarray, " degrees"]
    basis: Callable[[np.ndarray], np.ndarray]
    gaussian: bool = True

    def covariance(self, a: np.ndarray, b: np.ndarray | None = None) -> Float64[np.ndarray, "n m"]:
        """K(a, b) between points a [n, c] and b [m, c] (default: a)."""
        left = self.basis(np.asarray(a, np.float64))
        right = left if b is None else self.basis(np.asarray(b, np.float64))
        return (left * self.variances) @ right.T

    def sample(self, fields: int, points: np.ndarray, generator: torch.Generator) -> Float[Tensor, "fields n 1"]:
        """Exact samples at any points; only where the law is Gaussian."""
        if not self.gaussian:
            raise FieldError("these fields are not Gaussian: draw them with `field_set.test`")
        scaled = torch.from_numpy(self.basis(np.asarray(points, np.float64)) * np.sqrt(self.variances))
        normal = torch.randn(fields, len(self.variances), generator=generator, dtype=torch.float64)
        return (normal @ scaled.T).float()[..., None]


@dataclass(frozen=True)
class FieldSet:
    """A data set of fields.

    Args:
        name: of the data set.
        kind: `real` (files on disk), `embedded` (comes with a library) or `synthetic` (drawn by a recipe of ours).
        detail: what the data are and where they come from, in words: to be shown beside every number made from them.
        fingerprint: SHA-256 of the contents, or of the recipe.
        num_points: N, pairs of a field.
        coord_dim: c.
        signal_dim: s.
        train: the training part.
        test: the test part.
        bounded: the signal lies in [-1, 1] (else it has unit variance).
        shared_coords: [N, c], the grid of all fields, where there is one.
        num_classes: of the labels, where there are any.
        scale, shift: a signal in the units of the data is `scale * signal + shift`.
        unit: what those units are.
        size: height and width of images.
        weights: [N], the area that a point of the grid stands for, of mean 1, where they differ.
        truth: the exact law, where it is known.
    """

    name: str
    kind: Kind
    detail: str
    fingerprint: str
    num_points: int
    coord_dim: int
    signal_dim: int
    train: Source
    test: Source
    bounded: bool
    shared_coords: Float[Tensor, "n c"] | None = None
    num_classes: int | None = None
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    unit: str = "1"
    size: tuple[int, int] | None = None
    weights: Float[Tensor, " n"] | None = None
    truth: Truth | None = None

    def denormalise(self, signal: Float[Tensor, "... s"]) -> Float[Tensor, "... s"]:
        """A signal in the units of the data (`unit`); a bounded one is cut to its range first."""
        scale, shift = (torch.tensor(v, dtype=signal.dtype, device=signal.device) for v in (self.scale, self.shift))
        return (signal.clamp(-1, 1) if self.bounded else signal) * scale + shift

    def to(self, device: torch.device) -> FieldSet:
        """The same set with its tensors on a device; draws there have other bits than on a CPU."""
        coords = None if self.shared_coords is None else self.shared_coords.to(device)
        weights = None if self.weights is None else self.weights.to(device)
        train, test = self.train.to(device), self.test.to(device)
        return dataclasses.replace(self, shared_coords=coords, weights=weights, train=train, test=test)


def pixel_grid(height: int, width: int, placement: Placement = "centre") -> Float[Tensor, "n 2"]:
    """Coordinates (x, y) of the pixels of an image, row by row; x along columns, y along rows (see above).

    Args:
        placement: `centre`, (2i + 1)/n - 1, or `corner`: the outermost pixels lie at -1 and 1.
    """
    for name, n in (("height", height), ("width", width)):
        check_at_least(name, n, 1 if placement == "centre" else 2)
    if placement == "centre":
        y, x = ((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in (height, width))
    elif placement == "corner":
        y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (height, width))
    else:
        raise FieldError(f"placement is {placement!r}: it has to be centre or corner")
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns, rows], -1).reshape(-1, 2).float()


def space_grid(side: int) -> Float[Tensor, "n 3"]:
    """Coordinates (x, y, z) of the centres of side^3 voxels of [-1, 1]^3; of an array [x, y, z] read in C order."""
    check_at_least("side", side, 1)
    centres = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
    return torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), -1).reshape(-1, 3).float()


def check_coords(coords: Tensor | np.ndarray, coord_dim: int, where: str) -> None:
    """Coordinates have to be [N, c] or [B, N, c], finite and at least one.

    Raises:
        FieldError: they are not; `where` says whose they are.
    """
    if coords.ndim not in (2, 3) or coords.shape[-1] != coord_dim:
        raise FieldError(f"{where}: coordinates of shape {tuple(coords.shape)}, expected is (N, {coord_dim})")
    if not coords.shape[-2]:
        raise FieldError(f"{where}: no coordinates, at least one is expected")
    if not torch.as_tensor(coords).isfinite().all():
        raise FieldError(f"{where}: coordinates that are NaN or infinite, finite numbers are expected")


def check_signal(signal: Float[Tensor, "b n s"], mask: Bool[Tensor, "b n"] | None, where: str) -> None:
    """A signal has to be finite wherever it is not masked.

    Raises:
        FieldError: it is not; `where` says whose it is.
    """
    wrong = ~signal.isfinite().all(-1)
    if mask is not None:
        wrong &= mask
    if wrong.any():
        field, point = wrong.nonzero()[0].tolist()
        raise FieldError(
            f"{where}: the signal of field {field} at point {point} is NaN or infinite: a finite number or a mask that "
            "leaves the point out is expected"
        )


def check_at_least(name: str, value: Any, least: float) -> None:
    """Raises FieldError where an option is below its least value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise FieldError(f"{name} is {value!r}: it has to be at least {least:g}")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises FieldError where an option is none of its values."""
    if value not in choices:
        raise FieldError(f"{name} is {value!r}: it has to be {' or '.join(choices)}")


def recipe_fingerprint(name: str, **recipe: Any) -> str:
    """SHA-256 of a recipe: its name and numbers."""
    return hashlib.sha256(json.dumps({"recipe": name, **recipe}, sort_keys=True).encode()).hexdigest()


def stream(seed: int, use: str, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one use: each (seed, use, number) has its own draws, in whatever order they are asked for."""
    digest = hashlib.blake2b(f"{seed} {use} {number}".encode(), digest_size=4).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little"))


def random_rotations(batch: int, generator: torch.Generator) -> Float[Tensor, "batch 3 3"]:
    """Rotations of SO(3) from its uniform (Haar) distribution: unit quaternions of four normal numbers."""
    w, x, y, z = torch.nn.functional.normalize(
        torch.randn(batch, 4, generator=generator, device=generator.device), dim=-1
    ).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
