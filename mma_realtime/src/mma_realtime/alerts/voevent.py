"""VOEvent 2.0 (section 9): the community's XML of an alert, valid by the IVOA's schema.

    xml = voevent_of(superevent, origin, created="2015-09-14T09:51:00.000Z", before=previous)
    read(xml).ivorn                                   # ivo://mma_realtime/gw#S150914a-2-INITIAL

Whatever comes from outside is read without a document type, entities or the network, and up to 1 MB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from mma_realtime.alerts.classify import basis_of, classify
from mma_realtime.alerts.notice import PIPELINE
from mma_realtime.alerts.origin import ROLE, SEARCH, Origin
from mma_realtime.alerts.superevent import State, Superevent
from mma_realtime.errors import AlertError

if TYPE_CHECKING:
    from lxml import etree

LARGEST = 2**20  # bytes: packets hold no maps
NAMESPACE = "http://www.ivoa.net/xml/VOEvent/v2.0"
AUTHORITY, STREAM = PIPELINE, "gw"  # ivo://<authority>/<stream>#<id>
SYSTEM = "UTC-FK5-GEO"
Cite = Literal["followup", "supersedes", "retraction"]


@dataclass(frozen=True)
class VOEvent:
    """What was read of a packet.

    Args:
        ivorn: its name. role: observation, prediction, utility or test.
        author: ivorn; date: of the packet, ISO 8601.
        params: values by name; those of a group by `group.name`. units: of the params that say one.
        time: of the event, ISO 8601 in UTC.
        ra, dec, radius: deg.
        citations: of other packets: name and how.
    """

    ivorn: str
    role: str
    author: str | None = None
    date: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    time: str | None = None
    ra: float | None = None
    dec: float | None = None
    radius: float | None = None
    citations: tuple[tuple[str, str], ...] = ()
    units: dict[str, str] = field(default_factory=dict)


def ivorn_of(superevent: Superevent) -> str:
    """ivo://<authority>/<stream>#<id>-<version>-<type>"""
    return f"ivo://{AUTHORITY}/{STREAM}#{superevent.id}-{superevent.version}-{superevent.state}"


def voevent_of(superevent: Superevent, origin: Origin, created: str, before: Superevent | None = None) -> bytes:
    """The packet of a superevent's version; its role is a test's, whatever the origin of the strain.

    Args:
        created: UTC.
        before: the version that it supersedes or retracts; None: it is the first.

    Raises:
        AlertError: `before` is not the version before this one.
    """
    if (before.version if before else 0) != superevent.version - 1 or (before and before.id != superevent.id):
        raise AlertError(f"version {superevent.version} of {superevent.id} cites the one before it, and no other")
    best, place = superevent.preferred, superevent.localisation
    root = _lxml().Element(f"{{{NAMESPACE}}}VOEvent", nsmap={"voe": NAMESPACE})
    root.attrib.update({"version": "2.0", "role": ROLE, "ivorn": ivorn_of(superevent)})
    who = _add(root, "Who")
    _add(who, "AuthorIVORN", f"ivo://{AUTHORITY}")
    _add(who, "Date", created.removesuffix("Z"))
    _add(_add(who, "Author"), "title", f"{PIPELINE}, a reproduction: all of its alerts are tests")
    what = _add(root, "What")
    _param(what, "GraceID", superevent.id, "meta.id", "string")
    _param(what, "AlertType", superevent.state.value, "meta.version", "string")
    _param(what, "Pkt_Ser_Num", superevent.version, "meta.number", "int")
    _param(what, "Origin", origin.value, "meta.note", "string")
    _param(what, "ModelSHA256", best.model, "meta.id", "string")
    if superevent.state is not State.RETRACTION:
        _found(what, superevent)
    where = _add(_add(root, "WhereWhen"), "ObsDataLocation")
    _add(where, "ObservatoryLocation", id="+".join(best.instruments))
    observation = _add(where, "ObservationLocation")
    _add(observation, "AstroCoordSystem", id=SYSTEM)
    coordinates = _add(observation, "AstroCoords", coord_system_id=SYSTEM)
    _add(_add(_add(coordinates, "Time", unit="s"), "TimeInstant"), "ISOTime", best.utc.removesuffix("Z"))
    if place:
        position = _add(coordinates, "Position2D", unit="deg")
        _add(position, "Name1", "RA")
        _add(position, "Name2", "Dec")
        value = _add(position, "Value2")
        _add(value, "C1", repr(place.ra))
        _add(value, "C2", repr(place.dec))
        _add(position, "Error2Radius", repr(place.radius))
    _add(_add(root, "How"), "Description", f"Neural search of {' and '.join(best.instruments)}, {origin} strain")
    why = _add(root, "Why")
    _add(_add(why, "Inference"), "Concept", "process.variation.burst;em.gw")
    if before:
        cite: Cite = "retraction" if superevent.state is State.RETRACTION else "supersedes"
        _add(_add(root, "Citations"), "EventIVORN", ivorn_of(before), cite=cite)
    return _lxml().tostring(root, xml_declaration=True, encoding="UTF-8")


