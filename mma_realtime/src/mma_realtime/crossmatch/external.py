"""External notices (section 10): bursts, neutrinos and optical transients, in JSON of the GCN family or as VOEvents.

One notice may tell several events (IceCube's follow-up of a superevent does). The order of arrival means nothing:
`Externals` keeps, of every event, what was sent last.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from mma_realtime.alerts.voevent import VOEvent, read
from mma_realtime.crossmatch.joint import YEAR
from mma_realtime.errors import AlertError, CrossMatchError
from mma_realtime.gw.units import GPS, Hertz
from mma_realtime.sky.moc import DEEPEST, FIRST_UNIQ
from mma_realtime.times import gps_from_utc

Kind = Literal["GRB", "neutrino", "optical"]
AlertType = Literal["initial", "subsequent", "update", "retraction"]
Tense = Literal["current", "archival", "planned", "injection", "commanded", "test"]

LARGEST = 32 * 2**20  # bytes of a notice: a sky map takes a few megabytes
LONGEST = 400  # characters of a name: two of them and a space name an event in a notice of ours, which takes 1,000
RATES = (1e-100, 1e12)  # Hz: what no search can mean; products and logarithms of rates between them are numbers
CONTAINMENT = 0.9  # of an error radius, where the notice does not say
SYSTEMATIC = {"Fermi": 3.7}  # deg, where the notice does not include it
KINDS: dict[str, Kind] = {
    "Fermi": "GRB", "Swift": "GRB", "INTEGRAL": "GRB", "SVOM": "GRB", "Einstein Probe": "GRB",
    "IceCube": "neutrino", "KM3NeT": "neutrino",
}  # fmt: skip
MESSENGERS: dict[str, Kind] = {"Neutrino": "neutrino"}
BELOW = ("guano", "subthresh", "targeted")  # in the names of searches below the threshold of alerts
ROLES: dict[str, Tense] = {
    "observation": "current",
    "test": "test",
    "prediction": "planned",
    "utility": "commanded",
}  # of VOEvents
CITES: dict[str, AlertType] = {"retraction": "retraction", "supersedes": "update", "followup": "subsequent"}
PER_SECOND = {"Hz": 1.0, "s^-1": 1.0, "yr^-1": 1 / YEAR}  # units of a VOEvent's FAR
ONE_SIGMA = {"Fermi"}  # missions whose VOEvents have a radius of one sigma


@dataclass(frozen=True)
class ExternalEvent:
    """What an observatory says of an event.

    Args:
        id: mission and its own name of the event: of all its notices the same.
        kind: decides window and rate.
        gps: of the event (GPS s). sent: of the notice (GPS s).
        far: false alarms as loud per second; None: not said.
        ra, dec: deg, ICRS; None: place not known. sigma: deg, of a Gaussian on the sphere, systematic error included.
        sky_map: content of a FITS file, in place of a point.
        subthreshold: from a search that went below the threshold of alerts.
        ivorn: of the notice.
        superevent: to which the notice refers, for a follow-up.
    """

    id: str
    mission: str
    instrument: str
    kind: Kind
    gps: GPS
    sent: GPS
    alert_type: AlertType
    tense: Tense
    far: Hertz | None = None
    ra: float | None = None
    dec: float | None = None
    sigma: float | None = None
    sky_map: bytes | None = None
    subthreshold: bool = False
    ivorn: str | None = None
    superevent: str | None = None

    @property
    def real(self) -> bool:
        """Of the sky: neither a test nor an injection, nor what is only planned."""
        return self.tense in ("current", "archival")

    @property
    def key(self) -> tuple[str, GPS, str]:
        """Of one notice on one event: what comes again with the same is a duplicate."""
        return self.id, self.sent, self.alert_type


def read_notice(content: bytes) -> list[ExternalEvent]:
    """The events of a notice: a VOEvent if it begins with `<`, else JSON.

    Raises:
        CrossMatchError: it is too large, neither of the two, or lacks what a comparison needs; says which field.
    """
    if len(content) > LARGEST:
        raise CrossMatchError(f"a notice of {len(content):,} bytes is refused: at most {LARGEST:,} are read")
    if content.lstrip()[:1] == b"<":
        try:
            return [_of_voevent(read(content.lstrip()))]
        except AlertError as error:
            raise CrossMatchError(str(error)) from None
    try:
        found = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CrossMatchError(f"a notice is no JSON: {str(error) or 'nested too deeply'}") from None
    if not isinstance(found, dict):
        raise CrossMatchError("a notice is a JSON object; this is none")
    several = found.get("coincident_events")
    return _coincident(found, several) if several is not None else [_event(found)]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _event(notice: Mapping[str, Any]) -> ExternalEvent:
    mission = _mission(notice)
    instrument = _text(notice, "instrument", "")
    # A retraction names the event and the time it was sent; the rest may be missing.
    alert_type = _choice(notice, "alert_type", get_args(AlertType), "initial")
    sent = _time(notice, "alert_datetime")
    gps = (
        _time(notice, "trigger_time") if notice.get("trigger_time") is not None or alert_type != "retraction" else sent
    )
    ra, dec, sigma = _place(notice, mission)
    kind = MESSENGERS.get(str(notice.get("messenger")), _kind(mission, notice))
    return ExternalEvent(
        f"{mission} {_identifier(notice)}", mission, instrument, kind, gps, sent, alert_type,
        _choice(notice, "alert_tense", get_args(Tense), "current"), _number(notice, "far", *RATES), ra, dec, sigma,
        _map(notice), _below(notice), _text(notice, "ivorn", "") or None,
    )  # fmt: skip


def _kind(mission: str, notice: Mapping[str, Any]) -> Kind:
    """Of a mission that is known, or of a notice that calls its event a GRB; else optical."""
    said = " ".join(str(notice.get(key, "")) for key in ("classification", "type", "$schema"))
    return KINDS.get(mission, "GRB" if _has(said, ("grb",)) else "optical")


def _below(notice: Mapping[str, Any]) -> bool:
    """Whether its search went below threshold: it says so, or has the name of one that does (Swift's GUANO)."""
    names = " ".join(str(notice.get(key, "")) for key in ("$schema", "type", "instrument", "pipeline", "ivorn"))
    search = str(notice.get("search", "")).lower()
    return bool(notice.get("subthreshold", False)) or "sub" in search or _has(f"{names} {search}", BELOW)


def _has(text: str, words: Iterable[str]) -> bool:
    return any(word in text.lower() for word in words)


def _of_voevent(packet: VOEvent) -> ExternalEvent:
    """The event of a packet: of the packets on one event `TrigID` is the same, or they cite the first one's name."""
    cited, how = packet.citations[0] if packet.citations else (packet.ivorn, "")
    names = {"ivorn": packet.ivorn, "EventIVORN": cited, "TrigID": packet.params.get("TrigID", cited)}
    ivorn, _, event = (_text(names, key, "") for key in names)
    mission = _named({"type": ivorn}) or ivorn.removeprefix("ivo://").split("/")[0]
    alert_type = CITES.get(how, "initial")
    when = {"Date": packet.date or packet.time, "ISOTime": packet.time}
    sent = _time(when, "Date")
    gps = sent if packet.time is None and alert_type == "retraction" else _time(when, "ISOTime")
    place = {
        "ra": packet.ra, "dec": packet.dec, "ra_dec_error": packet.radius,
        "containment_probability": -math.expm1(-0.5) if mission in ONE_SIGMA else None,
    }  # fmt: skip
    ra, dec, sigma = _place(place, mission)
    return ExternalEvent(
        f"{mission} {event}", mission, "", KINDS.get(mission, "optical"), gps, sent, alert_type, ROLES[packet.role],
        _rate(packet), ra, dec, sigma, subthreshold=_has(ivorn, BELOW), ivorn=ivorn,
    )  # fmt: skip


def _rate(packet: VOEvent) -> Hertz | None:
    """The false-alarm rate, where its unit is known."""
    factor = PER_SECOND.get(packet.units.get("FAR", ""))
    if factor is None:
        return None
    try:
        return _number({"FAR": float(packet.params["FAR"]) * factor}, "FAR", *RATES)
    except ValueError as error:
        raise CrossMatchError(f"notice: 'FAR' is no rate: {error}"[:200]) from None


def _coincident(notice: Mapping[str, Any], several: Any) -> list[ExternalEvent]:
    """IceCube's search around a superevent: neutrinos at offsets from the trigger's time."""
    if not isinstance(several, list):
        raise CrossMatchError("notice: 'coincident_events' is no list")
    mission = _mission(notice)
    sent, trigger = _time(notice, "alert_datetime"), _time(notice, "trigger_time")
    reference = _text(notice, "ref_ID", "")
    out = []
    for each in several:
        if not isinstance(each, dict):
            raise CrossMatchError("notice: an entry of 'coincident_events' is no object")
        offset = _number(each, "event_dt")
        if offset is None:
            raise CrossMatchError("notice: an entry of 'coincident_events' has no 'event_dt'")
        place = each.get("localization")
        ra, dec, sigma = _place(place if isinstance(place, dict) else {}, mission)
        out.append(
            ExternalEvent(
                f"{mission} {_identifier(each)}", mission, _text(notice, "instrument", ""), "neutrino",
                trigger + offset, sent, _choice(notice, "alert_type", get_args(AlertType), "initial"),
                _choice(notice, "alert_tense", get_args(Tense), "current"), None, ra, dec, sigma,
                superevent=reference,
            )
        )  # fmt: skip
    return out


def _named(notice: Mapping[str, Any]) -> str:
    """The mission, where only the notice's type or schema tells it."""
    told = f"{notice.get('type', '')} {notice.get('$schema', '')}".lower()
    return next((mission for mission in KINDS if mission.lower() in told), "")


def _mission(notice: Mapping[str, Any]) -> str:
    """As `KINDS` writes it, whatever case the notice has; others as they are."""
    found = _text(notice, "mission", _named(notice))
    if not found:
        raise CrossMatchError("notice: it names no 'mission', and neither its type nor its schema tells one")
    return next((mission for mission in KINDS if mission.lower() == found.lower()), found)


def _text(notice: Mapping[str, Any], key: str, default: str) -> str:
    found = default if notice.get(key) is None else notice[key]
    if not isinstance(found, str) or len(found) > LONGEST:
        raise CrossMatchError(f"notice: '{key}' has to be a text of up to {LONGEST} characters, it is {found!r}"[:200])
    return found.strip()


def _choice(notice: Mapping[str, Any], key: str, known: tuple[str, ...], default: str) -> Any:
    found = notice.get(key, default)
    if found not in known:
        raise CrossMatchError(f"notice: '{key}' is {found!r}; there are {', '.join(known)}"[:200])
    return found


def _identifier(notice: Mapping[str, Any]) -> str:
    found = notice.get("id")
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise CrossMatchError("notice: it has no 'id': what it updates or retracts could not be told")
    if not (name := _text({"id": str(found)}, "id", "")):
        raise CrossMatchError("notice: its 'id' is empty: what it updates or retracts could not be told")
    return name


def _time(notice: Mapping[str, Any], key: str) -> GPS:
    found = notice.get(key)
    try:
        return gps_from_utc(found)  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        raise CrossMatchError(
            f"notice: '{key}' is {found!r}; a time like 2017-08-17T12:41:06Z is expected"[:200]
        ) from None


def _number(
    notice: Mapping[str, Any], key: str, low: float = -math.inf, high: float = math.inf, above: float | None = None
) -> float | None:
    """A finite number, or None where there is none."""
    found = notice.get(key)
    if found is None:
        return None
    good = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 1e300
    if not good or not low <= found <= high or (above is not None and found <= above):
        limits = f"above {above:g}" if above is not None else f"from {low:g} to {high:g}"
        raise CrossMatchError(f"notice: '{key}' is {found!r}; a number {limits} is expected"[:200])
    return float(found)


def _place(notice: Mapping[str, Any], mission: str) -> tuple[float | None, float | None, float | None]:
    """(ra, dec, sigma) in degrees. An error radius of a containment c is sigma sqrt(-2 ln(1 - c))."""
    ra, dec = _number(notice, "ra", 0, 360), _number(notice, "dec", -90, 90)
    if (ra is None) != (dec is None):
        raise CrossMatchError("notice: of 'ra' and 'dec' one is missing")
    if ra is None:
        return None, None, None
    radius = _number(notice, "ra_dec_error", 0, 180) or 0.0
    contained = _number(notice, "containment_probability", above=0.0)
    contained = CONTAINMENT if contained is None else contained
    if contained >= 1:
        raise CrossMatchError(
            f"notice: 'containment_probability' is {contained:g}; a number between 0 and 1 is expected"
        )
    sigma = radius / math.sqrt(-2 * math.log1p(-contained))
    if not notice.get("systematic_included", False):
        sigma = math.hypot(sigma, SYSTEMATIC.get(mission, 0.0))
    return ra, dec, sigma


def _map(notice: Mapping[str, Any]) -> bytes | None:
    found = notice.get("healpix_file")
    if found is None:
        return None
    try:
        return base64.b64decode(found, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise CrossMatchError("notice: 'healpix_file' is no base64 text") from None


@dataclass(frozen=True)
class Spot:
    """A Gaussian spot on the sphere as a multi-order map; adds up to 1.

    Args:
        uniq: pixels. probdensity: 1/sr.
    """

    uniq: np.ndarray
    probdensity: np.ndarray


FINEST = 24  # of a spot: 0.01 arc seconds


def spot(ra: float, dec: float, sigma: float) -> Spot:
    """Density proportional to exp((cos d - 1) / sigma^2): fine pixels within 6 sigma, an eighth of sigma wide.

    Args:
        ra, dec: deg. sigma: deg, above zero.

    Raises:
        CrossMatchError: sigma is not above zero, or finer than the finest pixel: compare a point with the density.
    """
    if not sigma > math.degrees(8 * _width(FINEST)):
        raise CrossMatchError(f"an error radius of {sigma:g} deg is that of a point: take the map's density there")
    s = math.radians(sigma)
    target = np.array(
        [math.cos(math.radians(dec)) * math.cos(math.radians(ra)),
         math.cos(math.radians(dec)) * math.sin(math.radians(ra)), math.sin(math.radians(dec))]
    )  # fmt: skip
    level, pixels, done = 0, np.arange(12, dtype=np.int64), []
    while True:
        apart = 2 * np.arcsin(np.clip(np.linalg.norm(_centres(level, pixels) - target, axis=1) / 2, 0, 1))
        fine = (apart < 6 * s + 2 * _width(level)) & (_width(level) > s / 8)
        done.append((level, pixels[~fine], apart[~fine]))
        if not fine.any():
            break
        level, pixels = level + 1, (4 * pixels[fine][:, None] + np.arange(4)).ravel()
    uniq = np.concatenate([FIRST_UNIQ[at] + found for at, found, _ in done])
    area = np.concatenate([np.full(len(found), 4 * math.pi / (12 * 4.0**at)) for at, found, _ in done])
    apart = np.concatenate([one for _, _, one in done])
    density = np.exp(-2 * np.sin(apart / 2) ** 2 / s**2)
    return Spot(uniq, density / np.dot(density, area))


def _width(level: int) -> float:
    """rad: root of the area of a pixel."""
    return math.sqrt(4 * math.pi / 12) / 2**level


def _centres(level: int, pixels: np.ndarray) -> np.ndarray:
    from astropy_healpix import HEALPix

    assert level <= DEEPEST
    lon, lat = HEALPix(2**level, order="nested").healpix_to_lonlat(pixels)
    lon, lat = lon.rad, lat.rad
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


class Externals:
    """What is known of external events, whatever the order in which notices came.

    Of an event the notice that was sent last holds; of two sent at the same moment a retraction. What an update does
    not say is taken from the notices before it. A VOEvent that cites another is of the event of that one, which may
    itself cite one before it, and so on: the first's name is that of the event, once it is here.
    """

    def __init__(self, events: Iterable[ExternalEvent] = ()) -> None:
        self._notices: dict[str, dict[tuple[str, GPS, str], ExternalEvent]] = {}
        self._same: dict[str, str] = {}  # names under which notices cite one, and the event's name as that one has it
        for event in events:
            self.add(event)

    def add(self, event: ExternalEvent) -> list[str]:
        """Names of events of which now holds something else; none: it was there, or has changed nothing."""
        cited = f"{event.mission} {event.ivorn}" if event.ivorn else event.id
        if cited not in self._same and self._root(event.id) != cited:  # a circle of citations would have no first
            self._same[cited] = event.id
        name = self._root(event.id)
        before = {known: self.get(known) for known in dict.fromkeys((name, cited))}
        known = self._notices.setdefault(name, {})
        # What cited this notice before it was here is of its event.
        for each in (event, *(self._notices.pop(cited, {}) if cited != name else {}).values()):
            own = each if each.id == name else replace(each, id=name)
            known.setdefault(own.key, own)
        return [known for known, held in before.items() if self.get(known) != held]

    def _root(self, name: str) -> str:
        while name in self._same:
            name = self._same[name]
        return name

    def get(self, name: str) -> ExternalEvent | None:
        """What holds of an event: None if unknown; a retracted one has `alert_type` retraction."""
        known = sorted(self._notices.get(name, {}).values(), key=lambda e: (e.sent, e.alert_type == "retraction"))
        if not known:
            return None
        last = known[-1]
        if last.alert_type == "retraction":
            told = next((e for e in reversed(known[:-1]) if e.alert_type != "retraction"), None)
            return replace(last, gps=told.gps) if told else last
        for earlier in reversed(known[:-1]):
            if last.ra is None and last.sky_map is None:
                last = replace(last, ra=earlier.ra, dec=earlier.dec, sigma=earlier.sigma, sky_map=earlier.sky_map)
            if last.far is None:
                last = replace(last, far=earlier.far)
        return last

    def standing(self) -> list[ExternalEvent]:
        """All that are not retracted, by their time."""
        found = [self.get(name) for name in self._notices]
        return sorted((e for e in found if e is not None and e.alert_type != "retraction"), key=lambda e: e.gps)
