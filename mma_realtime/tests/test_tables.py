"""Tables and figures say what was measured: twins, banks and all, and no conclusion that the data do not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mma_realtime.data.strain import EVENTS
from mma_realtime.evaluation.efficiency import SNRS
from mma_realtime.evaluation.joint import FARS
from mma_realtime.evaluation.latency import BUS, EVENT
from mma_realtime.live.timed import COINCIDENCE, FAR, INFERENCE, NOTICE, WHITENING
from scipy.stats import poisson
from shared.claims.ledger import load_ledger
from shared.claims.results import Results, Table

from mma_realtime import alerting_figures, figures, tables

HERE = Path(__file__).resolve().parent.parent


def metrics_of(prefix: str, at: float) -> dict[str, float]:
    """E1, E4, E5 and E6 of a search; calibration at one in 200 s was not measured."""
    out = {f"tpr/fap{fap}/snr{snr:g}": at for fap in ("1e-2", "1e-3") for snr in SNRS}
    out |= {f"events/GW150914/{key}": 10 * at for key in ("statistic", "reversed_statistic", "reversed_in_noise")}
    out |= {"events/GW150914/loudest_slide": 4.0, "distance/1000": 1000 * at, "distance_glitches/1000": 500 * at}
    out |= {"timing/within": 0.9, "timing/within_calibrated": 0.98, "timing/near_calibrated": 40 * at}
    out |= {"calibration/measured": 1.0, "calibration/measured_2000": 1.0, "calibration/measured_200": 0.0}
    out |= {"calibration/count_2000": 2.0, "calibration/expected_2000": 1.8, "calibration/inside_2000": 1.0}
    return {f"{prefix}{key}": value for key, value in out.items()}


def results(metrics: dict[str, float], curves: dict[str, list[float]] | None = None) -> Results:
    run = {
        "key": "a", "seed": 1, "wall_seconds": 1, "device": "cpu", "date": "2026-01-01", "commit": "c", "versions": {},
        "metrics": metrics, "curves": curves or {},
    }  # fmt: skip
    data = {"name": "d", "kind": "recipe", "fingerprint": "f", "detail": ""}
    return Results.model_validate({
        "paper": "mma_realtime", "tier": "cpu", "created": "2026-01-01", "commit": "c", "dirty": False, "machine": "m",
        "versions": {}, "wall_seconds": 1,
        "experiments": {"net": {"title": "net", "config": {}, "data": data, "runs": [run]}},
    })  # fmt: skip


@pytest.fixture(scope="module")
def made() -> dict[str, Table]:
    metrics = metrics_of("", 1.0) | metrics_of("twin_", 2.0) | {"windows/noise": 50_000, "windows/signals": 2000}
    bank = {key: value for key, value in metrics_of("bank_", 3.0).items() if "distance/" in key or "calibr" in key}
    return {table.title[:2]: table for table in tables.tables(results(metrics | bank))}


def test_twins_and_banks_stand_beside_the_search(made: dict[str, Table]) -> None:
    twins, bank = "twins that begin as: net", "matched-filter bank, on the first set of: net"
    assert [row[0] for row in made["E1"].rows] == 2 * ["net", f"{twins} (two detectors)"]
    assert [row[2] for row in made["E1"].rows] == 2 * ["1.00", "2.00"]
    assert [row[1:4] for row in made["E4"].rows] == [["net", "10.0", "4.0"], [twins, "20.0", "4.0"]]
    ours = [row[:3] for row in made["E5"].rows if "published" not in row[0]]
    gauss, glitches = "Gaussian", "with glitches"
    assert ours == [
        ["net", gauss, "1,000"], [twins, gauss, "2,000"], [bank, gauss, "3,000"], ["net", glitches, "500"],
        [twins, glitches, "1,000"],
    ]  # fmt: skip
    assert [row[0] for row in made["E6"].rows] == [name for name in ("net", twins, bank) for _ in range(3)]


def test_times_are_told_of_all_triggers_and_of_those_above_the_searchs_own_threshold(made: dict[str, Table]) -> None:
    assert made["E5"].columns[-3:] == [
        "triggers within 0.3 s",
        "of those above its own threshold",
        "how many those are",
    ]
    assert made["E5"].rows[0][-3:] == ["0.90", "0.98", "40"]
    assert made["E5"].rows[3][-3:] == ["–", "–", "–"]  # made up without times, with glitches
    assert {len(row) for row in made["E5"].rows} == {len(made["E5"].columns)}


def test_a_rate_that_could_not_be_measured_is_listed_as_such(made: dict[str, Table]) -> None:
    assert made["E6"].rows[0][1:5] == ["1 in 2,000 s", "1.8", "2.0", "1.00"]
    assert made["E6"].rows[1][1:] == ["1 in 200 s", "not measured", "–", "–", "–", "–", "–"]


def test_false_alarms_are_pooled_over_sets_and_seeds() -> None:
    """What each set by itself cannot tell, all together may: 51 and 48 of 60 in each of two sets."""
    two = results(metrics_of("", 1.0))
    run = two.experiments["net"].runs[0]
    counts = {"calibration/measured_60": 1.0, "calibration/expected_60": 59.97, "calibration/inside_60": 1.0}
    two.experiments["net"].runs = [
        run.model_copy(update={"seed": seed, "metrics": run.metrics | counts | {"calibration/count_60": count}})
        for seed, count in ((10, 51.0), (11, 48.0))
    ]
    (table,) = [table for table in tables.tables(two) if table.title.startswith("E6")]
    assert table.columns[-3:] == ["all sets: predicted", "all sets: counted", "chance of so few, or so many"]
    row = next(row for row in table.rows if row[1] == "1 in 60 s")
    assert row[-3:] == ["239.9", "198", f"{poisson.cdf(198, 239.88):.2g}"]
    assert float(row[-1]) < 0.005
    assert next(row for row in table.rows if row[1] == "1 in 2,000 s")[-3:] == ["7.2", "8", "0.43"]
    two.experiments["net"].config = {"model": {"search": {"challenge_sets": 3}}}
    (table,) = [table for table in tables.tables(two) if table.title.startswith("E6")]
    assert next(row for row in table.rows if row[1] == "1 in 60 s")[-3:-1] == ["359.8", "297"]


def test_counts_of_windows_are_those_of_the_run(made: dict[str, Table]) -> None:
    assert "from 50,000 windows of noise alone, 2,000 signals at each SNR" in made["E1"].note
    assert "while another run" not in "".join(table.note for table in made.values())


def test_published_distances_are_those_of_the_ledger(made: dict[str, Table]) -> None:
    """As columns of E5, both sets; in the ledger they are never judged."""
    shown = [row for row in made["E5"].rows if "published" in row[0]]
    assert made["E5"].columns[2:6] == ["1,000", "100", "10", "1"]
    numbers = [int(cell.replace(",", "")) for row in shown for cell in row[3:6]]
    claims = [claim for claim in load_ledger(HERE / "claims.yaml").claims if claim.id.startswith("table12a")]
    stated = [value.value for claim in claims for value in claim.paper.values() if value is not None]
    assert sorted(stated) == sorted(numbers)
    assert len(numbers) == 21
    for claim in claims:
        for test in claim.tiers.values():
            assert test.not_run is not None
            assert "not here" in test.not_run
            assert ("O3a" in test.not_run) == (".set4." in claim.id)


@pytest.mark.parametrize(("score", "says"), [(9.0, "is above the loudest"), (3.0, "is not above the loudest")])
def test_a_caption_concludes_from_what_is_drawn(score: float, says: str, tmp_path: Path) -> None:
    head = f"curve/events/{next(iter(EVENTS))}/"
    rng = np.random.default_rng(0)
    curves: dict[str, Any] = {f"{head}whitened_{d}": rng.normal(size=1229).tolist() for d in ("H1", "L1")}
    curves |= {f"{head}time": [-1.0, 0.0, 1.0], f"{head}score": [0.0, score, 1.0]}
    found = results({"events/GW150914/loudest_slide": 4.0, "events/GW150914/statistic": score}, curves)
    figures.use_house_style()
    figure = figures.event(found, tmp_path, "GW150914", "GW150914")
    assert figure is not None
    assert says in figure.caption
    assert f"{score:.1f}, {says} of all time slides without the event's windows, 4.0" in figure.caption


def test_a_bank_on_a_searchs_own_set_is_drawn_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = {f"curve/{part}{what}": [1.0, 2.0] for part in ("", "bank_") for what in ("far", "distance")}
    drawn: list[tuple[str, str]] = []
    monkeypatch.setattr(figures, "band", lambda axes, x, runs, label, colour, style="-": drawn.append((label, colour)))
    assert figures.distance(results({}, curves), tmp_path) is not None
    assert [label for label, _ in drawn] == ["net", "matched-filter bank"]
    assert drawn[0][1] != drawn[1][1]


LEVELS = [0.1, 0.3, 0.45, 0.7, 0.95]
RECOVERED = {"kills": 2.0, "injections": 3.0, "alerted": 2.0, "alerted_once": 2.0, "notices": 3.0, "missing": 0.0,
             "extra": 0.0, "duplicates": 1.0, "recovery_s": 4.0, "lost_or_doubled": 0.0}  # fmt: skip


def measured() -> Results:
    """E7 to E10 of made-up runs."""
    maps = {f"skymaps/{key}": 1.0 for key in ("contained50", "contained90", "area50", "area90", "searched_area")}
    maps |= {
        "skymaps/seconds": 2.0,
        "skymaps/seconds_max": 3.0,
        "skymaps/cpu_seconds": 1.5,
        "skymaps/cpu_seconds_max": 2.5,
    }
    pair = {f"joint/{kind}_far/{name}": far / by for name, far in FARS.items()
            for kind, by in (("temporal", 100), ("spatiotemporal", 2000))}  # fmt: skip
    pair |= {"joint/gain": 20.0, "joint/overlap": 20.0, "joint/time_gain": 100.0, "joint/area90": 30.0,
             "joint/combined_area90": 25.0}  # fmt: skip
    delays = {"latency_p50": 1.5, "latency_p99": 3.2, "events": 3.0, "memory_mb_per_hour": 2.5, "memory_mb_most": 505.0,
              "survey_alerts": 1234.0, "real_time_factor": 30.0, "alerts_per_second": 6000.0}  # fmt: skip
    delays |= {f"latency/{step}_p{q}": 0.5 for step in tables.BUDGET for q in (50, 99)}
    curves: dict[str, list[float]] = {
        "curve/skymaps/levels": LEVELS, "curve/skymaps/areas90": [9.0, 30.0, 12.0, 700.0, 20.0],
        "curve/latency/total": [1.4, 1.5, 3.2], "curve/latency/memory_s": [0.0, 60.0, 120.0],
        "curve/latency/memory_mb": [500.0, 505.0, 505.0], "curve/recovery/killed_s": [20.0, 70.0],
        "curve/recovery/injected_s": [30.0, 55.0, 80.0], "curve/recovery/alerted_s": [30.0, 80.0],
        "curve/recovery/starts": [4.0, 4.5],
    }  # fmt: skip
    return results(maps | pair | delays | {f"recovery/{k}": v for k, v in RECOVERED.items()}, curves)


def test_the_alerting_figures_say_what_they_draw(tmp_path: Path) -> None:
    figures.use_house_style()
    made = {figure.file: figure.caption for figure in alerting_figures.draw(measured(), tmp_path)}
    assert set(made) == {"skymaps.svg", "joint.svg", "latency.svg", "recovery.svg"}
    assert all((tmp_path / name).stat().st_size > 5000 for name in made)
    assert "of 5 injections 3 lie within the 50 % region and 4 within the 90 % one" in made["skymaps.svg"]
    assert "area of at most 20 deg², the largest has 700" in made["skymaps.svg"]
    assert "The places lower the rate 20 times, the time 100 times" in made["joint.svg"]
    assert "the slowest after 3.20 s; 1 took more than 3 s" in made["latency.svg"]
    assert "memory changed by 2.5 MB an hour" in made["latency.svg"]
    assert "Of 2 injections that the undisturbed replay alerts, the killed one alerts 2 once" in made["recovery.svg"]
    assert alerting_figures.between([1.0, 12345.0]) == "1 to 12,345"


def test_the_alerting_tables_hold_the_measured_steps() -> None:
    made = {table.title[:3]: table for table in tables.tables(measured())}
    assert {"E7.", "E8.", "E9.", "E10"} <= set(made)
    assert made["E7."].columns[-4:] == ["seconds", "the slowest", "CPU seconds", "the most"]
    assert made["E7."].rows[0][-4:] == ["2.0", "3.0", "1.5", "2.5"]
    assert [row[0] for row in made["E8."].rows] == [f"one false alarm a {name}" for name in FARS]
    assert made["E8."].rows[0][1:] == ["1.16e-05", "1.16e-07", "5.79e-09"]
    assert made["E9."].rows[-1] == ["merger to notice on the bus", "3", "1.50", "3.20"]
    assert "1,234 survey alerts" in made["E9."].note
    assert "Memory grew by 2.5 MB an hour and was at most 505 MB" in made["E9."].note
    steps = {EVENT, BUS, WHITENING, INFERENCE, COINCIDENCE, FAR, NOTICE}
    assert set(tables.BUDGET) == steps
