"""Sky maps as files: round trips, others' flat maps, and broken files (section 8)."""

from __future__ import annotations

import gzip
import io
import math
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SkyMapError
from mma_realtime.sky import distance, fits, healpix, moc
from mma_realtime.sky.skymap import SkyMap

META = {"gps": 1126259462.391, "instruments": ["H1", "L1"], "object": "S150914a", "creator": "a", "origin": "b"}


def some_map(distances: bool = True, level: int = 2, meta: dict | None = None) -> SkyMap:
    rng = np.random.default_rng(level)
    uniq = np.concatenate([moc.whole_sphere(level)[:-1], moc.children(moc.whole_sphere(level)[-1])])
    prob = rng.dirichlet(np.ones(len(uniq)))
    mean = rng.uniform(100, 200, len(uniq))
    columns = distance.parameters(mean, mean / 5) if distances else ()
    return SkyMap(uniq, prob / moc.pixel_area(uniq), *columns, meta=META if meta is None else meta)


@pytest.mark.parametrize("distances", [True, False])
@pytest.mark.parametrize("name", ["map.multiorder.fits", "map.fits.gz"])
def test_round_trip(tmp_path: Path, distances: bool, name: str) -> None:
    m = some_map(distances)
    fits.write_fits(m, tmp_path / name)
    for back in (fits.read_fits(tmp_path / name), fits.read_fits((tmp_path / name).read_bytes())):
        np.testing.assert_array_equal(back.uniq, m.uniq)
        for column in ("probdensity", "distmu", "distsigma", "distnorm"):
            np.testing.assert_array_equal(getattr(back, column), getattr(m, column))
        assert back.meta == {**META, "gps": pytest.approx(META["gps"], abs=1e-6)}
    assert fits.to_bytes(m) == fits.to_bytes(m)


def test_header_is_the_standard_s() -> None:
    with astropy_fits.open(io.BytesIO(fits.to_bytes(some_map()))) as hdus:
        table = hdus[1]
        header = table.header
        assert [c.name for c in table.columns] == ["UNIQ", "PROBDENSITY", "DISTMU", "DISTSIGMA", "DISTNORM"]
        assert [c.unit for c in table.columns] == [None, "sr-1", "Mpc", "Mpc", "Mpc-2"]
        expected = {
            "PIXTYPE": "HEALPIX", "ORDERING": "NUNIQ", "COORDSYS": "C", "MOCORDER": 3, "INDXSCHM": "EXPLICIT",
            "DATE-OBS": "2015-09-14T09:50:45.391000", "INSTRUME": "H1,L1", "OBJECT": "S150914a",
        }  # fmt: skip
        assert {key: header[key] for key in expected} == expected
        assert header["MJD-OBS"] == pytest.approx(57279 + (9 * 3600 + 50 * 60 + 45.391) / 86400, abs=1e-9)
        assert header["DISTMEAN"] == pytest.approx(some_map().distance_mean_std[0])
        assert np.sum(table.data["PROBDENSITY"] * moc.pixel_area(table.data["UNIQ"].astype(np.int64))) == (
            pytest.approx(1)
        )


def flat_file(column: str, values: np.ndarray, **cards: str) -> bytes:
    table = astropy_fits.BinTableHDU.from_columns([astropy_fits.Column(column, "D", array=values)])
    table.header.update({"PIXTYPE": "HEALPIX", "INDXSCHM": "IMPLICIT", **cards})
    out = io.BytesIO()
    astropy_fits.HDUList([astropy_fits.PrimaryHDU(), table]).writeto(out)
    return out.getvalue()


def test_flat_maps_of_others_are_read_in_their_order() -> None:
    lon, lat = healpix.centre(16, np.arange(12 * 256))
    density = np.exp(20 * (np.cos(lat) * np.cos(lon - 1) - 1))
    ring = density[healpix.nested_of(16, np.arange(12 * 256))]
    for content in (
        flat_file("PROB", density / density.sum(), ORDERING="NESTED"),
        flat_file("PROBABILITY", ring / ring.sum(), ORDERING="RING", COORDSYS="C"),
        flat_file("PROBDENSITY", ring, ORDERING="RING"),
    ):
        assert fits.read_fits(content).peak == pytest.approx((1, 0), abs=0.05)


