"""Sky maps as files: the multi-order FITS standard of the community's alerts, and flat maps as others publish them.

Written: one binary table of UNIQ, PROBDENSITY (sr-1) and, where there are distances, DISTMU, DISTSIGMA (Mpc) and
DISTNORM (Mpc-2). Read: the same, and flat maps (INDXSCHM IMPLICIT) in either order, of probabilities or densities.
"""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from mma_realtime.errors import SkyMapError
from mma_realtime.sky import moc
from mma_realtime.sky.skymap import DISTANCES, SkyMap
from mma_realtime.times import gps_from_utc, mjd, utc_iso

LARGEST = 512 * 2**20  # bytes, unpacked: multi-order maps have some 1e6, flat maps of nside 1024 in four columns 4e8
EQUATORIAL = ("C", "Q", "CELESTIAL", "EQUATORIAL", "ICRS")  # COORDSYS
FLAT_COLUMNS = ("PROBDENSITY", "PROB", "PROBABILITY")
UNITS = {"distmu": "Mpc", "distsigma": "Mpc", "distnorm": "Mpc-2"}


def to_bytes(skymap: SkyMap) -> bytes:
    """The map as a multi-order FITS file; equal maps give equal bytes."""
    columns = [
        fits.Column("UNIQ", "K", array=skymap.uniq),
        fits.Column("PROBDENSITY", "D", unit="sr-1", array=skymap.probdensity),
    ]
    if skymap.distmu is not None:
        columns += [fits.Column(name.upper(), "D", unit=UNITS[name], array=getattr(skymap, name)) for name in DISTANCES]
    table = fits.BinTableHDU.from_columns(columns)
    table.header.extend(_cards(skymap), unique=True)
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    return out.getvalue()


def _cards(skymap: SkyMap) -> list[tuple[str, Any, str]]:
    meta = skymap.meta
    cards: list[tuple[str, Any, str]] = [
        ("PIXTYPE", "HEALPIX", "HEALPix pixels"),
        ("ORDERING", "NUNIQ", "UNIQ = 4 * 4^level + nested index"),
        ("COORDSYS", "C", "equatorial"),
        ("MOCORDER", int(moc.level_ipix(skymap.uniq)[0].max()), "finest level"),
        ("INDXSCHM", "EXPLICIT", "a UNIQ in each row"),
    ]
    if "gps" in meta:
        cards += [
            ("DATE-OBS", utc_iso(meta["gps"], 6).removesuffix("Z"), "UTC of the signal"),
            ("MJD-OBS", mjd(meta["gps"]), "the same as a modified Julian day"),
        ]
    for key, name in (("object", "OBJECT"), ("creator", "CREATOR"), ("origin", "ORIGIN")):
        if key in meta:
            cards.append((name, str(meta[key]), ""))
    if "instruments" in meta:
        cards.append(("INSTRUME", ",".join(meta["instruments"]), "detectors that the map was made from"))
    if skymap.distmu is not None and np.isfinite(skymap.distmu).any():
        mean, std = skymap.distance_mean_std
        cards += [("DISTMEAN", mean, "mean of the distance (Mpc)"), ("DISTSTD", std, "its standard deviation (Mpc)")]
    return cards


def write_fits(skymap: SkyMap, path: str | Path) -> None:
    """Write the map; packed where the name ends in `.gz`. A file of that name is replaced."""
    path, content = Path(path), to_bytes(skymap)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_fits(source: str | Path | bytes) -> SkyMap:
    """A sky map from a file or its bytes, packed by gzip or not.

    Raises:
        SkyMapError: not there, too large, cut off, no FITS, no sky map, or a map that is none (see `SkyMap`).
    """
    name = "the sky map" if isinstance(source, bytes) else str(source)
    if isinstance(source, bytes):
        content = source
    else:
        try:
            if Path(source).stat().st_size > LARGEST:
                raise SkyMapError(f"{name} has more than {LARGEST >> 20} MiB: no sky map of an alert is so large")
            content = Path(source).read_bytes()
        except OSError as error:
            raise SkyMapError(f"cannot read {name}: {error.strerror}") from None
    try:
        return _parse(_unpacked(content))
    except SkyMapError as error:
        raise SkyMapError(f"{name}: {error}") from None
    # Whatever a broken file makes astropy stumble over, it is the file.
    except Exception as error:
        raise SkyMapError(
            f"{name} is no FITS file that can be read ({type(error).__name__}): is it cut off?"
        ) from error


