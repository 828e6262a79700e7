"""Notices in JSON (section 9), in two flavours: that of the detectors' own alerts, and the open unified schema's.

    notice = notice_of(superevent, created="2015-09-14T09:51:00.000Z")
    Notice.from_json(notice.to_json()) == notice

Read strictly: exactly the keys that are known, numbers that are numbers, and nothing that is larger than a map needs.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from mma_realtime.alerts.classify import (
    SIGNIFICANT,
    Classification,
    Properties,
    basis_of,
    check_probability,
    classify,
)
from mma_realtime.alerts.origin import ROLE, SEARCH, TENSE, Origin
from mma_realtime.alerts.superevent import SHA256, UTC_TIME, State, Superevent
from mma_realtime.errors import AlertError

LARGEST = 32 * 2**20  # bytes: a sky map takes a few megabytes
PIPELINE = "mma_realtime"
MODEL = "urn:sha256:"  # how the search model is named among the notice's URLs
CONTAINMENT = 0.9  # of the circle that stands for the map

Group = Literal["CBC", "Burst"]
UnifiedType = Literal["initial", "subsequent", "update", "retraction"]
UNIFIED: dict[State, UnifiedType] = {
    State.EARLYWARNING: "initial", State.PRELIMINARY: "initial", State.INITIAL: "subsequent", State.UPDATE: "update",
    State.RETRACTION: "retraction",
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """What was found.

    Args:
        significant: at most one false alarm as loud a month.
        time: of the merger, UTC.
        far: Hz; duration: s; central_frequency: Hz, where there is one.
        properties: None: not known, as the masses are not.
        skymap: a multi-order map's file; None: not yet made.

    Raises:
        AlertError: a value of another kind; says which.
    """

    significant: bool
    time: str
    far: float
    instruments: tuple[str, ...]
    group: Group
    pipeline: str
    search: str
    properties: Properties | None
    classification: Classification
    duration: float | None = None
    central_frequency: float | None = None
    skymap: bytes | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.significant, bool):
            raise AlertError(f"event.significant is {self.significant!r}: true or false is expected")
        _time("event.time", self.time)
        _number("event.far", self.far, above=0)
        for name in ("duration", "central_frequency"):
            if getattr(self, name) is not None:
                _number(f"event.{name}", getattr(self, name), least=0)
        if not self.instruments or len(set(self.instruments)) < len(self.instruments):
            raise AlertError("event.instruments names no detector, or one twice")
        for value in self.instruments:
            _text("event.instruments", value)
        _text("event.pipeline", self.pipeline)
        if self.search != SEARCH:
            raise AlertError(f"event.search is {self.search!r}: every notice of this program is of mock data, {SEARCH}")
        if self.group not in get_args(Group):
            raise AlertError(f"event.group is {self.group!r}: {' or '.join(get_args(Group))} is expected")
        if self.skymap == b"":
            raise AlertError("event.skymap is empty")


@dataclass(frozen=True)
class ExternalCoincidence:
    """An external event near the superevent.

    Args:
        time_difference: s, of the superevent minus the external event.
        time_coincidence_far, time_sky_position_coincidence_far: Hz.
        combined_skymap: a file.

    Raises:
        AlertError: a value of another kind; says which.
    """

    gcn_notice_id: int | None
    ivorn: str
    observatory: str
    search: str
    time_difference: float
    time_coincidence_far: float
    time_sky_position_coincidence_far: float | None = None
    combined_skymap: bytes | None = None

    def __post_init__(self) -> None:
        if self.gcn_notice_id is not None and (
            isinstance(self.gcn_notice_id, bool) or not isinstance(self.gcn_notice_id, int)
        ):
            raise AlertError(f"external_coinc.gcn_notice_id is {self.gcn_notice_id!r}: a whole number is expected")
        for name in ("ivorn", "observatory", "search"):
            _text(f"external_coinc.{name}", getattr(self, name))
        _number("external_coinc.time_difference", self.time_difference)
        _number("external_coinc.time_coincidence_far", self.time_coincidence_far, above=0)
        if self.time_sky_position_coincidence_far is not None:
            name = "time_sky_position_coincidence_far"
            _number(f"external_coinc.{name}", getattr(self, name), above=0)


@dataclass(frozen=True)
class Notice:
    """One version of a superevent.

    Args:
        time_created: UTC.
        urls: `model`, the search model's SHA-256 as a URN, and others.
        event: None for a retraction, and only then.

    Raises:
        AlertError: a value of another kind, or none where there has to be one; says which.
    """

    alert_type: State
    time_created: str
    superevent_id: str
    urls: dict[str, str]
    event: Event | None
    external_coinc: ExternalCoincidence | None = None

    def __post_init__(self) -> None:
        _time("time_created", self.time_created)
        _text("superevent_id", self.superevent_id)
        model = self.urls.get("model")
        if not (isinstance(model, str) and model.startswith(MODEL) and SHA256.fullmatch(model.removeprefix(MODEL))):
            raise AlertError(f"urls.model is {model!r}: {MODEL} and the search model's SHA-256 are expected")
        for name, value in self.urls.items():
            _text(f"urls.{name}", value)
        if (self.event is None) != (self.alert_type is State.RETRACTION):
            raise AlertError(f"a {self.alert_type} notice {'has an' if self.event else 'lacks its'} event")

    def to_json(self) -> bytes:
        event, other = self.event, self.external_coinc
        return _dumped(
            {
                "alert_type": self.alert_type.value,
                "time_created": self.time_created,
                "superevent_id": self.superevent_id,
                "urls": self.urls,
                "event": event
                and vars(event)
                | {
                    "instruments": list(event.instruments),
                    "properties": event.properties and vars(event.properties),
                    "classification": vars(event.classification),
                    "skymap": _base64(event.skymap),
                },
                "external_coinc": other and vars(other) | {"combined_skymap": _base64(other.combined_skymap)},
            }
        )

    @classmethod
    def from_json(cls, content: bytes) -> Notice:
        """Raises:
        AlertError: too large, no JSON, other keys than these, or a value of another kind; says which.
        """
        found = _keys(_parsed(content), cls, "")
        if found["alert_type"] not in list(State):
            raise AlertError(f"alert_type is {found['alert_type']!r}: {', '.join(State)} are known")
        if not isinstance(found["urls"], dict):
            raise AlertError("urls is no object")
        event = found["event"]
        if event is not None:
            event = _keys(event, Event, "event.")
            if event["properties"] is not None:
                event["properties"] = Properties(**_keys(event["properties"], Properties, "event.properties."))
            classification = _keys(event["classification"], Classification, "event.classification.")
            event["classification"] = Classification(**classification)
            event["instruments"] = _texts("event.instruments", event["instruments"])
            event["skymap"] = _bytes("event.skymap", event["skymap"])
            event = Event(**event)
        other = found["external_coinc"]
        if other is not None:
            other = _keys(other, ExternalCoincidence, "external_coinc.")
            other["combined_skymap"] = _bytes("external_coinc.combined_skymap", other["combined_skymap"])
            other = ExternalCoincidence(**other)
        state = State(found["alert_type"])
        return cls(state, found["time_created"], found["superevent_id"], found["urls"], event, other)


@dataclass(frozen=True)
class UnifiedNotice:
    """The same in the unified schema's terms; its tense is not a field, because there is only one (`origin`).

    Args:
        trigger_time, alert_datetime: UTC.
        id: names of the event, the superevent's first.
        far: Hz; p_astro: probability. classification: by kind.
        ra, dec, ra_dec_error: deg, a circle with the area of the map's region of `containment_probability`.
        healpix_file: a multi-order map's file.
        model: SHA-256 of the search model.

    Raises:
        AlertError: a value of another kind; says which.
    """

    alert_datetime: str
    alert_type: UnifiedType
    trigger_time: str
    id: tuple[str, ...]
    instrument: str
    model: str
    far: float | None = None
    p_astro: float | None = None
    classification: Classification | None = None
    ra: float | None = None
    dec: float | None = None
    ra_dec_error: float | None = None
    containment_probability: float | None = None
    healpix_file: bytes | None = None

    def __post_init__(self) -> None:
        _time("alert_datetime", self.alert_datetime)
        _time("trigger_time", self.trigger_time)
        _text("instrument", self.instrument)
        if self.alert_type not in get_args(UnifiedType):
            raise AlertError(f"alert_type is {self.alert_type!r}: {', '.join(get_args(UnifiedType))} are known")
        if not self.id:
            raise AlertError("id names no event")
        for name in self.id:
            _text("id", name)
        if not isinstance(self.model, str) or not SHA256.fullmatch(self.model):
            raise AlertError(f"additional_info names no search model: model {MODEL} and its SHA-256 are expected")
        if self.far is not None:
            _number("far", self.far, above=0)
        for name in ("p_astro", "containment_probability"):
            if getattr(self, name) is not None:
                check_probability(name, getattr(self, name))
        for name, low, high in (("ra", 0, 360), ("dec", -90, 90), ("ra_dec_error", 0, 180)):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), least=low, most=high)

    def to_json(self) -> bytes:
        """Values that are not known are left out, as the schema asks."""
        content = {"mission": PIPELINE, "messenger": "GW", "alert_tense": TENSE} | vars(self)
        del content["model"]
        content |= {"id": list(self.id), "additional_info": f"model {MODEL}{self.model}"}
        content["healpix_file"] = _base64(self.healpix_file)
        content["classification"] = self.classification and vars(self.classification)
        return _dumped({key: value for key, value in content.items() if value is not None})

    @classmethod
    def from_json(cls, content: bytes) -> UnifiedNotice:
        """Of a notice that this program made; others' are read by `crossmatch`.

        Raises:
            AlertError: too large, no JSON, another's, or a value of another kind; says which.
        """
        found = _parsed(content)
        for key, value in (("mission", PIPELINE), ("messenger", "GW"), ("alert_tense", TENSE)):
            if found.pop(key, None) != value:
                raise AlertError(f"{key} is not {value}: this is no notice of {PIPELINE}")
        info = found.pop("additional_info", None)
        found["model"] = info.removeprefix(f"model {MODEL}") if isinstance(info, str) else ""
        kinds = found.get("classification")
        found = _keys({f.name: None for f in fields(cls)} | found, cls, "")
        found["id"] = _texts("id", found["id"])
        found["healpix_file"] = _bytes("healpix_file", found["healpix_file"])
        if kinds is not None:
            found["classification"] = Classification(**_keys(kinds, Classification, "classification."))
        return cls(**found)


def notice_of(superevent: Superevent, created: str, external: ExternalCoincidence | None = None) -> Notice:
    """The notice of a superevent's version.

    Args:
        created: UTC.
    """
    best = superevent.preferred
    classification, properties = classify(best)
    event = Event(
        best.far <= SIGNIFICANT, best.utc, best.far, best.instruments, "CBC", PIPELINE, SEARCH, properties,
        classification, best.duration, None, superevent.localisation.fits if superevent.localisation else None,
    )  # fmt: skip
    urls = {"model": MODEL + best.model}
    taken_back = superevent.state is State.RETRACTION
    return Notice(superevent.state, created, superevent.id, urls, None if taken_back else event, external)


def unified_of(superevent: Superevent, created: str) -> UnifiedNotice:
    """The same in the other flavour."""
    best, place = superevent.preferred, superevent.localisation
    head = (created, UNIFIED[superevent.state], best.utc, (superevent.id,), "+".join(best.instruments), best.model)
    if superevent.state is State.RETRACTION:
        return UnifiedNotice(*head)
    classification, properties = classify(best)
    where = (place.ra, place.dec, place.radius, CONTAINMENT, place.fits) if place else ()
    known = classification if properties else None  # an assumption is left out, as what is not known is
    return UnifiedNotice(*head, best.far, classification.p_astro, known, *where)


def headers_of(superevent: Superevent, origin: Origin) -> dict[str, str]:
    """What a record's headers say: which notice it is, that it is a test, of what strain, and what is only assumed."""
    return {
        "superevent_id": superevent.id,
        "version": str(superevent.version),
        "alert_type": superevent.state.value,
        "role": ROLE,
        "alert_tense": TENSE,
        "origin": origin.value,
        "model": superevent.preferred.model,
        "far_is_upper_limit": str(superevent.preferred.far_is_upper_limit).lower(),
        "classification": basis_of(superevent.preferred),
    }


