"""VOEvents: valid by the schema, what is written is read, and nothing that is hostile."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import comet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from mma_realtime.alerts.made_up import CREATED, LOUDER, MODEL, PLACE, superevent
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.superevent import Superevent
from mma_realtime.alerts.voevent import LARGEST, read, voevent_of
from mma_realtime.errors import AlertError

FIRST_OF = superevent(masses=(36.0, 29.0))
LOCATED = FIRST_OF.located(PLACE)
UPDATED = LOCATED.joined(LOUDER)
XML = voevent_of(LOCATED, Origin.SIMULATED, CREATED, FIRST_OF)


@pytest.mark.parametrize(
    ("event", "before", "cite"),
    [
        (FIRST_OF, None, None),
        (LOCATED, FIRST_OF, "supersedes"),
        (UPDATED, LOCATED, "supersedes"),
        (UPDATED.retracted(), UPDATED, "retraction"),
    ],
)
@pytest.mark.parametrize("origin", Origin)
def test_what_is_written_is_valid_and_read(
    event: Superevent, before: Superevent | None, cite: str | None, origin: Origin
) -> None:
    xml = voevent_of(event, origin, CREATED, before)
    theirs = etree.XMLSchema(etree.parse(Path(comet.__file__).parent / "schema" / "VOEvent-v2.0.xsd"))
    theirs.assertValid(etree.fromstring(xml))
    found = read(xml)
    assert found.ivorn == f"ivo://mma_realtime/gw#S150914a-{event.version}-{event.state}"
    assert found.role == "test"
    assert found.params["Origin"] == origin.value
    assert found.params["ModelSHA256"] == MODEL
    assert found.author == "ivo://mma_realtime"
    assert found.date == CREATED[:-1]
    assert found.time == event.preferred.utc[:-1]
    place = event.localisation
    assert (found.ra, found.dec, found.radius) == ((place.ra, place.dec, place.radius) if place else (None,) * 3)
    named = before and f"ivo://mma_realtime/gw#S150914a-{before.version}-{before.state}"
    assert found.citations == (((named, cite),) if cite else ())
    if cite != "retraction":
        assert float(found.params["FAR"]) == event.preferred.far
        kinds = [float(found.params[f"Classification.{kind}"]) for kind in ("BNS", "NSBH", "BBH", "Terrestrial")]
        assert abs(sum(kinds) - 1) < 1e-6
    else:
        assert "FAR" not in found.params


def test_the_rate_and_the_coordinates_are_called_by_their_names() -> None:
    root = etree.fromstring(XML)
    far = root.find("What/Param[@name='FAR']")
    assert far is not None
    assert far.get("ucd") == "arith.rate;stat.falsealarm"
    assert far.get("unit") == "Hz"
    assert root.find("What/Group[@name='Classification']") is not None
    coordinates = root.find("WhereWhen/ObsDataLocation/ObservationLocation/AstroCoords")
    assert coordinates is not None
    assert coordinates.get("coord_system_id") == "UTC-FK5-GEO"


def test_the_schema_is_the_published_one() -> None:
    ours = etree.fromstring(resources.files("mma_realtime.alerts").joinpath("VOEvent-v2.0.xsd").read_bytes())
    theirs = etree.parse(Path(comet.__file__).parent / "schema" / "VOEvent-v2.0.xsd").getroot()
    assert etree.tostring(ours, method="c14n") == etree.tostring(theirs, method="c14n")


@pytest.mark.parametrize("before", [None, UPDATED, replace(FIRST_OF, id="S150914b")])
def test_a_version_cites_the_one_before_it(before: Superevent | None) -> None:
    with pytest.raises(AlertError, match="cites the one before it"):
        voevent_of(LOCATED, Origin.SIMULATED, CREATED, before)


def with_head(head: str, inside: str = "") -> bytes:
    text = XML.decode().replace("<?xml version='1.0' encoding='UTF-8'?>", head)
    return text.replace("<Who>", f"<Description>{inside}</Description><Who>").encode()


def test_entities_document_types_and_files_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    for head, inside in [
        (f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{secret}">]>', "&a;"),
        (f'<!DOCTYPE x [<!ENTITY a0 "lol">{laughs}]>', "&a11;"),
        ('<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">', ""),
        ('<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]>', ""),
        ("<!DOCTYPE x>", ""),
    ]:
        with pytest.raises(AlertError, match=r"document type is refused|is no XML"):
            read(with_head(head, inside))
    assert read(with_head("", "nothing of the kind")).role == "test"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'role="test"', b'role="rumour"', "not valid by the schema"),
        (b'version="2.0"', b'version="1.1"', "not valid by the schema"),
        (b"<C1>116.25</C1>", b"<C1>east</C1>", "not valid by the schema"),
        (b"<C1>116.25</C1>", b"<C1>NaN</C1>", "C1 is NaN"),
        (b"UTC-FK5-GEO", b"MOON", "not valid by the schema"),
        (b"</Who>", b"", "is no XML"),
        (b"http://www.ivoa.net/xml/VOEvent/v2.0", b"urn:other", "not valid by the schema"),
    ],
)
def test_other_packets_are_refused(old: bytes, new: bytes, message: str) -> None:
    assert old in XML
    with pytest.raises(AlertError, match=message):
        read(XML.replace(old, new))


def test_a_packet_that_is_too_large_or_empty_is_refused() -> None:
    with pytest.raises(AlertError, match="bytes is refused"):
        read(XML + b" " * LARGEST)
    with pytest.raises(AlertError, match="is no XML"):
        read(b"")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(XML)), st.integers(0, 30), st.binary(max_size=20))
def test_damage_is_read_or_refused(at: int, length: int, new: bytes) -> None:
    try:
        found = read(XML[:at] + new + XML[at + length :])
    except AlertError:
        return
    assert found.role in ("test", "observation", "prediction", "utility")