def edited(edit) -> bytes:
    with astropy_fits.open(io.BytesIO(fits.to_bytes(some_map(False)))) as hdus:
        columns = {c.name: np.array(hdus[1].data[c.name]) for c in hdus[1].columns}
        formats = {c.name: c.format for c in hdus[1].columns}
    edit(columns, formats)
    table = astropy_fits.BinTableHDU.from_columns(
        [astropy_fits.Column(name, formats[name], array=values) for name, values in columns.items()]
    )
    out = io.BytesIO()
    astropy_fits.HDUList([astropy_fits.PrimaryHDU(), table]).writeto(out)
    return out.getvalue()


def test_densities_that_are_probabilities_are_told(tmp_path: Path) -> None:
    def per_pixel(columns, formats):
        columns["PROBDENSITY"] = columns["PROBDENSITY"] * moc.pixel_area(columns["UNIQ"].astype(np.int64))

    with pytest.raises(SkyMapError, match="probabilities instead of densities"):
        fits.read_fits(edited(per_pixel))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin as a FITS"),
        (b"<html>not found</html>", "does not begin as a FITS"),
        (gzip.compress(b"hello", mtime=0), "does not begin as a FITS"),
        (gzip.compress(fits.to_bytes(some_map()))[:-200], "packed file is cut off"),
        (fits.to_bytes(some_map())[:-2880], "cut off"),
        (fits.to_bytes(some_map())[:2880], "no table"),
        (edited(lambda c, f: c.pop("PROBDENSITY")), "no column PROBDENSITY"),
        (edited(lambda c, f: f.update(UNIQ="D")), "no integers"),
        (edited(lambda c, f: c["UNIQ"].__setitem__(3, c["UNIQ"][4])), "overlap"),
        (edited(lambda c, f: c["PROBDENSITY"].__setitem__(3, np.nan)), "no numbers"),
        (flat_file("PROB", np.ones(12)), "in the order None"),
        (flat_file("PROB", np.ones(12), ORDERING="RING", COORDSYS="G"), "equatorial"),
        (flat_file("PROB", np.ones(13), ORDERING="RING"), r"12 \* 4\^level"),
        (flat_file("FLUX", np.ones(12), ORDERING="RING"), "is it a sky map"),
    ],
)
def test_broken_files_are_told_in_one_line(content: bytes, says: str) -> None:
    with pytest.raises(SkyMapError, match=says) as raised:
        fits.read_fits(content)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(SkyMapError, match=r"cannot read .*nothing\.fits: No such file"):
        fits.read_fits(tmp_path / "nothing.fits")


def test_huge_files_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b"SIMPLE  =" + bytes(3 * 2**20))
    assert len(bomb) < 2**14
    monkeypatch.setattr(fits, "LARGEST", 2**21)
    with pytest.raises(SkyMapError, match="more than 2 MiB"):
        fits.read_fits(bomb)
    (tmp_path / "large.fits").write_bytes(bytes(2**21 + 1))
    with pytest.raises(SkyMapError, match=r"large\.fits has more than 2 MiB"):
        fits.read_fits(tmp_path / "large.fits")


def test_announced_rows_that_are_not_there_take_no_memory() -> None:
    content = fits.to_bytes(some_map(False))
    announced = f"NAXIS2  = {195:>20}".encode()
    assert announced in content
    with pytest.raises(SkyMapError, match="cut off"):
        fits.read_fits(content.replace(announced, f"NAXIS2  = {10**15:>20}".encode()))


GOOD = fits.to_bytes(some_map(level=1))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8)), max_size=4), st.data())
def test_damage_is_the_declared_error_or_a_whole_map(damage: list[tuple[int, bytes]], data: st.DataObject) -> None:
    content = bytearray(GOOD)
    for at, new in damage:
        content[at : at + len(new)] = new
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    try:
        m = fits.read_fits(bytes(content[:length]))
    except SkyMapError:
        return
    assert math.isclose(m.prob.sum(), 1, abs_tol=1e-3)
