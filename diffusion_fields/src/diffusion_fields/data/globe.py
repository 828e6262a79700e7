"""Fields on the sphere from files (section 4): a planet's topography, and grids of latitude and longitude.

planet_topography  spherical-harmonic coefficients, lines `l m C S`; each field is the planet at a random rotation. Its
                   C_l are known exactly, and it is not Gaussian.
latlon_grid        fields of (time, latitude, longitude) from netCDF or .npz; NaN is masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from shared.data.images import fingerprint
from shared.data.root import DamagedData, MissingData, data_root, unreadable
from torch import Tensor

from ..oracle import fibonacci_sphere, real_sph_harm
from .fields import FieldBatch, FieldSet, Source, check_at_least, check_signal
from .gaussian import sphere_truth
from .images import split
from .latlon import read_latlon


@dataclass(frozen=True)
class RotatedSource(Source):
    """One function on the sphere, each time at another rotation R: the field at p is the function at R p.

    The rotation acts on the coefficients. About z by an angle a it mixes the columns m and -m of a degree; the
    exchange P of y and z is a fixed matrix J for each degree, so R = Z(-a) P Z(-b) P Z(-g) takes three mixtures and
    two products (Pinchon and Hoggan). Uniform on SO(3): a, g uniform, cos b uniform.
    """

    coords: Float[Tensor, "n 3"]
    coefficients: Float[Tensor, " columns"]
    basis: Float[Tensor, "columns n"]
    swap: Float[Tensor, "columns columns"]
    order: Int64[Tensor, " columns"]
    mirror: Int64[Tensor, " columns"]

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        u = torch.rand(3, len(index), generator=generator, device=generator.device).to(self.coords.device)
        angles = torch.stack([2 * torch.pi * u[0], torch.acos(2 * u[1] - 1), 2 * torch.pi * u[2]])
        return FieldBatch(self.coords, (self.rotated(angles) @ self.basis)[..., None])

    def rotated(self, angles: Float[Tensor, "3 batch"]) -> Float[Tensor, "batch columns"]:
        """The coefficients of the function at these angles a, b, g."""
        z = self._about_z(self.coefficients.expand(angles.shape[1], -1), angles[0])
        z = self._about_z(z @ self.swap, angles[1])
        return self._about_z(z @ self.swap, angles[2])

    def _about_z(self, z: Float[Tensor, "batch columns"], angle: Float[Tensor, " batch"]) -> Tensor:
        turned = angle[:, None] * self.order  # column m takes cos(m a) z_m - sin(m a) z_-m
        return turned.cos() * z - turned.sin() * z[:, self.mirror]


def planet_topography(
    root: Path | None = None, file: str = "topography/srtmp300.msl", degree: int = 32, points: int = 768
) -> FieldSet:
    """A planet's topography up to degree L on the Fibonacci grid, at a random rotation each time.

    C goes with the cosine (column m of `oracle.real_sph_harm`), S with the sine (column -m). l = 0 is dropped, and one
    factor brings the variance over the sphere to 1: then C_l = sum_m (C^2 + S^2)/(2l + 1).

    Args:
        root: the folder of `file` (default: `DATA_ROOT`, else `./data`).
        file: text of columns l m C S, m = 0..l, from degree 0 to L at least.
        degree: L.
        points: N, of a field.

    Raises:
        MissingData, DamagedData (both `UserError`): no such file, or not as described.
        FieldError: degree or points below 1.
    """
    check_at_least("degree", degree, 1)
    check_at_least("points", points, 1)
    path = (data_root() if root is None else root) / file
    coefficients = read_coefficients(path, degree)
    coefficients[0] = 0.0
    factor = np.sqrt(4 * np.pi / (coefficients**2).sum())
    coefficients *= factor
    squares = np.split(coefficients**2, np.arange(1, degree + 1) ** 2)
    truth = sphere_truth(np.array([square.mean() for square in squares]), gaussian=False)
    coords = fibonacci_sphere(points)
    degrees = np.repeat(np.arange(degree + 1), 2 * np.arange(degree + 1) + 1)
    order = np.arange(len(degrees)) - degrees**2 - degrees
    source = RotatedSource(
        torch.from_numpy(coords).float(),
        torch.from_numpy(coefficients).float(),
        torch.from_numpy(real_sph_harm(coords, degree).T).float().contiguous(),
        torch.from_numpy(swap_yz(degree)).float(),
        torch.from_numpy(order),
        torch.from_numpy(degrees**2 + degrees - order),
    )
    return FieldSet(
        name="planet_topography",
        kind="real",
        detail=f"spherical-harmonic topography ({path.name}), degrees 1..{degree}, at random rotations",
        fingerprint=fingerprint(coefficients),
        num_points=points,
        coord_dim=3,
        signal_dim=1,
        train=source,
        test=source,
        bounded=False,
        shared_coords=source.coords,
        scale=(float(1 / factor),),
        unit="the file's unit",
        truth=truth,
    )


def read_coefficients(path: Path, degree: int) -> Float64[np.ndarray, " columns"]:
    """Coefficients up to a degree in the columns l^2 + l + m.

    Raises:
        MissingData, DamagedData (both `UserError`): no such file, a line that is not `l m C S`, or not in its place.
    """
    if not path.is_file():
        raise MissingData(f"{path} is missing: run `make data`, or put a text file with the columns l m C S there")
    out = np.zeros((degree + 1) ** 2)
    expected = ((l, m) for l in range(degree + 1) for m in range(l + 1))
    try:
        with path.open(encoding="ascii") as file:
            lines = (entry for entry in enumerate(file, 1) if entry[1].strip())
            for l, m in expected:
                number, line = next(lines, (0, ""))
                if not number:
                    raise DamagedData(f"{path} ends before l = {l}, m = {m}: degree {degree} needs all lines up to it")
                try:
                    read_l, read_m, cosine, sine = line.split()
                    place, values = (int(read_l), int(read_m)), (float(cosine), float(sine))
                except ValueError:
                    raise DamagedData(f"{path}, line {number}: {line.strip()[:40]!r}, expected is l m C S") from None
                if place != (l, m):
                    raise DamagedData(
                        f"{path}, line {number}: l = {place[0]}, m = {place[1]}, expected is l = {l}, m = {m}"
                    )
                if not np.isfinite(values).all():
                    raise DamagedData(f"{path}, line {number}: a coefficient that is NaN or infinite")
                out[l * l + l + m] = values[0]
                if m:
                    out[l * l + l - m] = values[1]
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError:
        raise DamagedData(f"{path} is no text: the columns l m C S are expected") from None
    if not out[1:].any():
        raise DamagedData(f"{path}: all coefficients of degree 1..{degree} are 0, no topography")
    return out


def swap_yz(degree: int) -> Float64[np.ndarray, "columns columns"]:
    """The matrix J that exchanges y and z: Y(x, z, y) = Y(x, y, z) J, symmetric, one block for each degree.

    Each block from the values of its harmonics at more points than it has columns.
    """
    points = fibonacci_sphere(4 * (2 * degree + 1))
    straight, swapped = (real_sph_harm(p, degree) for p in (points, points[:, [0, 2, 1]]))
    out = np.zeros(((degree + 1) ** 2,) * 2)
    for l in range(degree + 1):
        block = slice(l * l, (l + 1) ** 2)
        out[block, block] = np.linalg.lstsq(straight[:, block], swapped[:, block], rcond=None)[0]
    return out


@dataclass(frozen=True)
class GridSource(Source):
    """Fields [n, N, s] on one grid; where `mask` [n, N] is false the signal is 0 and says nothing."""

    coords: Float[Tensor, "points 3"]
    signal: Float[Tensor, "n points s"]
    mask: Bool[Tensor, "n points"] | None

    @property
    def size(self) -> int:
        return len(self.signal)

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        index = index.to(self.signal.device)
        return FieldBatch(self.coords, self.signal[index], None, None if self.mask is None else self.mask[index])


def latlon_grid(
    root: Path | None = None,
    file: str = "latlon.nc",
    variables: list[str] | None = None,
    test_fraction: float = 0.2,
) -> FieldSet:
    """Fields on a grid of latitudes and longitudes, all rows with those at the poles; one field for each time.

    Each variable is a channel, brought to mean 0 and variance 1 over the training part, weighted by area. `weights` are
    proportional to cos(latitude): a row at a pole stands for no area. A point that is NaN in any channel is masked.

    Args:
        root: the folder of `file` (default: `DATA_ROOT`, else `./data`).
        file: netCDF-3, netCDF-4 (`pip install papers-diffusion-fields[netcdf]`), or an .npz of `lat` and `lon` in
            degrees and the variables; each variable is [time, lat, lon].
        variables: the channels (default: all of [time, lat, lon]).
        test_fraction: the part kept for testing, the last times.

    Raises:
        MissingData, DamagedData (both `UserError`): no such file, or not as described.
        FieldError: an unknown variable; netCDF-4 without its reader.
    """
    path = (data_root() if root is None else root) / file
    latitude, longitude, values, names = read_latlon(path, variables)
    lat, lon = (part.ravel() for part in np.meshgrid(np.deg2rad(latitude), np.deg2rad(longitude), indexing="ij"))
    coords = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    weights = np.cos(lat).clip(0)
    weights /= weights.mean()
    train, test = split(len(values), test_fraction, str(path))
    signal = values.reshape(len(values), -1, len(names)).astype(np.float64)
    valid = np.asarray(~np.isnan(signal).any(-1))
    for part in (train, test):
        if not valid[part].any(1).all():
            field = part.start + int(np.flatnonzero(~valid[part].any(1))[0])
            raise DamagedData(f"{path}: every point of time {field} is NaN, at least one number is expected")
    area = (weights * valid[train])[..., None]
    known = np.where(valid[..., None], signal, 0.0)
    mean = (area * known[train]).sum((0, 1)) / area.sum()
    deviation = np.sqrt((area * (known[train] - mean) ** 2).sum((0, 1)) / area.sum())
    for name, spread in zip(names, deviation, strict=True):
        if not spread > 1e-12 * np.abs(values[np.isfinite(values)]).max():
            raise DamagedData(f"{path}: {name} is constant, it cannot be brought to unit variance")
    scaled = torch.from_numpy(np.where(valid[..., None], (signal - mean) / deviation, 0.0)).float()
    mask = None if valid.all() else torch.from_numpy(valid)
    check_signal(scaled, mask, str(path))
    grid = torch.from_numpy(coords).float()
    parts = [GridSource(grid, scaled[part], None if mask is None else mask[part]) for part in (train, test)]
    return FieldSet(
        name="latlon_grid",
        kind="real",
        detail=f"{', '.join(names)} of {path.name}: {len(values):,} times, {len(latitude)} x {len(longitude)} points",
        fingerprint=fingerprint(latitude, longitude, values),
        num_points=len(coords),
        coord_dim=3,
        signal_dim=len(names),
        train=parts[0],
        test=parts[1],
        bounded=False,
        shared_coords=grid,
        scale=tuple(deviation.tolist()),
        shift=tuple(mean.tolist()),
        unit="the file's units",
        size=(len(latitude), len(longitude)),
        weights=torch.from_numpy(weights).float(),
    )
