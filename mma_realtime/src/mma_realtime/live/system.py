"""What a system is: its folder, its settings, and what all of its stages open."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.runs.store import write_atomic

from mma_realtime.alerts.store import Store
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.survey import PacketReader, registry_in
from mma_realtime.data.strain import SAMPLE_RATE
from mma_realtime.errors import StatusError
from mma_realtime.gw.units import Seconds
from mma_realtime.live.feed import Feed, feed_of
from mma_realtime.search import report
from mma_realtime.search.model_file import SearchModel

SETTINGS, STORE, BUS, LOCK = "live.json", "store.sqlite", "bus.sqlite", "lock"
SAME = ("replay", "seed", "hop", "model_sha256")  # what a folder is of


@dataclass(frozen=True)
class Clock:
    """Which second of strain is due when.

    Args:
        began: s since 1970, when the system was started.
        position: s of strain that were consumed then.
        speed: s of strain in one second; infinite: as fast as it goes.
    """

    began: float
    position: Seconds
    speed: float

    def due(self, position: Seconds) -> float:
        """s since 1970 at which the strain up to `position` has come."""
        return self.began + (position - self.position) / self.speed


@dataclass(frozen=True)
class Settings:
    """Args:
    replay: paths of recorded strain; none: it is simulated.
    seed: of simulated strain.
    hop: s of strain that come at once.
    speed: s of strain in one second; 0: as fast as it goes.
    checkpoint: the search model; none: the one that the cpu tier left.
    model_sha256: its checksum.
    survey_schemas: folder of the schemas by which survey packets in a registry's wire format are read; none: they are
        set aside.
    """

    replay: tuple[str, ...] = ()
    seed: int = 0
    hop: Seconds = 1.0
    speed: float = 1.0
    checkpoint: str = ""
    model_sha256: str = ""
    survey_schemas: str = ""

    def __post_init__(self) -> None:
        if self.hop not in (1.0, 0.5, 0.25):
            raise StatusError(f"--hop {self.hop:g}: use 1, 0.5 or 0.25 s")
        if not (math.isfinite(self.speed) and self.speed >= 0):
            raise StatusError(f"--speed {self.speed:g}: give how many times real time, or 0 for as fast as it goes")
        if self.seed < 0:
            raise StatusError(f"--seed {self.seed}: give a whole number from 0")


@dataclass(frozen=True)
class System:
    """A folder with its settings."""

    folder: Path
    settings: Settings
    clock: Clock

    @classmethod
    def load(cls, folder: Path) -> System:
        """As a stage finds it.

        Raises:
            StatusError: there is none.
        """
        try:
            content = json.loads((folder / SETTINGS).read_text())
            settings = content["settings"] | {"replay": tuple(content["settings"]["replay"])}
            clock = content["clock"]
            return cls(folder, Settings(**settings), Clock(**clock | {"speed": clock["speed"] or math.inf}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StatusError(
                f"{folder / SETTINGS} holds no live system ({error}): give another --state, or put the file back"
            ) from None

    @property
    def feed(self) -> Feed:
        return feed_of([Path(path) for path in self.settings.replay], self.settings.seed)

    def model(self) -> SearchModel:
        return report.load_model(Path(self.settings.checkpoint) if self.settings.checkpoint else None)

    def packet_reader(self) -> PacketReader:
        """Raises:
        CrossMatchError: the folder of schemas has none, or one that means nothing.
        """
        folder = self.settings.survey_schemas
        return PacketReader(registry_in(Path(folder)) if folder else None)

    def store(self) -> Store:
        return Store(self.folder / STORE)

    def bus(self) -> SqliteLog:
        return SqliteLog(self.folder / BUS)


def prepare(folder: Path, settings: Settings) -> System:
    """A folder for these settings, made where there is none; its clock begins now.

    Raises:
        StatusError: it is another system's, or cannot be written.
        SearchError, StrainError, CrossMatchError: no model, no strain, no schemas.
    """
    system = System(folder, settings, Clock(0.0, 0.0, math.inf))
    system.packet_reader()
    feed, model = system.feed, system.model()
    now = asdict(settings) | {"model_sha256": model.checksum}
    now["replay"] = [str(Path(path).absolute()) for path in settings.replay]
    model.check_detectors(feed.detectors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StatusError(f"{folder} cannot be made ({error.strerror}): give a --state that can be written") from None
    if (folder / SETTINGS).exists():
        then = asdict(System.load(folder).settings)
        then["replay"] = list(then["replay"])
        differs = [f"{name} ({then[name]} then, {now[name]} now)" for name in SAME if then[name] != now[name]]
        if differs:
            raise StatusError(
                f"{folder} is the state of another system: other {', '.join(differs)}: give another --state, or the "
                "same settings"
            )
    with system.store() as store, system.bus():
        done = position(store, feed)
    clock = {"began": time.time(), "position": done, "speed": settings.speed}
    write_atomic(folder / SETTINGS, json.dumps({"settings": now, "clock": clock}, indent=1).encode())
    return System.load(folder)


def position(store: Store, feed: Feed) -> Seconds:
    """s of strain that the search has consumed."""
    total = 0.0
    for stretch in feed.stretches:
        state = store.state(stretch.name)
        total = stretch.before + state[0] / SAMPLE_RATE if state else total
    return total


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder; the kernel lets go of it when the process dies.

    Raises:
        StatusError: another system runs in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle: Any = (folder / LOCK).open("w")
    except OSError as error:
        raise StatusError(f"{folder} cannot be written ({error.strerror}): give another --state") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StatusError(f"another system runs in {folder}: end it first, or give another --state") from None
        yield