def _found(what: etree._Element, superevent: Superevent) -> None:
    best = superevent.preferred
    classification, properties = classify(best)
    _param(what, "FAR", best.far, "arith.rate;stat.falsealarm", "float", "Hz")
    _param(what, "FARIsUpperLimit", str(best.far_is_upper_limit).lower(), "stat.max", "string")
    _param(what, "Instruments", ",".join(best.instruments), "meta.code", "string")
    _param(what, "Pipeline", PIPELINE, "meta.code", "string")
    _param(what, "Search", SEARCH, "meta.code", "string")
    _param(what, "ClassifiedBy", basis_of(best), "meta.note", "string")
    groups = {"Classification": vars(classification)} | ({"Properties": vars(properties)} if properties else {})
    for name, values in groups.items():
        group = _add(what, "Group", name=name, type=name)
        for key, value in values.items():
            _param(group, key, value, "stat.probability", "float")


def _param(parent: etree._Element, name: str, value: object, ucd: str, kind: str, unit: str = "") -> None:
    attributes = {"name": name, "value": str(value), "ucd": ucd, "dataType": kind} | ({"unit": unit} if unit else {})
    _add(parent, "Param", None, **attributes)


def _add(parent: etree._Element, tag: str, text: str | None = None, **attributes: str) -> etree._Element:
    made = _lxml().SubElement(parent, tag, attributes)
    made.text = text
    return made


def read(content: bytes) -> VOEvent:
    """What a packet says.

    Raises:
        AlertError: too large, no XML, with a document type, not valid by the schema, or with numbers that are none.
    """
    root = _parsed(content)
    schema = _schema()
    if not schema.validate(root):
        error = schema.error_log.last_error
        raise AlertError(f"not valid by the schema of VOEvent 2.0, line {error.line}: {error.message[:200]}")
    params = {p.get("name", ""): _value(p) for p in root.findall("What/Param")}
    for group in root.findall("What/Group"):
        params |= {f"{group.get('name', '')}.{p.get('name', '')}": _value(p) for p in group.findall("Param")}
    coordinates = "WhereWhen/ObsDataLocation/ObservationLocation/AstroCoords"
    position = f"{coordinates}/Position2D"
    ra, dec, radius = (
        _float(root.findtext(f"{position}/{tag}"), tag) for tag in ("Value2/C1", "Value2/C2", "Error2Radius")
    )
    cited = root.findall("Citations/EventIVORN")
    return VOEvent(
        root.get("ivorn", ""), root.get("role", "observation"), _stripped(root.findtext("Who/AuthorIVORN")),
        _stripped(root.findtext("Who/Date")), params,
        _stripped(root.findtext(f"{coordinates}/Time/TimeInstant/ISOTime")), ra, dec, radius,
        tuple((each.text.strip() if each.text else "", each.get("cite", "")) for each in cited),
        {p.get("name", ""): p.get("unit", "") for p in root.findall("What/Param") if p.get("unit")},
    )  # fmt: skip


def _parsed(content: bytes) -> etree._Element:
    if len(content) > LARGEST:
        raise AlertError(f"a VOEvent of {len(content):,} bytes is refused: at most {LARGEST:,} are read")
    etree = _lxml()
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise AlertError(f"a VOEvent is no XML: {str(error)[:200]}") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise AlertError("a VOEvent with a document type is refused: entities are not read")
    return root


def _value(param: etree._Element) -> str:
    value = param.get("value")
    return (param.findtext("Value") or "") if value is None else value


def _stripped(text: str | None) -> str | None:
    return text if text is None else text.strip()


def _float(text: str | None, name: str) -> float | None:
    if text is None:
        return None
    value = float(text)  # the schema has seen to its form; NaN and INF are of it
    if not math.isfinite(value):
        raise AlertError(f"{name} is {text}: a number is expected")
    return value


@cache
def _schema() -> Any:
    """The schema, compiled once."""
    content = resources.files("mma_realtime.alerts").joinpath("VOEvent-v2.0.xsd").read_bytes()
    return _lxml().XMLSchema(_lxml().fromstring(content))


@cache
def _lxml() -> Any:
    try:
        from lxml import etree
    except ImportError:
        raise AlertError("VOEvents need lxml: pip install 'papers-mma-realtime[vo]'") from None
    return etree
