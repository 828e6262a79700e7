"""Alerts of optical surveys (section 10): which of them lie where, and when, a superevent may have come from.

Packets are Avro (object container files as ZTF sends them; the wire format of a schema registry as LSST does) or JSON.
Of an Avro packet only the fields that a cut needs are decoded: its images are skipped, not read.

    packets = PacketReader()
    found = [packets.read(content) for content in contents]
    inside = region.holds(ra, dec, gps) & cuts.keep(...)
"""

from __future__ import annotations

import io
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy_healpix import HEALPix
from jaxtyping import Bool, Float64

from mma_realtime.crossmatch.joint import Map, Window
from mma_realtime.errors import CrossMatchError
from mma_realtime.gw.units import GPS
from mma_realtime.sky.moc import DEEPEST, ranges

LARGEST = 2 * 2**20  # bytes of a packet; those of LSST have at most 80 kB
OBJECT_CONTAINER, REGISTRY = b"Obj\x01", b"\x00"
GPS_EPOCH_MJD = 44244.0  # 1980-01-06 in UTC
TAI_MINUS_GPS = 19.0  # s


class SurveyAlert(NamedTuple):
    """Args:
    id: survey and its own name of the alert.
    object: of the source that it belongs to.
    gps: of the exposure (GPS s). ra, dec: deg, ICRS.
    real: score of a real source, 1 real to 0 bogus; NaN: not said.
    star: score of the nearest catalogued source being a star, 1 star to 0 galaxy; NaN: not said, or none is near.
    """

    id: str
    object: str
    gps: GPS
    ra: float
    dec: float
    real: float
    star: float


@dataclass(frozen=True)
class Layout:
    """Where a survey's packets have what is needed; paths of nested records.

    Args:
        survey: its name. wanted: path of each value. mjd_tai: times are modified Julian dates of TAI, else Julian
            dates of UTC. near_star: path of the distance (arc s) within which the star score means this source.
    """

    survey: str
    wanted: Mapping[str, tuple[str, ...]]
    mjd_tai: bool
    near_star: tuple[str, ...] | None = None


NEAR = 1.5  # arc s
LAYOUTS = (
    Layout(
        "ZTF",
        {
            "id": ("candid",), "object": ("objectId",), "time": ("candidate", "jd"), "ra": ("candidate", "ra"),
            "dec": ("candidate", "dec"), "real": ("candidate", "rb"), "star": ("candidate", "sgscore1"),
        },
        False,
        ("candidate", "distpsnr1"),
    ),
    Layout(
        "LSST",
        {
            "id": ("alertId",), "object": ("diaSource", "diaObjectId"), "time": ("diaSource", "midpointMjdTai"),
            "ra": ("diaSource", "ra"), "dec": ("diaSource", "dec"), "real": ("diaSource", "reliability"),
            "star": ("diaSource", "pointness"),
        },
        True,
    ),
)  # fmt: skip


