"""Superevents (section 9): one event on the sky, told in versions.

    superevent = Superevent.opened(candidate, number)        # PRELIMINARY, version 1
    superevent = superevent.located(sky_map)                 # INITIAL, version 2
    superevent = superevent.joined(louder)                   # UPDATE, version 3
    superevent = superevent.retracted()                      # RETRACTION, version 4: supersedes, deletes nothing

Nothing here reads a clock, a file or a database: a superevent is a value, and every step gives the next one.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from mma_realtime.errors import AlertError
from mma_realtime.gw.units import GPS, Hertz, Seconds
from mma_realtime.search.coincidence import MERGE

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
SHA256 = re.compile(r"[0-9a-f]{64}")


class State(StrEnum):
    """Of a superevent: the alert type of its latest version."""

    EARLYWARNING = "EARLYWARNING"
    PRELIMINARY = "PRELIMINARY"
    INITIAL = "INITIAL"
    UPDATE = "UPDATE"
    RETRACTION = "RETRACTION"


# What may follow. A first sky map makes INITIAL; what changes after it is an UPDATE; after a retraction comes nothing.
TRANSITIONS: dict[State | None, frozenset[State]] = {
    None: frozenset({State.EARLYWARNING, State.PRELIMINARY}),
    State.EARLYWARNING: frozenset({State.EARLYWARNING, State.PRELIMINARY, State.RETRACTION}),
    State.PRELIMINARY: frozenset({State.PRELIMINARY, State.INITIAL, State.RETRACTION}),
    State.INITIAL: frozenset({State.UPDATE, State.RETRACTION}),
    State.UPDATE: frozenset({State.UPDATE, State.RETRACTION}),
    State.RETRACTION: frozenset(),
}


@dataclass(frozen=True)
class Candidate:
    """A trigger and how sure it is.

    Args:
        gps: of the event (GPS s). utc: the same in ISO 8601, for names and notices.
        statistic: of the search.
        far: false alarms as loud per second (Hz). far_is_upper_limit: nothing in the background is as loud.
        instruments: detectors that took part.
        duration: s above the threshold.
        model: SHA-256 of the search model.
        masses: of the components (solar masses, the heavier first), where something estimated them.
        early_warning: found before the merger.

    Raises:
        AlertError: a number that is none, a false-alarm rate of zero, a time or checksum of another form.
    """

    gps: GPS
    utc: str
    statistic: float
    far: Hertz
    far_is_upper_limit: bool
    instruments: tuple[str, ...]
    duration: Seconds
    model: str
    masses: tuple[float, float] | None = None
    early_warning: bool = False

    def __post_init__(self) -> None:
        masses = self.masses or (1.0, 1.0)
        if not all(map(math.isfinite, (self.gps, self.statistic, self.far, self.duration, *masses))):
            raise AlertError(f"a candidate near GPS {self.gps} has numbers that are none: no alert is made of it")
        if self.far <= 0:
            raise AlertError("a false-alarm rate of zero cannot be: give the upper bound that the background allows")
        if self.duration < 0 or not self.instruments or not masses[0] >= masses[1] > 0:
            raise AlertError(
                f"a candidate of {self.duration:g} s in {', '.join(self.instruments) or 'no detector'} with masses "
                f"{self.masses} is none: a duration from 0, a detector, and masses, the heavier first, are needed"
            )
        if not UTC_TIME.fullmatch(self.utc):
            raise AlertError(f"{self.utc!r} is no time in UTC: YYYY-MM-DDThh:mm:ss.sssZ is")
        if not SHA256.fullmatch(self.model):
            raise AlertError(f"{self.model!r} is no SHA-256 of a search model: 64 hexadecimal digits are")

    @property
    def rank(self) -> tuple[float, float]:
        """The smaller the better: the false-alarm rate, then the louder."""
        return self.far, -self.statistic


@dataclass(frozen=True)
class Localisation:
    """Where on the sky.

    Args:
        fits: a multi-order map's file.
        ra, dec: deg, of its densest pixel.
        radius: deg, of a circle with the area of the 90 % region.
        masses: of the template that the map was made with (solar masses, the heavier first).
    """

    fits: bytes
    ra: float
    dec: float
    radius: float
    masses: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.ra < 360 and -90 <= self.dec <= 90 and 0 <= self.radius <= 180) or not self.fits:
            raise AlertError(
                f"a sky map at {self.ra}, {self.dec} deg with a radius of {self.radius} deg: no such place"
            )


@dataclass(frozen=True)
class Superevent:
    """Args:
    id: S, the day of its first trigger in UTC (yymmdd), and letters.
    opened: GPS s of its first trigger: what lies within 1 s of it is the same event.
    preferred: the candidate that stands for it.
    state: alert type of this version.
    version: 1, 2, ...
    localisation: of the preferred candidate; None: not yet made.
    """

    id: str
    opened_at: GPS
    preferred: Candidate
    state: State
    version: int = 1
    localisation: Localisation | None = None

    @classmethod
    def opened(cls, candidate: Candidate, number: int) -> Superevent:
        """The first version.

        Args:
            number: superevents of the same day before it.
        """
        state = step(None, State.EARLYWARNING if candidate.early_warning else State.PRELIMINARY)
        return cls(f"S{day_of(candidate.utc)}{letters(number)}", candidate.gps, candidate, state)

    def holds(self, gps: GPS) -> bool:
        """Whether a trigger at `gps` is of this event: within [-1, +1] s of its first."""
        return abs(gps - self.opened_at) <= MERGE

    def joined(self, candidate: Candidate) -> Superevent:
        """With another candidate of the same event: itself where that is not better than the preferred one.

        Raises:
            AlertError: another event's, or the superevent is retracted.
        """
        if not self.holds(candidate.gps):
            raise AlertError(f"a trigger at GPS {candidate.gps:.3f} is more than {MERGE:g} s from {self.id}")
        early = candidate.early_warning
        if self.preferred.early_warning and not early:
            target = State.PRELIMINARY  # the whole signal replaces its beginning, whatever the rates
        elif candidate.rank >= self.preferred.rank or (early and not self.preferred.early_warning):
            step(self.state, State.RETRACTION)  # raises where nothing can follow
            return self
        elif early:
            target = State.EARLYWARNING
        else:
            target = State.UPDATE if self.state in (State.INITIAL, State.UPDATE) else State.PRELIMINARY
        # The map was the other candidate's: it goes with it.
        return self._next(target, preferred=candidate, localisation=None)

    def located(self, localisation: Localisation) -> Superevent:
        """With a sky map of the preferred candidate, and the masses that were found with it.

        Raises:
            AlertError: the superevent is retracted.
        """
        after = {State.EARLYWARNING: State.EARLYWARNING, State.PRELIMINARY: State.INITIAL}
        target = after.get(self.state, State.UPDATE)
        masses = self.preferred.masses or localisation.masses
        return self._next(target, localisation=localisation, preferred=replace(self.preferred, masses=masses))

    def coincident(self) -> Superevent:
        """A version that says the same of the event, for a notice that says more of other messengers.

        Raises:
            AlertError: the superevent is retracted.
        """
        return self._next(State.UPDATE if self.state is State.INITIAL else self.state)

    def retracted(self) -> Superevent:
        """The version that takes it back.

        Raises:
            AlertError: it is already taken back.
        """
        return self._next(State.RETRACTION)

    def _next(self, target: State, **changes: Any) -> Superevent:
        return replace(self, state=step(self.state, target), version=self.version + 1, **changes)

    def to_json(self) -> str:
        """All but the map's file."""
        content = asdict(self) | {"localisation": self.localisation and asdict(self.localisation) | {"fits": None}}
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, fits: bytes | None) -> Superevent:
        content = json.loads(text)
        preferred, place = content["preferred"], content["localisation"]
        preferred |= {"instruments": tuple(preferred["instruments"])}
        for each in (preferred, place or {}):
            each["masses"] = tuple(each["masses"]) if each.get("masses") else None
        return cls(
            **content
            | {
                "preferred": Candidate(**preferred),
                "state": State(content["state"]),
                "localisation": place and Localisation(**place | {"fits": fits}),
            }
        )


def step(state: State | None, target: State) -> State:
    """The state after a transition.

    Raises:
        AlertError: there is no such transition; says which there are.
    """
    if target not in TRANSITIONS[state]:
        may = ", ".join(sorted(TRANSITIONS[state])) or "nothing"
        raise AlertError(f"{target} does not follow {state or 'the beginning'}: {may} does")
    return target


def day_of(utc: str) -> str:
    """yymmdd of a time in ISO 8601."""
    return utc[2:4] + utc[5:7] + utc[8:10]


def letters(number: int) -> str:
    """0, 1, ... as a..z, aa..az, ba..: digits of base 26 without a zero."""
    if number < 0:
        raise AlertError(f"superevents of a day are counted from 0, not {number}")
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
