"""E4, and what stands in for it on a bare checkout: events in a network by hand that is known to find them."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mma_realtime.data.strain import Strain
from mma_realtime.errors import SearchError
from mma_realtime.evaluation import events
from mma_realtime.evaluation.events import event_metrics, look, whitened_around
from mma_realtime.evaluation.stand_in import CURVE, DISTANCE, MASSES, stand_in
from mma_realtime.gw.inject import add_signal
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.snr import matched_filter
from mma_realtime.gw.waveforms import phenomd
from mma_realtime.search.coincidence import combine

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
START, EVENT = inputs.START, inputs.START + 16.4
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> Any:
    return inputs.template_model(time_offset=-0.125)


def measured(model: Any, strain: Strain, gps: float = EVENT, **more: Any) -> dict[str, Any]:
    found = event_metrics(model, strain, gps, "x", **more)
    return {key.replace("events/x/", ""): value for key, value in found.items()}


@pytest.fixture(scope="module")
def loud(model: Any) -> dict[str, Any]:
    return measured(model, inputs.strain_with(16.4, seconds=32, amplitude=4.5))


def test_an_event_is_above_every_slide_at_its_time_and_not_backwards(loud: dict[str, Any]) -> None:
    assert loud["above_all"] == 1.0
    # The pulse has energy (2 x 4.5)^2; z of white noise in 0.74 of the band has the variance 1 / 0.74.
    assert loud["statistic"] == pytest.approx(2 * (9 / 0.742**0.5 - 5), abs=3)
    assert loud["statistic"] > max(loud["loudest_slide"], loud["loudest_slide_inclusive"])
    assert loud["loudest_slide"] <= loud["loudest_slide_inclusive"]
    assert loud["time_error"] < 0.05
    assert loud["livetime"] >= 2000
    assert loud["above_2000_s"] == 1.0
    assert loud["independent_livetime"] < loud["livetime"] / 4
    assert loud["far_per_hour"] == pytest.approx(3600 / loud["livetime"])  # louder than everything: the bound
    assert loud["reversed_in_noise"] == 1.0
    assert loud["reversed_statistic"] < loud["statistic"] - 2
    assert loud["reversed_lower"] == 1.0


def test_the_published_time_is_no_help_to_the_search(model: Any, loud: dict[str, Any]) -> None:
    elsewhere = measured(model, inputs.strain_with(16.4, seconds=32, amplitude=4.5), EVENT - 7, reverse=False)
    assert elsewhere["statistic"] == loud["statistic"]
    assert elsewhere["time_error"] == pytest.approx(7, abs=0.05)
    assert not any("reversed" in key for key in elsewhere)


def test_an_event_above_too_few_slides_is_not_above_2000_s(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert events.ENOUGH == 2000
    monkeypatch.setattr(events, "ENOUGH", 3000.0)
    found = measured(model, inputs.strain_with(16.4, seconds=24, amplitude=4.5), reverse=False)
    assert 2000 < found["livetime"] < 3000
    assert (found["above_all"], found["above_2000_s"]) == (1.0, 0.0)


@pytest.mark.parametrize("seed", [1, 2])
def test_noise_alone_is_not_above_its_slides(model: Any, seed: int) -> None:
    found = measured(model, inputs.strain_with(seconds=32, seed=seed), reverse=False)
    assert found["above_all"] == found["above_2000_s"] == 0.0
    assert found["far_per_hour"] > 3600 / found["livetime"]


def test_what_only_one_detector_hears_is_not_above_all(model: Any) -> None:
    """Its slides hold it too: the inclusive background does, whatever the exclusive one says."""
    both, none = inputs.strain_with(16.4, seconds=32, amplitude=8.0), inputs.strain_with(seconds=32)
    found = measured(model, replace(both, values=np.stack([both.values[0], none.values[1]])), reverse=False)
    assert found["statistic"] > found["loudest_slide"]
    assert found["above_all"] == 0.0


def test_what_the_figures_draw(model: Any, loud: dict[str, Any]) -> None:
    time, score = (np.array(loud[f"curve/{key}"]) for key in ("time", "score"))
    assert score.max() == pytest.approx(loud["statistic"], abs=1e-3)
    assert abs(time[score.argmax()]) < 0.3
    assert np.allclose(np.diff(time), 1 / 16)
    edges, counts = np.array(loud["curve/slide_edges"]), np.array(loud["curve/slide_counts"])
    assert len(edges) == len(counts) + 1
    assert edges[-1] == pytest.approx(max(loud["statistic"], loud["loudest_slide_inclusive"]), abs=1e-3)
    assert edges[counts.nonzero()[0][-1] + 1] >= loud["loudest_slide"] - 1e-3
    for name in ("H1", "L1"):
        row = np.array(loud[f"curve/whitened_{name}"])
        assert len(row) == round(1.2 * 1024)
        merger = row[614 - 256 : 614] @ inputs.chirp(1024)  # AROUND before the event is the first sample
        assert merger == pytest.approx(9 / 0.742**0.5, abs=3)
        assert np.std(row[:300]) == pytest.approx(1, abs=0.2)
    early = whitened_around(model, inputs.strain_with(16.4, seconds=32, amplitude=4.5), START + 0.7)
    assert 0 < len(early["whitened_H1"]) <= round(1.2 * 1024)


def test_a_look_is_at_all_of_the_stretch(model: Any) -> None:
    found = look(model, inputs.strain_with(16.4, 25.1, seconds=32, amplitude=5.0))
    series = combine(found.scores)
    assert found.statistic == pytest.approx(float(series.max()))
    assert sum(found.per_detector) == pytest.approx(found.statistic)
    taken = (found.scores.times > found.gps - 0.5) & (found.scores.times < found.gps + 1.5)
    assert found.exclusive.livetime_s < found.inclusive.livetime_s
    assert taken.any()
    strain = inputs.strain_with(seconds=32)
    with pytest.raises(SearchError, match=r"H1 has no 8 s of strain without a gap"):
        look(model, replace(strain, valid=np.zeros_like(strain.valid)))


# ---- the stand-in ----


def test_the_stand_in_is_noise_and_a_signal_like_the_first_event() -> None:
    strain, tc = stand_in()
    again, _ = stand_in()
    assert (strain.detectors, strain.duration, strain.sample_rate) == (("H1", "L1"), 32, 2048)
    assert strain.fingerprint == again.fingerprint
    assert "simulated" in strain.source
    where = {"inclination": 2.8, "phase": 0.3, "ra": 1.95, "dec": -1.27, "psi": 0.8}
    alone = add_signal(
        np.zeros_like(strain.values), strain.gps_start, 2048, strain.detectors, m1=MASSES[0], m2=MASSES[1],
        distance=DISTANCE, tc=tc, **where,
    )  # fmt: skip
    noise = strain.values - alone
    f = torch.fft.rfftfreq(strain.values.shape[1], 1 / 2048, dtype=torch.float64)
    psd, inside = torch.ones_like(f), (f >= 20) & (f < 1000)
    psd[inside] = design_curve(CURVE).psd(f[inside]) * 1e42
    h = torch.zeros(len(f), dtype=torch.complex128)
    h[inside] = phenomd(*(torch.tensor([m], dtype=torch.float64) for m in MASSES), f[inside])[0]
    loudest = []
    for row, quiet in zip(strain.values, noise, strict=True):
        z, without = (matched_filter(torch.from_numpy(x), h, psd, 2048, 20, 1000).abs() for x in (row, quiet))
        loudest.append(float(z.max()))
        near = abs(int(z.argmax()) / 2048 - (tc - strain.gps_start))
        assert near < 0.1 or near > 31.9  # a template's time is that of its phases; it has one of its own
        assert 8 < loudest[-1] < 24
        assert without.max() < 7  # it is the signal that is found
        assert without.square().mean() == pytest.approx(2, rel=0.1)
    assert np.hypot(*loudest) == pytest.approx(24, abs=3)  # GW150914's
    assert abs(np.corrcoef(noise)[0, 1]) < 0.05


def test_slides_without_a_cluster_are_no_error(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = events.slides_of

    def none(*args: Any) -> Any:
        return dataclasses.replace(real(*args), statistics=np.empty(0))

    monkeypatch.setattr(events, "slides_of", none)
    found = measured(model, inputs.strain_with(16.4, seconds=24, amplitude=4.5), reverse=False)
    (counts,) = (value for key, value in found.items() if key.endswith("slide_counts"))
    assert sum(counts) == 0
