"""From strain to notices: one hop, one transaction; killed anywhere, the same bits; maps that delay nothing."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mma_realtime.alerts.made_up import CREATED, GPS, PLACE, superevent
from mma_realtime.alerts.notice import Notice
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.pipeline import (
    UNIFIED,
    VOEVENTS,
    AlertPipeline,
    MapWorker,
    StrainSource,
    retract,
)
from mma_realtime.alerts.ranker import SlidRanker, pack, unpack
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import Localisation, Superevent
from mma_realtime.alerts.voevent import read
from mma_realtime.bus.base import NOTICES
from mma_realtime.data.strain import Strain
from mma_realtime.errors import AlertError, SearchError, SkyMapError
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.report import Slider
from mma_realtime.search.scores import conditioner_for, informed
from mma_realtime.search.series import Scores, joined

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec
assert spec.loader
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)

MERGERS = (12.0, 13.3, 25.6, 35.2)
MODEL = inputs.template_model(threshold=2.0, time_offset=0.0)
STRAIN: Strain = inputs.strain_with(*MERGERS)


def pipeline(store: Store, strain: Strain = STRAIN, **settings: Any) -> AlertPipeline:
    conditioner = informed(conditioner_for(MODEL, strain.sample_rate), STRAIN, "file")
    settings = {"refresh": 7, "memory": 20, "now": lambda: CREATED} | settings
    return AlertPipeline(store, MODEL, conditioner, StrainSource(strain), Origin.SIMULATED, **settings)


def everything(store: Store) -> list[tuple[Any, ...]]:
    """All rows of all tables but the times at which they were written."""
    database = sqlite3.connect(store.path)
    assert database.execute("SELECT max(offset) FROM state").fetchone()[0] == STRAIN.values.shape[1]
    return [
        *database.execute("SELECT topic, key, value, headers FROM outbox ORDER BY number"),
        *database.execute("SELECT superevent, version, content, fits FROM version ORDER BY rowid"),
        *database.execute("SELECT superevent, gps, content FROM trigger ORDER BY id"),
        *database.execute("SELECT stream, number, content FROM scores ORDER BY number"),
        *database.execute("SELECT stream, offset, snapshot FROM state"),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store after a run that nothing stopped."""
    store = Store(tmp_path_factory.mktemp("whole") / "store.db")
    list(pipeline(store).run())
    return store


def test_every_injection_is_told_once_in_every_flavour(whole: Store) -> None:
    names = whole.superevents()
    found = [whole.versions(name)[0].opened_at - STRAIN.gps_start for name in names]
    for merger in MERGERS:
        assert sum(abs(time - merger) < 0.5 for time in found) == 1, (merger, found)
    rows = whole.waiting(1000)
    versions = [event for name in names for event in whole.versions(name)]
    assert len(rows) == 3 * len(versions)
    for topic in (NOTICES, UNIFIED, VOEVENTS):
        keys = [(r.headers["superevent_id"], r.headers["version"]) for r in rows if r.topic == topic]
        assert len(keys) == len(set(keys)) == len(versions)
    for row in rows:
        assert row.headers["role"] == "test"
        if row.topic == NOTICES:
            notice = Notice.from_json(row.value)
            assert notice.urls["model"].endswith(MODEL.checksum)
        elif row.topic == VOEVENTS:
            assert read(row.value).role == "test"
        else:
            assert json.loads(row.value)["alert_tense"] == "injection"