def _unpacked(content: bytes) -> bytes:
    if content.startswith(b"\x1f\x8b"):
        stream = zlib.decompressobj(wbits=31)
        content = stream.decompress(content, LARGEST + 1)
        if len(content) <= LARGEST and not stream.eof:
            raise SkyMapError("the packed file is cut off")
    if len(content) > LARGEST:
        raise SkyMapError(f"it has more than {LARGEST >> 20} MiB: no sky map of an alert is so large")
    if not content.startswith(b"SIMPLE  ="):
        raise SkyMapError("it does not begin as a FITS file does")
    return content


def _parse(content: bytes) -> SkyMap:
    # A repaired card is no news, and a file cut off is told below.
    with warnings.catch_warnings(action="ignore"), fits.open(io.BytesIO(content), lazy_load_hdus=False) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
        if not tables:
            raise SkyMapError("it has no table")
        table = tables[0]
        header = table.header
        rows, width = int(header["NAXIS2"]), int(header["NAXIS1"])
        if table.fileinfo()["datLoc"] + rows * width > len(content):
            raise SkyMapError(f"it is cut off: {rows} rows of {width} bytes are announced")
        if str(header.get("COORDSYS", "C")).strip().upper() not in EQUATORIAL:
            raise SkyMapError(f"its coordinates are {header['COORDSYS']!r}: equatorial ones (C) are needed")
        columns = {column.upper(): column for column in table.columns.names}
        meta = _meta(header)
        if "UNIQ" not in columns:
            return _flat(table, columns, meta)
        if "PROBDENSITY" not in columns:
            raise SkyMapError("it has no column PROBDENSITY: probabilities per pixel are not densities")
        uniq = np.asarray(table.data[columns["UNIQ"]])
        if uniq.dtype.kind not in "iu" or uniq.ndim != 1:
            raise SkyMapError("its column UNIQ has no integers")
        mu, sigma, norm = (_numbers(table, columns[n.upper()]) if n.upper() in columns else None for n in DISTANCES)
        return SkyMap(uniq.astype(np.int64), _numbers(table, columns["PROBDENSITY"]), mu, sigma, norm, meta)


def _numbers(table: fits.BinTableHDU, column: str) -> np.ndarray:
    return np.asarray(table.data[column], dtype=np.float64).ravel()


def _flat(table: fits.BinTableHDU, columns: dict[str, str], meta: dict[str, Any]) -> SkyMap:
    header = table.header
    found = [columns[name] for name in FLAT_COLUMNS if name in columns]
    if not found:
        raise SkyMapError(f"it has neither UNIQ nor one of {', '.join(FLAT_COLUMNS)}: is it a sky map?")
    order = {"NESTED": "nested", "NEST": "nested", "RING": "ring"}.get(str(header.get("ORDERING", "")).strip().upper())
    if order is None:
        raise SkyMapError(f"its pixels are in the order {header.get('ORDERING')!r}: NESTED, RING or NUNIQ is needed")
    return SkyMap.from_flat(_numbers(table, found[0]), order, meta)


def _meta(header: fits.Header) -> dict[str, Any]:
    meta: dict[str, Any] = {
        key: str(header[name]).strip()
        for key, name in (("object", "OBJECT"), ("creator", "CREATOR"), ("origin", "ORIGIN"))
        if header.get(name)
    }
    if header.get("INSTRUME"):
        meta["instruments"] = [part.strip() for part in str(header["INSTRUME"]).split(",")]
    if header.get("DATE-OBS"):
        meta["gps"] = gps_from_utc(str(header["DATE-OBS"]))
    return meta
