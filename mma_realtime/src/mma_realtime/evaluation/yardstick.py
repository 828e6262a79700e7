"""The yardstick of E1, E4, E5 and E6: a matched-filter bank, measured on what the networks are measured on.

Its templates are the very waveforms that were injected, and in Gaussian noise it is as good as such a search gets, and
what a network is to be held against. It has no chi-square test: where there are glitches it is a weak yardstick.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from shared.data.root import data_root
from shared.errors import UserError

from mma_realtime.data.challenge import CURVE, generate
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.data.strain import EVENTS, Strain, event_files, read_event, time_reversed
from mma_realtime.evaluation.challenge import glitches_in
from mma_realtime.evaluation.distance import MOST_SLIDES, calibration_of, over_sets, sensitive_distances, set_seeds
from mma_realtime.evaluation.efficiency import ideal_efficiency
from mma_realtime.evaluation.events import ENOUGH
from mma_realtime.evaluation.stand_in import stand_in
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.units import GPS
from mma_realtime.search.bank import Bank, template_bank
from mma_realtime.search.matched_filter import MatchedFilterSearch
from mma_realtime.search.significance import Background
from mma_realtime.search.template_triggers import network_triggers, slid_background

STEP = 0.25  # s between the correlated slides of a short stretch
FLOOR = 6.0  # of the network statistic, of a short stretch
TOLD = 2000.0  # s between two false alarms that the bank, which has no threshold of its own, may tell of
FILTER = 2.0  # s: up to 1000 Hz, 1 s smears the lines of real noise, and L1 loses a third of GW150914


@dataclass
class Settings:
    """Args:
    m_range, q_max, band, minimal_match: of the bank (solar masses, Hz).
    threshold: of |z| in one detector; network_threshold: of sqrt(z1^2 + z2^2).
    trials, signals: of E1's ideal filter; 0 trials: no E1.
    events, stand_in, challenge, challenge_sets, glitches: as of the networks' measurements.
    """

    m_range: tuple[float, float] = (10.0, 50.0)
    q_max: float = 5.0
    band: tuple[float, float] = (20.0, 1000.0)
    minimal_match: float = 0.97
    threshold: float = 4.0
    network_threshold: float = 6.5  # an hour of noise has about three clusters above it in 200 s
    trials: int = 20_000
    signals: int = 2000
    events: list[str] = field(default_factory=lambda: list(EVENTS))
    stand_in: bool = True
    challenge: int = 0
    challenge_sets: int = 1
    glitches: bool = False

    @classmethod
    def read(cls, section: dict[str, Any]) -> Settings:
        known = {f.name for f in dataclasses.fields(cls)}
        for key in section:
            if key not in known:
                raise UserError(
                    f"configuration: unknown key 'matched_filter.{key}'; it has: {', '.join(sorted(known))}"
                )
        return cls(**section)

    def dry(self) -> Settings:
        """The least of everything."""
        return dataclasses.replace(
            self, minimal_match=0.8, m_range=(25.0, 30.0), trials=min(self.trials, 10_000), signals=50, events=[],
            challenge=min(self.challenge, 200), challenge_sets=1,
        )  # fmt: skip

    def bank(self, seed: int) -> Bank:
        return template_bank(self.m_range, self.q_max, design_curve(CURVE), *self.band, self.minimal_match, seed)


def yardstick(section: dict[str, Any], data: dict[str, Any], seed: int, dry: bool = False) -> dict[str, Any]:
    """Metrics by name, curves as lists; names as the networks'."""
    settings = Settings.read(section)
    if dry:
        settings = settings.dry()
    own: dict[str, Any] = {**data, "detectors": 1, "seed": seed, **({"bank_size": 200} if dry else {})}
    windows = SimulatedBBH(**own)
    out: dict[str, Any] = {}
    if settings.trials:
        out |= ideal_efficiency(windows, settings.trials, settings.signals, seed=seed)
    bank = settings.bank(seed)
    out["templates"] = float(len(bank))
    root = Path(data["root"]) if data.get("root") else data_root()
    found = [(name, *read_event(*event_files(name, root))) for name in settings.events if event_files(name, root)]
    if settings.stand_in:
        found.append(("stand_in", *stand_in()))
    for name, strain, gps in found:
        out |= event_metrics(bank, strain, gps, name)
    if settings.challenge:
        out |= over_sets([challenge_metrics(bank, settings, one) for one in set_seeds(seed, settings.challenge_sets)])
    return out


def event_metrics(bank: Bank, strain: Strain, gps: GPS, name: str) -> dict[str, float]:
    """As `events.event_metrics`, of the bank's statistic sqrt(z1^2 + z2^2)."""
    head = f"events/{name}/"
    best, inclusive, exclusive = _look(bank, strain)
    backwards = _look(bank, time_reversed(strain))

    def loudest(chance: Background) -> float:
        return max(chance.loudest, FLOOR)  # what is not above the floor was not looked for

    above = best[1] > max(loudest(exclusive), loudest(inclusive))
    return {
        f"{head}statistic": best[1],
        f"{head}loudest_slide": loudest(exclusive),
        f"{head}loudest_slide_inclusive": loudest(inclusive),
        f"{head}above_all": float(above),
        f"{head}above_2000_s": float(above and exclusive.livetime_s >= ENOUGH),
        f"{head}time_error": abs(best[0] - gps),
        f"{head}livetime": exclusive.livetime_s,
        f"{head}reversed_statistic": backwards[0][1],
        f"{head}reversed_lower": float(backwards[0][1] < best[1]),
        f"{head}reversed_in_noise": float(backwards[0][1] <= loudest(backwards[2])),
    }


def _look(bank: Bank, strain: Strain) -> tuple[tuple[float, float], Background, Background]:
    triggers = MatchedFilterSearch(bank, strain.sample_rate, threshold=3.5, filter_length=FILTER).triggers(strain)
    found = network_triggers(triggers, FLOOR)
    best = max(((t.gps, t.statistic) for t in found), key=lambda pair: pair[1], default=(strain.gps_start, FLOOR))
    slides = [slid_background(triggers, FLOOR, STEP, on_source=taken, correlated=True) for taken in ((), (best[0],))]
    return best, slides[0], slides[1]


def challenge_metrics(bank: Bank, settings: Settings, seed: int) -> dict[str, Any]:
    """As `challenge.challenge_metrics`."""
    challenge = generate(settings.challenge, seed)
    out: dict[str, Any] = {}
    for suffix in ("", "_glitches") if settings.glitches else ("",):
        noise, signals = challenge.background, challenge.foreground
        if suffix:
            added = glitches_in(noise, seed)
            noise, signals = (dataclasses.replace(each, values=each.values + added) for each in (noise, signals))
        search = MatchedFilterSearch(bank, noise.sample_rate, threshold=settings.threshold, filter_length=FILTER)
        quiet = search.triggers(noise)
        chance = slid_background(quiet, settings.network_threshold, max_slides=MOST_SLIDES)
        found = network_triggers(search.triggers(signals), settings.network_threshold)
        told = chance.threshold_at(1 / TOLD)
        out |= sensitive_distances(found, challenge.injections, chance, told, suffix=suffix)
        if not suffix:
            peaks = np.array([t.statistic for t in network_triggers(quiet, settings.network_threshold)])
            out |= calibration_of(peaks, quiet.livetime, chance) | {"slid_livetime": chance.livetime_s}
    return out
