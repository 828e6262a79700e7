"""Reads (time, latitude, longitude) fields from netCDF and .npz files (section 4, `latlon_grid`).

netCDF-3 is read by SciPy; netCDF-4, which is HDF5, by xarray where the extra `netcdf` is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from shared.data.root import DamagedData, MissingData, unreadable

from ..errors import FieldError

LATITUDES, LONGITUDES = ("lat", "latitude"), ("lon", "longitude")
NETCDF3, NETCDF4 = b"CDF", b"\x89HDF"
EXTRA = "pip install papers-diffusion-fields[netcdf]"

Arrays = dict[str, tuple[tuple[str, ...] | None, np.ndarray]]  # name: (dimensions where they have names, values)


def read_latlon(
    path: Path, variables: list[str] | None
) -> tuple[Float[np.ndarray, " lat"], Float[np.ndarray, " lon"], Float[np.ndarray, "time lat lon s"], list[str]]:
    """Latitudes and longitudes in degrees, the variables' values with NaN where there are none, their names.

    Raises:
        MissingData, DamagedData (both `UserError`): no such file, or not a file of such fields.
        FieldError: an unknown variable; netCDF-4 without its reader.
    """
    arrays = _read(path)
    latitude = _axis(path, arrays, LATITUDES, 90.0)
    longitude = _axis(path, arrays, LONGITUDES, 360.0)
    shape = len(latitude), len(longitude)
    dims = [{arrays[n][0][0] for n in names if n in arrays and arrays[n][0]} for names in (LATITUDES, LONGITUDES)]  # type: ignore[index]
    fields = {
        name: values
        for name, (own, values) in arrays.items()
        if values.ndim == 3
        and values.shape[1:] == shape
        and values.dtype.kind in "fiu"
        and (own is None or (own[1] in dims[0] and own[2] in dims[1]))
    }
    if variables is not None and not variables:
        raise FieldError("variables is empty: name at least one, or leave it out")
    if not fields:
        raise DamagedData(f"{path} has no variable of (time, lat, lon), of shape (times, {shape[0]}, {shape[1]})")
    for name in variables or []:
        if name not in fields:
            raise FieldError(f"variables: {path} has no {name!r} of (time, lat, lon), there are {', '.join(fields)}")
    names = list(variables or sorted(fields))
    times = {name: len(fields[name]) for name in names}
    if len(set(times.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in times.items())
        raise DamagedData(f"{path}: variables of different numbers of times ({listed}): choose `variables`")
    if not times[names[0]] or not all(shape):
        raise DamagedData(f"{path}: {names[0]} is empty, at least two times are expected")
    values = np.stack([fields[name].astype(np.float64) for name in names], -1)
    if np.isinf(values).any():
        time, row, column, channel = np.argwhere(np.isinf(values))[0]
        raise DamagedData(
            f"{path}: {names[channel]} is infinite at time {time}, row {row}, column {column}: a number is expected, "
            "or NaN where there is none"
        )
    return latitude, longitude, values, names


def _axis(path: Path, arrays: Arrays, names: tuple[str, ...], most: float) -> np.ndarray:
    found = next((arrays[name][1] for name in names if name in arrays), None)
    if found is None:
        raise DamagedData(f"{path} has no `{names[0]}`: degrees are expected under that name")
    if found.ndim != 1 or not found.size or found.dtype.kind not in "fiu":
        raise DamagedData(f"{path}: `{names[0]}` has the shape {found.shape}, one row of degrees is expected")
    degrees = found.astype(np.float64)
    if not (np.abs(degrees) <= most + 1e-6).all():
        raise DamagedData(f"{path}: `{names[0]}` has entries beyond +-{most:g}: degrees are expected")
    return degrees


def _read(path: Path) -> Arrays:
    if not path.is_file():
        raise MissingData(f"{path} is missing: a netCDF or .npz file of (time, lat, lon) is expected there")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise unreadable(path, error) from None
    reader: Callable[[Path], Arrays]
    if magic[:2] == b"PK":
        reader = _read_npz
    elif magic[:3] == NETCDF3:
        reader = _read_netcdf3
    elif magic == NETCDF4:
        reader = _read_netcdf4
    else:
        raise DamagedData(f"{path} begins with {magic!r}: neither netCDF nor .npz, or an empty file")
    try:
        return reader(path)
    except FieldError:
        raise
    except Exception as error:  # each of the readers has its own kinds for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedData(f"{path} is damaged ({reason[:100]}): get it anew") from None


def _read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return {name: (None, archive[name]) for name in archive}


def _read_netcdf3(path: Path) -> Arrays:
    from scipy.io import netcdf_file

    with netcdf_file(path, "r", mmap=False, maskandscale=True) as file:
        return {name: (v.dimensions, _filled(v[:])) for name, v in file.variables.items() if v.shape}


def _read_netcdf4(path: Path) -> Arrays:
    try:
        import h5netcdf  # noqa: F401
        import xarray
    except ImportError:
        raise FieldError(f"{path} is netCDF-4, which needs an extra: {EXTRA} (netCDF-3 is read without)") from None
    with xarray.open_dataset(path, engine="h5netcdf", decode_times=False) as file:
        return {str(n): (tuple(map(str, v.dims)), np.asarray(v.values)) for n, v in file.variables.items() if v.shape}


def _filled(values: Any) -> np.ndarray:
    """A masked array with NaN where it is masked, in this machine's byte order."""
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    return np.asarray(values).astype(values.dtype.newbyteorder("="))
