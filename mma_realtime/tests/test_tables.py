"""Tables and figures say what was measured: twins, banks and all, and no conclusion that the data do not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mma_realtime.data.strain import EVENTS
from mma_realtime.evaluation.efficiency import SNRS
from shared.claims.ledger import load_ledger
from shared.claims.results import Results, Table

from mma_realtime import figures, tables

HERE = Path(__file__).resolve().parent.parent


def metrics_of(prefix: str, at: float) -> dict[str, float]:
    """E1, E4, E5 and E6 of a search; calibration at one in 200 s was not measured."""
    out = {f"tpr/fap{fap}/snr{snr:g}": at for fap in ("1e-2", "1e-3") for snr in SNRS}
    out |= {f"events/GW150914/{key}": 10 * at for key in ("statistic", "reversed_statistic", "reversed_in_noise")}
    out |= {"events/GW150914/loudest_slide": 4.0, "distance/1000": 1000 * at, "distance_glitches/1000": 500 * at}
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


def test_a_rate_that_could_not_be_measured_is_listed_as_such(made: dict[str, Table]) -> None:
    assert made["E6"].rows[0][1:] == ["1 in 2,000 s", "1.8", "2.0", "1.00"]
    assert made["E6"].rows[1][1:] == ["1 in 200 s", "not measured", "–", "–"]


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