class PacketReader:
    """Reads packets; remembers the schemas it has met.

    Args:
        registry: writer's schemas by their number, for the wire format of a registry.
    """

    def __init__(self, registry: Mapping[int, Any] | None = None) -> None:
        try:
            import fastavro
        except ImportError:
            raise CrossMatchError("Avro packets need fastavro: pip install 'papers-mma-realtime[survey]'") from None
        self._read, self._parse = fastavro.schemaless_reader, fastavro.parse_schema
        self._registry = dict(registry or {})
        self._schemas: dict[bytes | int, tuple[Any, Any, Layout]] = {}
        self._header = self._parse(
            {"type": "record", "name": "header", "fields": [
                {"name": "magic", "type": {"type": "fixed", "name": "magic", "size": 4}},
                {"name": "meta", "type": {"type": "map", "values": "bytes"}},
                {"name": "sync", "type": {"type": "fixed", "name": "sync", "size": 16}}]}
        )  # fmt: skip

    def read(self, content: bytes) -> SurveyAlert:
        """Raises:
        CrossMatchError: no packet of a known kind, a torn one, or one without place or time.
        """
        if len(content) > LARGEST:
            raise CrossMatchError(f"a packet of {len(content):,} bytes is refused: at most {LARGEST:,} are read")
        try:
            if content.startswith(OBJECT_CONTAINER):
                return self._container(content)
            if content.startswith(REGISTRY) and len(content) > 5:
                number = int.from_bytes(content[1:5], "big")
                if not self._registry:
                    raise CrossMatchError(
                        f"a packet is in a schema registry's wire format (schema {number}), as LSST sends them, and no "
                        "registry was given: packets that carry their schema, as ZTF's do, and JSON are read; give "
                        "the schemas by number (live --survey_schemas FOLDER)"
                    )
                if number not in self._registry:
                    raise CrossMatchError(f"a packet names schema {number}, which the registry does not have")
                return self._record(io.BytesIO(content[5:]), number, self._registry[number])
            return alert_of(_object(content))
        except CrossMatchError:
            raise
        except Exception as error:  # torn packets end in whatever the decoder meets first
            raise CrossMatchError(f"a packet cannot be read: {type(error).__name__}: {error}"[:300]) from None

    def _container(self, content: bytes) -> SurveyAlert:
        file = io.BytesIO(content)
        head: Any = self._read(file, self._header, None)
        count, size = self._read(file, "long", None), self._read(file, "long", None)
        if count != 1 or not 0 < size <= len(content):  # type: ignore[operator]
            raise CrossMatchError(f"a packet holds {count!r} alerts: one is expected")
        if len(content) < file.tell() + size + len(head["sync"]):  # type: ignore[operator]
            raise CrossMatchError("a packet is torn: it is shorter than it says")
        codec = head["meta"].get("avro.codec", b"null")
        if codec == b"deflate":
            unpacked = zlib.decompressobj(-15)
            file = io.BytesIO(unpacked.decompress(file.read(size), LARGEST))  # type: ignore[arg-type]
            if unpacked.unconsumed_tail:
                raise CrossMatchError(f"a packet unpacks to more than {LARGEST:,} bytes: refused")
        elif codec != b"null":
            raise CrossMatchError(f"a packet is packed by {str(codec)[:40]}: null and deflate are read")
        schema = head["meta"]["avro.schema"]
        return self._record(file, schema, schema)

    def _record(self, file: io.BytesIO, key: bytes | int, schema: Any) -> SurveyAlert:
        known = self._schemas.get(key)
        if known is None:
            written = json.loads(schema) if isinstance(schema, bytes | str) else schema
            layout = layout_of({field["name"] for field in written.get("fields", [])})
            wanted = {*layout.wanted.values(), *([layout.near_star] if layout.near_star else [])}
            if len(self._schemas) >= 64:  # schemas change a few times a year: these are not honest
                self._schemas.clear()
            # Nothing after the last field that is wanted needs to be walked through.
            last = max(i for i, field in enumerate(written["fields"]) if field["name"] in {path[0] for path in wanted})
            begin = {**written, "fields": written["fields"][: last + 1]}
            known = self._schemas[key] = (self._parse(begin), self._parse(pruned(begin, wanted)), layout)
        writer, reader, layout = known
        return alert_of(self._read(file, writer, reader), layout)  # type: ignore[arg-type]


def registry_in(folder: Path) -> dict[int, Any]:
    """A registry's schemas by number, for `PacketReader`.

    Args:
        folder: with a file N.avsc for each number N: an Avro schema, or what a registry answers to GET /schemas/ids/N.

    Raises:
        CrossMatchError: no such folder, none in it, or a file that is no schema of a survey's packets.
    """
    import fastavro

    found: dict[int, Any] = {}
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise CrossMatchError(f"{folder}: {error.strerror}: give the folder of the survey's schemas") from None
    for path in (path for path in files if path.suffix == ".avsc"):
        if not re.fullmatch("[0-9]{1,9}", path.stem):
            raise CrossMatchError(f"{path}: name it by the schema's number in the registry, as 703.avsc")
        try:
            schema = json.loads(path.read_bytes())
            if set(schema) >= {"schema"} and isinstance(schema["schema"], str):  # the registry's reply
                schema = json.loads(schema["schema"])
            fastavro.parse_schema(schema)
            layout_of({field["name"] for field in schema["fields"]})
        except CrossMatchError as error:
            raise CrossMatchError(f"{path}: {error}") from None
        except (OSError, ValueError, TypeError, KeyError, fastavro.schema.SchemaParseException) as error:
            raise CrossMatchError(f"{path} is no Avro schema of a survey's packets: {error}"[:300]) from None
        found[int(path.stem)] = schema
    if not found:
        raise CrossMatchError(f"{folder} holds no schema: a file N.avsc is expected for each number N of the registry")
    return found


def pruned(schema: Any, wanted: set[tuple[str, ...]]) -> Any:
    """A record's schema with the wanted fields only; the others are then skipped when it is read."""
    if isinstance(schema, list):
        return [pruned(each, wanted) if isinstance(each, dict) else each for each in schema]
    fields = []
    for field in schema["fields"]:
        below = {path[1:] for path in wanted if path[0] == field["name"]}
        if () in below:
            fields.append(field)
        elif below:
            fields.append({**field, "type": pruned(field["type"], below)})
    return {**schema, "fields": fields}


def layout_of(names: set[str]) -> Layout:
    for layout in LAYOUTS:
        if {path[0] for path in layout.wanted.values()} <= names:
            return layout
    raise CrossMatchError(
        f"a packet has the fields {', '.join(sorted(names))[:150]}: of no survey that is known "
        f"({', '.join(layout.survey for layout in LAYOUTS)})"
    )


