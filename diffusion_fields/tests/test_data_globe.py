"""Topography against its coefficients, and latitude-longitude grids in every format."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import pytest
import torch
from diffusion_fields.data import load
from diffusion_fields.data.globe import RotatedSource, swap_yz
from diffusion_fields.errors import FieldError
from diffusion_fields.oracle import fibonacci_sphere, real_sph_harm
from scipy.io import netcdf_file
from shared.data.root import DamagedData, MissingData


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def topography(root: Path, **options: Any) -> tuple[Any, RotatedSource]:
    data = load("planet_topography", root, **options)
    assert isinstance(data.train, RotatedSource)
    return data, data.train


def test_coefficients_spectrum_and_scale(tmp_path: Path, write_topography: Callable) -> None:
    values = write_topography(tmp_path / "t.msl", 6)
    data, source = topography(tmp_path, file="t.msl", degree=5, points=50)
    squares = np.array([(values[l, : l + 1] ** 2).sum() / (2 * l + 1) for l in range(6)])
    squares[0] = 0
    factor = 4 * np.pi / ((2 * np.arange(6) + 1) * squares).sum()
    assert np.allclose(data.truth.spectrum, squares * factor)
    assert data.truth.covariance(fibonacci_sphere(3)).diagonal() == pytest.approx([1, 1, 1])
    z = source.coefficients.numpy() / np.sqrt(factor)
    assert z[0] == 0
    assert np.allclose([z[4 + 2 + 1], z[4 + 2 - 1]], values[2, 1], rtol=1e-5)  # C with the cosine, S with the sine
    assert np.allclose(z[16 + 4], values[4, 0, 0], rtol=1e-5)
    assert data.denormalise(torch.ones(1, 1)).item() == pytest.approx(factor**-0.5)
    assert (data.kind, data.bounded, data.train.size) == ("real", False, None)
    with pytest.raises(FieldError, match="these fields are not Gaussian"):
        data.truth.sample(1, fibonacci_sphere(3), generator())


def turn(a: float) -> np.ndarray:
    return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])


def test_rotated_coefficients_are_the_function_at_rotated_points(toy_data: Path) -> None:
    _, source = topography(toy_data, degree=12)
    points, swap = fibonacci_sphere(60), np.eye(3)[[0, 2, 1]]
    z = source.coefficients.double().numpy()
    for angles in ([0.3, 1.1, -2.0], [2.0, 0.1, 5.0], [0.0, 3.1, 1.0]):
        rotated = source.rotated(torch.tensor(angles)[:, None])[0].double().numpy()
        a, b, g = angles
        rotation = turn(-a) @ swap @ turn(-b) @ swap @ turn(-g)
        assert np.linalg.det(rotation) == pytest.approx(1)
        there = real_sph_harm(points @ rotation.T, 12) @ z
        assert np.abs(real_sph_harm(points, 12) @ rotated - there).max() < 1e-5


def test_rotations_leave_the_spectrum(toy_data: Path) -> None:
    data, source = topography(toy_data, degree=12)
    rotated = source.rotated(6 * torch.rand(3, 40, generator=generator())).double()
    for l in range(1, 13):
        mean = (rotated[:, l * l : (l + 1) ** 2] ** 2).mean(1)
        assert (mean / data.truth.spectrum[l] - 1).abs().max() < 1e-4
    assert np.abs(swap_yz(4) @ swap_yz(4) - np.eye(25)).max() < 1e-9


def test_random_rotations_give_the_isotropic_covariance(toy_data: Path) -> None:
    data, _ = topography(toy_data, degree=4, points=30)
    n = 20_000
    drawn = data.train(torch.arange(n), generator()).signal[..., 0].double().numpy()
    exact = data.truth.covariance(fibonacci_sphere(30))
    products = drawn[:, :, None] * drawn[:, None]
    error = products.std(0) / np.sqrt(n)
    assert (np.abs(products.mean(0) - exact) / error).max() < 5
    assert np.array_equal(drawn, data.train(torch.arange(n), generator()).signal[..., 0].double().numpy())


def test_damaged_topography_is_named(tmp_path: Path, write_topography: Callable) -> None:
    path = tmp_path / "t.msl"
    write_topography(path, 4)
    lines = path.read_text().splitlines()

    def fails(message: str, changed: list[str]) -> None:
        path.write_text("\n".join(changed))
        with pytest.raises(DamagedData, match=message):
            load("planet_topography", tmp_path, file="t.msl", degree=4)

    fails("ends before l = 4, m = 2: degree 4 needs all lines up to it", lines[:-3])
    fails("line 3: l = 2, m = 0, expected is l = 1, m = 1", lines[:2] + lines[3:])
    fails("line 4: '2  0 1.0', expected is l m C S", [*lines[:3], "2  0 1.0", *lines[4:]])
    fails("line 4: a coefficient that is NaN or infinite", [*lines[:3], "2 0 nan 0", *lines[4:]])
    fails("all coefficients of degree 1..4 are 0", [" ".join([*line.split()[:2], "0", "0"]) for line in lines])
    fails("ends before l = 0, m = 0", [])
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedData, match="is no text"):
        load("planet_topography", tmp_path, file="t.msl")
    with pytest.raises(MissingData, match=r"topography/srtmp300.msl is missing"):
        load("planet_topography", tmp_path)
    with pytest.raises(FieldError, match="degree is 0"):
        load("planet_topography", tmp_path, degree=0)


# -- latitude and longitude -------------------------------------------------------------------------------------------

LAT, LON = np.linspace(90, -90, 5), np.arange(0, 360, 60.0)


def grid(holes: bool = False) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    t, p = (draw.normal(5, 3, (10, 5, 6)).astype(np.float32) for _ in range(2))
    if holes:
        t[:, 2, 3] = np.nan
    return {"t": t, "p": p}


def write_npz(path: Path, fields: dict[str, np.ndarray], lat: np.ndarray = LAT, lon: np.ndarray = LON) -> None:
    np.savez(path, lat=lat, lon=lon, **fields)  # type: ignore[arg-type]


def write_netcdf3(path: Path, fields: dict[str, np.ndarray]) -> None:
    with netcdf_file(path, "w") as file:
        for name, n in (("time", 10), ("lat", 5), ("lon", 6)):
            file.createDimension(name, n)
        for name, values in (("lat", LAT), ("lon", LON)):
            file.createVariable(name, "f8", (name,))[:] = values
        for name, values in fields.items():
            variable = file.createVariable(name, "f4", ("time", "lat", "lon"))
            variable._FillValue = np.float32(-999)
            variable[:] = np.nan_to_num(values, nan=-999)


def write_netcdf4(path: Path, fields: dict[str, np.ndarray]) -> None:
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": 10, "lat": 5, "lon": 6}
        for name, values in (("lat", LAT), ("lon", LON)):
            file.create_variable(name, (name,), data=values)
        for name, values in fields.items():
            filled = np.nan_to_num(values, nan=-999)
            variable = file.create_variable(name, ("time", "lat", "lon"), data=filled, fillvalue=np.float32(-999))
            variable.attrs["long_name"] = name


@pytest.mark.parametrize(("write", "file"), [(write_npz, "a.npz"), (write_netcdf3, "a.nc"), (write_netcdf4, "b.nc")])
def test_every_format_gives_the_same_fields(tmp_path: Path, write: Any, file: str) -> None:
    fields = grid(holes=True)
    write(tmp_path / file, fields)
    data = load("latlon_grid", tmp_path, file=file, variables=["t", "p"])
    assert (data.train.size, data.test.size, data.num_points, data.signal_dim) == (8, 2, 30, 2)
    batch = data.test(torch.tensor([1]), generator())
    assert batch.mask is not None
    assert batch.mask.logical_not().nonzero().tolist() == [[0, 2 * 6 + 3]]
    assert (batch.signal[0, 15] == 0).all()
    valid = batch.mask[0]
    raw = data.denormalise(batch.signal)[0][valid]
    expected = np.stack([fields["t"][9].ravel(), fields["p"][9].ravel()], -1)[valid.numpy()]
    assert np.abs(raw.numpy() - expected).max() < 1e-4


def test_coordinates_weights_and_scale(tmp_path: Path) -> None:
    write_npz(tmp_path / "latlon.npz", grid())
    data = load("latlon_grid", tmp_path, file="latlon.npz")
    batch = data.train(torch.arange(8), generator())
    assert batch.mask is None
    assert torch.allclose(batch.coords[:6], torch.tensor([0.0, 0, 1]).expand(6, 3), atol=1e-6)  # the pole's row is kept
    assert torch.allclose(batch.coords[12 + 1], torch.tensor([0.5, 3**0.5 / 2, 0]), atol=1e-6)
    assert data.weights is not None
    assert data.weights[:6].abs().max() < 1e-6
    assert data.weights.mean() == pytest.approx(1)
    assert data.weights[6] / data.weights[12] == pytest.approx(0.5**0.5)
    mean = (data.weights[:, None] * batch.signal).mean((0, 1))
    assert mean.abs().max() < 1e-5
    assert ((data.weights[:, None] * batch.signal**2).mean((0, 1)) - 1).abs().max() < 1e-5


def test_bad_grids_are_named(tmp_path: Path) -> None:
    def fails(message: str, fields: dict[str, np.ndarray], kind: type[Exception] = DamagedData, **more: Any) -> None:
        write_npz(tmp_path / "a.npz", fields, **{k: more.pop(k) for k in ("lat", "lon") if k in more})
        with pytest.raises(kind, match=message):
            load("latlon_grid", tmp_path, file="a.npz", **more)

    fails(r"no variable of \(time, lat, lon\), of shape \(times, 4, 6\)", grid(), lat=LAT[:4])
    fails("`lat` has entries beyond [+]-90", grid(), lat=LAT * 2)
    fails("`lon` has the shape", grid(), lon=LON[None])
    fails("variables: .* has no 'u'", grid(), FieldError, variables=["u"])
    fails("variables is empty", grid(), FieldError, variables=[])
    fails(r"different numbers of times \(p 10, t 9\)", {**grid(), "t": grid()["t"][:9]})
    fails("t is empty", {"t": grid()["t"][:0]})
    fails("t is constant", {"t": np.ones((4, 5, 6))})
    fields = grid()
    fields["t"][3, 1, 2] = np.inf
    fails("t is infinite at time 3, row 1, column 2", fields)
    fields = grid()
    fields["t"][4] = np.nan
    fails("every point of time 4 is NaN", fields)
    np.savez(tmp_path / "a.npz", lon=LON, **grid())  # type: ignore[arg-type]
    with pytest.raises(DamagedData, match="has no `lat`"):
        load("latlon_grid", tmp_path, file="a.npz")


def test_damaged_netcdf_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "latlon.nc"
    for write in (write_netcdf3, write_netcdf4):
        write(path, grid())
        path.write_bytes(path.read_bytes()[:700])
        with pytest.raises(DamagedData, match=r"latlon.nc is damaged"):
            load("latlon_grid", tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DamagedData, match=r"neither netCDF nor \.npz, or an empty file"):
        load("latlon_grid", tmp_path)
    write_netcdf4(path, grid())
    original = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name in ("xarray", "h5netcdf"):
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FieldError, match=r"pip install papers-diffusion-fields\[netcdf\]"):
        load("latlon_grid", tmp_path)
