"""A search, trained and then measured: what `reproduce.py` and `train.py` run.

After training the networks become a search (calibrated threshold and time), which is saved and put through the
experiments E1 to E6 that `search` names. All of it is the test of the Lightning run, so a killed one resumes.
"""

from __future__ import annotations

import dataclasses
import logging
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
from mma_realtime.evaluation.calibrate import calibrated, size_of
from mma_realtime.evaluation.challenge import challenge_metrics
from mma_realtime.evaluation.distance import over_sets
from mma_realtime.evaluation.efficiency import efficiency
from mma_realtime.evaluation.events import event_metrics
from mma_realtime.evaluation.masses import mass_errors
from mma_realtime.evaluation.speed import real_time_factors
from mma_realtime.evaluation.stand_in import stand_in
from mma_realtime.models import TwinDeepFilter
from mma_realtime.models.deepfilter import DeepFilterShallow
from mma_realtime.module import Detector
from mma_realtime.search.model_file import DEFAULT, SearchModel

log = logging.getLogger(__name__)
FILE = "search_model.pt"


@dataclass
class Measurements:
    """What is measured of a trained search.

    Args:
        noise_windows, signals: of E1, alone and at each signal-to-noise ratio; 0 windows: no E1.
        events: real events of E4, looked for under the data root; those that are not there are left out.
        stand_in: whether an injected GW150914-like event is searched as if it were one.
        challenge: s of E5's and E6's sets; 0: none.
        challenge_seeds: of the sets; distances are averages over them.
        glitches: whether E5 is measured with glitches in one detector too.
        speed: s of strain of E3; 0: none.
        calibration: s of the set that calibrates threshold and time; 0: the networks are not made a search, and only
            windows are measured (E1, E2).
        publish: the run of this seed leaves its search where the commands look for it (`results/cpu`).

    Raises:
        UserError: a key that does not exist.
    """

    noise_windows: int = 50_000
    signals: int = 2000
    events: list[str] = field(default_factory=lambda: list(EVENTS))
    stand_in: bool = True
    challenge: int = 0
    challenge_seeds: list[int] = field(default_factory=lambda: [1])
    glitches: bool = False
    speed: int = 0
    calibration: int = 1200
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
        return found

    def dry(self) -> Measurements:
        """The least of everything."""
        return dataclasses.replace(
            self, noise_windows=min(self.noise_windows, 10_000), signals=50, events=[], stand_in=self.stand_in,
            challenge=min(self.challenge, 200), challenge_seeds=self.challenge_seeds[:1], speed=min(self.speed, 32),
            calibration=min(self.calibration, 200), publish=None,
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
        if len(self.predictors):
            out |= mass_errors(self.predict_masses, data, settings.signals)
        if not settings.calibration:
            return out
        model = self.as_search(settings.calibration)
        out |= {"calibrated/threshold": model.recipe.threshold, "calibrated/time_offset": model.recipe.time_offset}
        model.save(folder / FILE)
        if settings.publish is not None and data.run_seed == settings.publish:
            model.save(DEFAULT)
        for name, strain, gps in self.events(settings):
            out |= event_metrics(model, strain, gps, name)
        if settings.challenge:
            each = [
                challenge_metrics(model, settings.challenge, seed, settings.glitches)
                for seed in settings.challenge_seeds
            ]
            out |= {key: over_sets([one[key] for one in each if key in one]) for key in each[0]}
        if settings.speed:
            quiet = generate(max(settings.speed, 80), 90_001).background
            out |= real_time_factors(model, quiet)
        return out

    def as_search(self, duration: int) -> SearchModel:
        """The trained networks as a calibrated search."""
        data = self.data
        nets = [net.cpu() for net in self.nets]
        return calibrated(
            nets, self.network, size_of(nets[0], self.size), data.sample_rate, data.band, data.detectors,
            self.combine, data.fingerprint, duration,
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