def _object(content: bytes) -> dict[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise CrossMatchError("a packet is neither Avro nor a JSON object")
    return found


def alert_of(packet: Mapping[str, Any], layout: Layout | None = None) -> SurveyAlert:
    """Raises:
    CrossMatchError: a value that is needed is not there, or is no number.
    """
    layout = layout_of(set(packet)) if layout is None else layout
    found = {name: _at(packet, path) for name, path in layout.wanted.items()}
    numbers = {}
    for name in ("time", "ra", "dec", "real", "star"):
        value = found[name]
        if value is None and name in ("real", "star"):
            value = math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CrossMatchError(f"a packet's {'.'.join(layout.wanted[name])} is {value!r}: no number"[:200])
        numbers[name] = float(value)
    if not (0 <= numbers["ra"] <= 360 and -90 <= numbers["dec"] <= 90 and math.isfinite(numbers["time"])):
        raise CrossMatchError(f"a packet lies at ra {numbers['ra']}, dec {numbers['dec']}, time {numbers['time']}")
    if layout.near_star is not None:
        apart = _at(packet, layout.near_star)
        if not isinstance(apart, int | float) or not 0 <= apart <= NEAR:
            numbers["star"] = math.nan
    return SurveyAlert(
        f"{layout.survey} {found['id']}", str(found["object"]), _gps(numbers["time"], layout.mjd_tai), numbers["ra"],
        numbers["dec"], numbers["real"], numbers["star"],
    )  # fmt: skip


def _at(packet: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(packet, Mapping):
            return None
        packet = packet.get(key)
    return packet


def _gps(time: float, mjd_tai: bool) -> GPS:
    """To a second: exposures take longer."""
    if mjd_tai:
        return (time - GPS_EPOCH_MJD) * 86400.0 - TAI_MINUS_GPS
    return (time - 2400000.5 - GPS_EPOCH_MJD) * 86400.0 + LEAP_SECONDS


LEAP_SECONDS = 18.0  # GPS - UTC since 2017, before any survey whose packets are read


@dataclass(frozen=True)
class Cuts:
    """Which alerts are looked at: `real` at least `least_real`, `star` at most `most_star`; what is not said passes."""

    least_real: float = 0.5
    most_star: float = 0.5

    def keep(self, real: Float64[np.ndarray, " n"], star: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        return ~(real < self.least_real) & ~(star > self.most_star)


class Region:
    """Where and when a superevent's optical partner may be: the credible region of a map, a window in time.

    Args:
        sky_map: multi-order. gps: of the superevent. window: of alerts after it. level: of the credible region.

    Raises:
        CrossMatchError: a level outside (0, 1].
    """

    def __init__(self, sky_map: Map, gps: GPS, window: Window, level: float = 0.9) -> None:
        if not 0 < level <= 1:
            raise CrossMatchError(f"a credible level is above 0 and at most 1, not {level:g}")
        self.gps, self.window, self.level = gps, window, level
        first, end = ranges(np.asarray(sky_map.uniq, dtype=np.int64))
        density = np.asarray(sky_map.probdensity, dtype=np.float64)
        order = np.argsort(-density, kind="stable")
        summed = np.cumsum(density[order] * (end - first)[order].astype(np.float64))
        taken = order[: int(np.searchsorted(summed, level * summed[-1] * (1 - 1e-12))) + 1]
        taken = taken[np.argsort(first[taken])]
        first, end = first[taken], end[taken]
        joins = np.append(False, first[1:] == end[:-1])  # neighbouring pixels are one range
        self._first, self._end = first[~joins], end[np.append(~joins[1:], True)]

    def holds(
        self, ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"], gps: Float64[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Which of these (deg, GPS s) lie in region and window."""
        after = gps - self.gps
        out = (after >= self.window.low) & (after <= self.window.high)
        if out.any():
            out[out] = self.contains(indices(ra[out], dec[out]))
        return out

    def contains(self, index: np.ndarray) -> Bool[np.ndarray, " n"]:
        """Which of these nested indices at level 29 lie in the region."""
        at = np.searchsorted(self._first, index, side="right") - 1
        return (at >= 0) & (index < self._end[np.maximum(at, 0)])


def indices(ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"]) -> np.ndarray:
    """Nested index at level 29 of directions (deg)."""
    from astropy import units

    return HEALPix(2**DEEPEST, order="nested").lonlat_to_healpix(ra * units.deg, dec * units.deg)


def columns(alerts: Sequence[SurveyAlert]) -> dict[str, Float64[np.ndarray, " n"]]:
    """`gps`, `ra`, `dec`, `real`, `star` of alerts as arrays."""
    names = ("gps", "ra", "dec", "real", "star")
    table = np.array([alert[2:] for alert in alerts], dtype=np.float64).reshape(len(alerts), len(names))
    return {name: table[:, i] for i, name in enumerate(names)}