def _dumped(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > LARGEST:
        raise AlertError(f"a notice of {len(text):,} bytes is too large: at most {LARGEST:,}; use a coarser sky map")
    return text


def _parsed(content: bytes) -> dict[str, Any]:
    if len(content) > LARGEST:
        raise AlertError(f"a notice of {len(content):,} bytes is refused: at most {LARGEST:,} are read")
    try:
        found = json.loads(content, parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise AlertError(f"a notice is no JSON: {str(error) or 'nested too deeply'}") from None
    if not isinstance(found, dict):
        raise AlertError("a notice is a JSON object; this is none")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _keys(found: Any, kind: type, where: str) -> dict[str, Any]:
    """The object's values, if its keys are those of the dataclass."""
    if not isinstance(found, dict):
        raise AlertError(f"{where.rstrip('.') or 'a notice'} is no object")
    known = {f.name for f in fields(kind)}
    for name in sorted(known ^ found.keys()):
        raise AlertError(f"{where}{name} {'is missing' if name in known else 'is no key of a notice'}")
    return dict(found)


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value or len(value) > 1000:
        raise AlertError(f"{name} is {str(value)[:40]!r}: a text of 1 to 1,000 characters is expected")


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise AlertError(f"{name} is no list")
    for each in value:
        _text(name, each)
    return tuple(value)


def _time(name: str, value: object) -> None:
    if not isinstance(value, str) or not UTC_TIME.fullmatch(value):
        raise AlertError(f"{name} is {str(value)[:40]!r}: a time in UTC is expected, YYYY-MM-DDThh:mm:ss.sssZ")


def _number(
    name: str, value: object, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AlertError(f"{name} is {str(value)[:40]!r}: a number is expected")
    if not (value > above and least <= value <= most):
        raise AlertError(f"{name} is {value}: out of its range")


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(name: str, value: object) -> bytes | None:
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise ValueError
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise AlertError(f"{name} is no base64") from None
