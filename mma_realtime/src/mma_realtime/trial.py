"""A search, trained and then measured: what `reproduce.py` and `train.py` run.

After training the networks become a search (calibrated threshold and time), which is saved and put through the
experiments E1 to E6, and E10, that `search` names. All of it is the test of the Lightning run, so a killed one resumes.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared.data.root import data_root
from shared.errors import UserError

from mma_realtime.data.challenge import generate
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.data.strain import EVENTS, Strain, event_files, read_event
from mma_realtime.errors import SearchError
from mma_realtime.evaluation.alerting import recovery
from mma_realtime.evaluation.calibrate import NEAR, calibrated, size_of
from mma_realtime.evaluation.challenge import challenge_metrics
from mma_realtime.evaluation.distance import over_sets, set_seeds
from mma_realtime.evaluation.efficiency import efficiency, share_of_ideal
from mma_realtime.evaluation.events import event_metrics
from mma_realtime.evaluation.masses import WINDOWS, beside_grid, mass_errors
from mma_realtime.evaluation.speed import real_time_factors
from mma_realtime.evaluation.stand_in import stand_in
from mma_realtime.evaluation.yardstick import Settings
from mma_realtime.evaluation.yardstick import challenge_metrics as bank_metrics
from mma_realtime.models import TwinDeepFilter
from mma_realtime.models.deepfilter import DeepFilterShallow
from mma_realtime.module import Detector
from mma_realtime.publish import FILE
from mma_realtime.search.model_file import SearchModel

log = logging.getLogger(__name__)


@dataclass
class Measurements:
    """What is measured of a trained search.

    Args:
        noise_windows, signals: of E1, alone and at each signal-to-noise ratio; 0 windows: no E1.
        grid: templates of the grid that E2 of one detector is held beside; 0: none.
        ideal_trials: noise windows of the known waveform's search, beside which E1 of one detector is held; 0: none.
        events: real events of E4, looked for under the data root; those that are not there are left out.
        stand_in: whether an injected GW150914-like event is searched as if it were one.
        challenge: s of E5's and E6's sets; 0: none.
        challenge_sets: how many; of each training seed its own (`set_seeds`), distances are averages over them.
        bank: arguments of a template bank that is measured on the first of these sets, without glitches.
        glitches: whether E5 is measured with glitches in one detector too.
        speed: s of strain of E3; 0: none.
        alert: s of strain that the search replays into alerts, as a process that is killed once (E10); 0: none.
        calibration: s of the set that calibrates threshold and time; 0: the networks are not made a search, and only
            windows are measured (E1, E2).
        near: s around an injection of that set in which its trigger is looked for.
        publish: the run of this seed is the one whose search the commands take by themselves (`publish.publish`).

    Raises:
        UserError: a key that does not exist.
    """

    noise_windows: int = 50_000
    signals: int = 2000
    grid: int = 0
    ideal_trials: int = 0
    events: list[str] = field(default_factory=lambda: list(EVENTS))
    stand_in: bool = True
    challenge: int = 0
    challenge_sets: int = 2
    bank: dict[str, Any] | None = None
    glitches: bool = False
    speed: int = 0
    alert: int = 0
    calibration: int = 1200
    near: float = NEAR
    publish: int | None = None

    @classmethod
    def read(cls, section: dict[str, Any]) -> Measurements:
        known = {f.name for f in dataclasses.fields(cls)}
        for key in section:
            if key not in known:
                raise UserError(f"configuration: unknown key 'search.{key}'; it has: {', '.join(sorted(known))}")
        found = cls(**section)
        for name in found.events:
            if name not in EVENTS:
                raise UserError(f"search.events: {name} is not known; there are {', '.join(EVENTS)}")
        Settings.read(found.bank or {})
        return found

    def dry(self) -> Measurements:
        """The least of everything."""
        return dataclasses.replace(
            self, noise_windows=min(self.noise_windows, 10_000), signals=50, events=[], stand_in=self.stand_in,
            grid=min(self.grid, 100), ideal_trials=min(self.ideal_trials, 10_000),
            challenge=min(self.challenge, 200), challenge_sets=1,
            bank=None if self.bank is None else dataclasses.asdict(Settings.read(self.bank).dry()),
            speed=min(self.speed, 32), alert=min(self.alert, 70),
            calibration=min(self.calibration, 200), near=math.inf, publish=None,  # untrained, it hears no injection
        )  # fmt: skip


class Trial(Detector):
    """A `Detector` that is measured as a search when it is tested.

    Args:
        search: see `Measurements`.
        start: a search model of one detector at a time, whose networks twins begin as (see `TwinDeepFilter.init_from`).
        others: of `Detector`.
    """

    def __init__(self, search: dict[str, Any] | None = None, start: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if start and self.network != "twin":
            raise SearchError(f"start: {self.network} has no other network to begin as; `twin` has")
        self.search, self.start = Measurements.read(dict(search or {})), start

    def build(self, data: SimulatedBBH) -> None:
        super().build(data)
        if self.start:
            singles = SearchModel.load(self.start).members
            for number, twin in enumerate(self.nets):
                single = singles[number % len(singles)]
                if not isinstance(twin, TwinDeepFilter) or not isinstance(single, DeepFilterShallow):
                    raise SearchError(f"{self.start}: twins begin as deepfilter_shallow networks, these are others")
                twin.init_from(single)

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        if not self.trainer.is_global_zero:
            return
        dry = bool(getattr(self.trainer, "fast_dev_run", False))
        settings = self.search.dry() if dry else self.search
        found = self.measure(settings, Path(self.trainer.default_root_dir))
        self.measured |= found
        self.log_dict({k: v for k, v in found.items() if isinstance(v, float) and np.isfinite(v)}, rank_zero_only=True)

    @torch.no_grad()
    def measure(self, settings: Measurements, folder: Path) -> dict[str, Any]:
        """Metrics by name, curves as lists."""
        data, out = self.data, dict[str, Any]()
        if settings.noise_windows:
            out |= efficiency(self.statistic, data, settings.noise_windows, settings.signals)
        if settings.noise_windows and settings.ideal_trials:
            out |= share_of_ideal(out, data, settings.ideal_trials, settings.signals)
        if len(self.predictors):
            out |= mass_errors(self.predict_masses, data, settings.signals)
        if len(self.predictors) and settings.grid:
            out |= beside_grid(self.predict_masses, data, min(settings.signals, WINDOWS), settings.grid)
        if not settings.calibration:
            return out
        model = self.as_search(settings.calibration, settings.near)
        out |= {"calibrated/threshold": model.recipe.threshold, "calibrated/time_offset": model.recipe.time_offset}
        model.save(folder / FILE)
        for name, strain, gps in self.events(settings):
            out |= event_metrics(model, strain, gps, name)
        if settings.challenge:
            seeds = set_seeds(data.run_seed, settings.challenge_sets)
            each = [challenge_metrics(model, settings.challenge, seed, settings.glitches) for seed in seeds]
            out |= over_sets(each)
            if settings.bank is not None:
                out |= beside_bank(each[0], settings, seeds[0])
        if settings.speed:
            quiet = generate(max(settings.speed, 80), 90_001).background
            out |= real_time_factors(model, quiet)
        if settings.alert:
            out |= recovery({"duration": settings.alert, "kills": 1}, data.run_seed, folder / FILE)
        return out

    def as_search(self, duration: int, near: float = NEAR) -> SearchModel:
        """The trained networks as a calibrated search."""
        data = self.data
        nets = [net.cpu() for net in self.nets]
        return calibrated(
            nets, self.network, size_of(nets[0], self.size), data.sample_rate, data.band, data.detectors,
            self.combine, data.fingerprint, duration, near,
        )  # fmt: skip

    def events(self, settings: Measurements) -> list[tuple[str, Strain, float]]:
        """Names, strain and times of the events that are there."""
        root = Path(self.data.root) if self.data.root else data_root()
        found = []
        for name in settings.events:
            files = event_files(name, root)
            if files:
                strain, gps = read_event(*files)
                found.append((name, strain, gps))
            else:
                log.info("no strain of %s under %s: not run; `make data` fetches it", name, root)
        if settings.stand_in:
            found.append(("stand_in", *stand_in()))
        return found


def beside_bank(found: Mapping[str, Any], settings: Measurements, seed: int) -> dict[str, Any]:
    """A template bank on a set that a search was measured on.

    Args:
        found: of the search on the set of this seed.

    Returns:
        the bank's metrics and curves as `bank_...`, and `share/distance/1000` ...: the search's distance over the
        bank's, where the bank sees anything.
    """
    own = dataclasses.replace(Settings.read(settings.bank or {}), challenge=settings.challenge, glitches=False)
    bank = bank_metrics(own.bank(0), own, seed)
    out = {f"curve/bank_{key[6:]}" if key.startswith("curve/") else f"bank_{key}": v for key, v in bank.items()}
    return out | {
        f"share/{key}": found[key] / value
        for key, value in bank.items()
        if key.startswith("distance") and key in found and value
    }