@pytest.mark.parametrize("every", [1, 5, 13])
def test_a_search_that_is_stopped_after_any_hop_goes_on_with_the_same_bits(
    whole: Store, tmp_path: Path, every: int
) -> None:
    with Store(tmp_path / "store.db") as store:
        for _ in range(STRAIN.duration // every + 1):
            for hop, _told in enumerate(pipeline(store).run(), 1):
                if hop == every:
                    break  # what is in memory is lost
        assert everything(store) == everything(whole)


def test_a_search_that_has_ended_says_nothing_again(whole: Store) -> None:
    before = everything(whole)
    assert [told for told in pipeline(whole).run() if told] == []
    assert everything(whole) == before


def test_a_trigger_is_told_within_the_hop_that_closes_its_cluster(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        going = pipeline(store)
        latency = {}
        for block in going.source.blocks(0):
            for event in going.hop(block):
                latency[event.id] = block.gps + 1.0 - event.preferred.gps
                assert store.waiting(1000)[-1].key == event.id
    assert max(latency.values()) <= going.engine.latency + 1.0 + 0.5


def test_a_locked_store_is_tried_again_and_nothing_is_lost(whole: Store, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    with Store(tmp_path / "store.db", timeout=0.01) as store:
        rests: list[float] = []

        def wait(seconds: float) -> None:
            rests.append(seconds)
            if len(rests) == 3:
                other.execute("ROLLBACK")

        going = pipeline(store, wait=wait)
        for hop, _ in enumerate(going.run()):
            if hop == 11:
                other.execute("BEGIN IMMEDIATE")
        assert rests == [0.05, 0.1, 0.2]
        assert everything(store) == everything(whole)


def test_other_strain_is_not_taken_for_the_same(whole: Store) -> None:
    with pytest.raises(AlertError, match="this is other strain"):
        pipeline(whole, replace(STRAIN, gps_start=STRAIN.gps_start + 1))
    other = inputs.template_model(threshold=2.5)
    conditioner = informed(conditioner_for(other, STRAIN.sample_rate), STRAIN, "file")
    with pytest.raises(SearchError, match="another model"):
        AlertPipeline(whole, other, conditioner, StrainSource(STRAIN), Origin.SIMULATED)


def test_maps_follow_as_further_versions_and_only_once(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        list(pipeline(store).run())
        names = store.superevents()
        asked: list[str] = []

        def localiser(event: Superevent) -> Localisation:
            asked.append(event.id)
            if event.id == names[1]:
                raise SkyMapError("no signal-to-noise series")
            return PLACE

        worker = MapWorker(store, localiser, Origin.SIMULATED, lambda: CREATED)
        assert [event.id for event in worker.work()] == [name for name in names if name != names[1]]
        assert worker.work() == []
        assert asked == names
        latest = store.superevent(names[0])
        assert latest.state == "INITIAL"
        rows = [row for row in store.waiting(1000) if row.key == names[0]]
        assert Notice.from_json(rows[-3].value).event.skymap == PLACE.fits  # type: ignore[union-attr]
        before = store.versions(names[0])[-2]
        assert read(rows[-1].value).citations == (
            (f"ivo://mma_realtime/gw#{names[0]}-{before.version}-PRELIMINARY", "supersedes"),
        )
        retract(store, names[0], Origin.SIMULATED, CREATED)
        assert Notice.from_json(store.waiting(1000)[-3].value).event is None
        with pytest.raises(AlertError, match="does not follow RETRACTION"):
            retract(store, names[0], Origin.SIMULATED, CREATED)


def test_told_to_stop_the_maps_that_are_not_begun_are_left_to_the_next_start(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        for number in range(3):
            event = superevent(number, gps=GPS + 100 * number)
            with store.transaction() as write:
                write.open(event, number)
                write.version(event)
        asked: list[str] = []

        def localiser(event: Superevent) -> Localisation:
            asked.append(event.id)
            return PLACE

        worker = MapWorker(store, localiser, Origin.SIMULATED, lambda: CREATED, stopped=lambda: bool(asked))
        assert len(worker.work()) == len(asked) == 1
        assert len(store.unlocated()) == 2


def test_a_map_of_a_trigger_that_a_better_one_has_replaced_is_not_told(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        list(pipeline(store).run())
        name = store.superevents()[0]

        def slow(event: Superevent) -> Localisation:
            if event.id == name and event.version == 1:
                with store.transaction() as write:
                    better = replace(event.preferred, far=event.preferred.far / 10)
                    write.version(write.latest(name).joined(better))
            return PLACE

        worker = MapWorker(store, slow, Origin.SIMULATED, lambda: CREATED)
        assert name not in [event.id for event in worker.work()]
        assert [(event.id, event.version) for event in worker.work()] == [(name, 3)]


def test_a_map_of_what_is_taken_back_meanwhile_is_not_told(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        list(pipeline(store).run())
        name = store.superevents()[0]

        def slow(event: Superevent) -> Localisation:
            if event.id == name:
                retract(store, name, Origin.SIMULATED, CREATED)
            return PLACE

        worker = MapWorker(store, slow, Origin.SIMULATED, lambda: CREATED)
        assert name not in [event.id for event in worker.work()]
        assert store.superevent(name).state == "RETRACTION"


def noise(seed: int, start: float, windows: int = 16) -> Scores:
    values = np.random.default_rng(seed).normal(size=(2, windows)).astype(np.float32)
    return Scores(("H1", "L1"), start, 1 / 16, values, np.ones((2, windows), bool))


def take(ranker: SlidRanker, scores: Scores) -> None:
    ranker.take(scores)
    ranker.slide_when_due()


def test_a_trigger_is_ranked_before_a_background_is_made_of_its_own_scores() -> None:
    ranker = SlidRanker(Slider(0.0), refresh=16, memory=24)
    for n in range(15):
        take(ranker, noise(n, 1000.0 + n))
    ranker.take(noise(15, 1015.0))
    assert ranker.background is None
    ranker.slide_when_due()
    assert ranker.background is not None


def test_the_ranker_slides_the_scores_it_remembers_and_bounds_before() -> None:
    parts = [noise(n, 1000.0 + n) for n in range(40)]
    ranker = SlidRanker(Slider(0.0), refresh=16, memory=24)
    take(ranker, parts[0])
    quiet = ranker.far(50.0)
    assert quiet.upper_limit
    assert quiet.value_hz == 1.0  # nothing as loud in 1 s
    for part in parts[1:]:
        take(ranker, part)
    assert ranker.background is not None
    # The last background was made after part 32, of parts 9 to 32.
    expected = Slider(0.0).background([joined(parts[8:32])])
    assert (ranker.background.statistics == expected.statistics).all()
    assert ranker.far(3.0) == expected.far(3.0)
    assert ranker.far(50.0).upper_limit


def test_without_a_background_a_rate_is_bounded_by_all_that_was_as_loud() -> None:
    scores = noise(0, 1000.0, 64)
    scores.values[:, [10, 40]] = 30.0
    ranker = SlidRanker(Slider(0.0), refresh=100)
    ranker.take(scores)
    assert ranker.far(60.0).value_hz == 2 / 4.0
    assert ranker.far(61.0).value_hz == 1 / 4.0
    assert ranker.far(60.0).upper_limit


@pytest.mark.parametrize("count", [1, 15, 16, 17, 39, 40, 41, 70])
def test_a_ranker_restored_from_what_is_kept_is_the_same(count: int) -> None:
    parts = [noise(n, 1000.0 + n) for n in range(count)]
    ranker, again = (SlidRanker(Slider(0.0), refresh=16, memory=24) for _ in range(2))
    for part in parts:
        take(ranker, part)
    kept = [(n, unpack(pack(part))) for n, part in enumerate(parts, 1)][-ranker.keep :]
    again.restore(kept)
    assert again.number == ranker.number == count
    assert again.far(2.5) == ranker.far(2.5)
    for extra in range(count, count + 20):
        for each in (ranker, again):
            take(each, noise(extra, 1000.0 + extra))
        assert again.far(2.5) == ranker.far(2.5)


def test_scores_that_are_damaged_are_told_of() -> None:
    for content in (b"", b"PK", pack(noise(0, 0.0))[:-30]):
        with pytest.raises(AlertError, match="scores are damaged"):
            unpack(content)


def test_a_better_trigger_of_an_event_that_is_taken_back_is_kept_and_not_told(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        going = pipeline(store)
        for _ in going.run():
            if store.superevents():
                break
        name = store.superevents()[0]
        retract(store, name, Origin.SIMULATED, CREATED)
        told, best = len(store.waiting(1000)), store.superevent(name).preferred
        louder = Trigger(best.gps + 0.1, best.statistic + 50, (1.0, 1.0), 0.5, 8, ("H1", "L1"), 1, 2)
        assert going._commit([louder], None) == []
        assert len(store.waiting(1000)) == told
        assert store.triggers(name)[-1]["statistic"] == louder.statistic
        assert store.superevent(name).state == "RETRACTION"


@pytest.mark.parametrize("masses", [(float("nan"), 1.0), (10.0, 20.0), (0.0, 0.0)])
def test_masses_that_are_none_lose_no_event(tmp_path: Path, masses: tuple[float, float]) -> None:
    with Store(tmp_path / "store.db") as store:
        list(pipeline(store, masses=lambda trigger: masses).run())
        assert len(store.superevents()) >= len(MERGERS)
        assert store.superevent(store.superevents()[0]).preferred.masses is None


def test_masses_decide_the_classification(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        list(pipeline(store, masses=lambda trigger: (1.6, 1.4)).run())
        event = Notice.from_json(store.waiting()[0].value).event
        assert event is not None
        assert event.classification.BNS > 0
        assert event.properties is not None
        assert event.properties.HasNS == 1


def test_a_map_waits_for_a_store_that_is_locked(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    with Store(tmp_path / "store.db", timeout=0.01) as store:
        list(pipeline(store).run())
        asked: list[str] = []

        def localiser(event: Superevent) -> Localisation:
            asked.append(event.id)
            if len(asked) == 1:
                other.execute("BEGIN IMMEDIATE")
            return PLACE

        worker = MapWorker(
            store, localiser, Origin.SIMULATED, lambda: CREATED, wait=lambda _: other.execute("ROLLBACK")
        )
        assert len(worker.work()) == len(asked) == len(store.superevents())
