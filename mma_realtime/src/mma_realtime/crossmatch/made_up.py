"""Survey alerts like those of ZTF and LSST, made up: for tests and for the load of a benchmark.

The fields are those that matter here among as many others as a packet has; images are noise of the sizes that packets
have, so that skipping them costs what it costs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from mma_realtime.crossmatch.survey import GPS_EPOCH_MJD, LEAP_SECONDS, TAI_MINUS_GPS
from mma_realtime.gw.units import GPS

FLOATS = [f"value{i}" for i in range(60)]  # the rest of a candidate's hundred numbers


def _candidate(name: str) -> dict[str, Any]:
    numbers = [("jd", "double"), ("ra", "double"), ("dec", "double"), ("rb", ["null", "float"])]
    near = [("sgscore1", ["null", "float"]), ("distpsnr1", ["null", "float"])]
    fields = [*numbers, *((f, ["null", "float"]) for f in FLOATS), *near]
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def _image(name: str) -> dict[str, Any]:
    return {
        "type": ["null", {"type": "record", "name": name, "fields": [
            {"name": "fileName", "type": "string"}, {"name": "stampData", "type": "bytes"}]}],
        "name": name,
    }  # fmt: skip


ZTF: dict[str, Any] = {
    "type": "record", "name": "alert", "fields": [
        {"name": "schemavsn", "type": "string"}, {"name": "objectId", "type": "string"},
        {"name": "candid", "type": "long"}, {"name": "candidate", "type": _candidate("candidate")},
        {"name": "prv_candidates", "type": ["null", {"type": "array", "items": _candidate("prv_candidate")}]},
        *(_image(f"cutout{which}") for which in ("Science", "Template", "Difference")),
    ],
}  # fmt: skip
LSST: dict[str, Any] = {
    "type": "record", "name": "alert", "fields": [
        {"name": "alertId", "type": "long"},
        {"name": "diaSource", "type": {"type": "record", "name": "diaSource", "fields": [
            {"name": "diaObjectId", "type": ["null", "long"]}, {"name": "midpointMjdTai", "type": "double"},
            {"name": "ra", "type": "double"}, {"name": "dec", "type": "double"},
            *({"name": f, "type": ["null", "float"]} for f in FLOATS),
            {"name": "reliability", "type": ["null", "float"]}, {"name": "pointness", "type": ["null", "float"]}]}},
        {"name": "cutoutDifference", "type": ["null", "bytes"]}, {"name": "cutoutTemplate", "type": ["null", "bytes"]},
    ],
}  # fmt: skip


def packets(
    count: int, seed: int, gps: GPS, size: int = 60_000, survey: str = "ZTF", previous: int = 5
) -> Iterator[tuple[bytes, dict[str, float]]]:
    """Packets with what was put into them: `ra`, `dec` (deg, uniform on the sphere), `gps`, `real`, `star`.

    Args:
        gps: the first; one a millisecond follows. size: bytes of the images together. previous: earlier detections.
    """
    import fastavro

    rng = np.random.default_rng(seed)
    schema = fastavro.parse_schema(ZTF if survey == "ZTF" else LSST)
    for number in range(count):
        truth = {
            "ra": float(rng.uniform(0, 360)), "dec": float(np.degrees(np.arcsin(rng.uniform(-1, 1)))),
            "gps": gps + number * 1e-3, "real": round(float(rng.uniform()), 3), "star": round(float(rng.uniform()), 3),
        }  # fmt: skip
        others = dict(zip(FLOATS, rng.standard_normal(len(FLOATS)).tolist(), strict=True))
        image = rng.bytes(size // 3)
        file = io.BytesIO()
        if survey == "ZTF":
            jd = (truth["gps"] - LEAP_SECONDS) / 86400 + GPS_EPOCH_MJD + 2400000.5
            candidate = others | {
                "jd": jd, "ra": truth["ra"], "dec": truth["dec"], "rb": truth["real"], "sgscore1": truth["star"],
                "distpsnr1": 0.5,
            }  # fmt: skip
            stamp = {"fileName": "stamp.fits.gz", "stampData": image}
            cutouts = {f"cutout{which}": stamp for which in ("Science", "Template", "Difference")}
            record = {
                "schemavsn": "3.3", "objectId": f"ZTF18{number:07d}", "candid": number, "candidate": candidate,
                "prv_candidates": [candidate] * previous, **cutouts,
            }  # fmt: skip
            fastavro.writer(file, schema, [record])
        else:
            mjd = (truth["gps"] + TAI_MINUS_GPS) / 86400 + GPS_EPOCH_MJD
            source = others | {
                "diaObjectId": number, "midpointMjdTai": mjd, "ra": truth["ra"], "dec": truth["dec"],
                "reliability": truth["real"], "pointness": truth["star"],
            }  # fmt: skip
            file.write(b"\x00" + (1).to_bytes(4, "big"))
            record = {"alertId": number, "diaSource": source, "cutoutDifference": image, "cutoutTemplate": image}
            fastavro.schemaless_writer(file, schema, record)
        yield file.getvalue(), truth
