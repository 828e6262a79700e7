"""The streaming engine: equal to the offline search, killed and resumed at any hop, and its time never goes back."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.data.strain import Strain
from mma_realtime.errors import SearchError
from mma_realtime.search.coincidence import Trigger, find_triggers
from mma_realtime.search.scores import conditioner_for, informed, score_strain
from mma_realtime.search.series import Scores, joined
from mma_realtime.search.stream import StreamEngine, StreamState

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
FS, START, chirp, strain_with, template_model = (
    inputs.FS, inputs.START, inputs.chirp, inputs.strain_with, inputs.template_model,
)  # fmt: skip

MODEL = template_model(time_offset=-0.1)
CONDITIONER = conditioner_for(MODEL)


def engine(strain: Strain) -> StreamEngine:
    return StreamEngine(MODEL, CONDITIONER, strain.detectors, strain.gps_start)


def streamed(
    strain: Strain, hop: float = 1.0, first: int = 0, through: StreamEngine | None = None
) -> tuple[list[Trigger], Scores]:
    """Push `strain` from sample `first` on, a hop at a time."""
    e, found, parts = through or engine(strain), [], []
    n = round(hop * FS)
    for at in range(first, strain.values.shape[1], n):
        valid = strain.valid[:, at // FS]
        found += e.push(strain.values[:, at : at + n], valid)
        if e.scores is not None:
            parts.append(e.scores)
    return found + e.finish(), joined(parts)


@pytest.fixture(scope="module")
def strain() -> Strain:
    return strain_with(16.3, 30.6, seconds=36)


@pytest.fixture(scope="module")
def offline(strain: Strain) -> Scores:
    return score_strain(MODEL, strain, CONDITIONER)


@pytest.mark.parametrize("hop", [1.0, 0.25])
def test_the_stream_is_the_offline_search(strain: Strain, offline: Scores, hop: float) -> None:
    found, scores = streamed(strain, hop)
    assert (scores.gps_start, scores.hop) == (offline.gps_start, offline.hop)
    assert (scores.valid == offline.valid).all()
    np.testing.assert_allclose(scores.values, offline.values, atol=1e-4)
    expected = find_triggers(offline, 0.0, time_offset=-0.1)
    assert [replace(t, statistic=0.0, per_detector=()) for t in found] == [
        replace(t, statistic=0.0, per_detector=()) for t in expected
    ]
    assert [t.gps for t in found] == pytest.approx([START + 16.3, START + 30.6], abs=0.1)


def test_with_gaps_the_stream_is_the_offline_search_too(strain: Strain) -> None:
    valid = strain.valid.copy()
    valid[0, 20:22], valid[1, 25] = False, False
    gapped = replace(strain, valid=valid)
    scores = score_strain(MODEL, gapped, CONDITIONER)
    found, again = streamed(gapped)
    assert (again.valid == scores.valid).all()
    assert 0.3 < scores.valid.mean() < 0.7
    np.testing.assert_allclose(again.values, scores.values, atol=1e-4)
    assert len(found) == 2
    # A window of 1 s and a filter of 1 s: what ends up to 1.5 s after a gap has touched it.
    ends = scores.times - START
    assert not scores.valid[0, (ends > 19.5) & (ends < 23.5)].any()
    assert scores.valid[0, ends >= 23.5].all()


@pytest.mark.slow
@pytest.mark.parametrize("hop", [1.0, 0.25])
def test_killed_and_resumed_at_any_hop_it_finds_the_same(strain: Strain, hop: float) -> None:
    whole, scores = streamed(strain, hop)
    n = round(hop * FS)
    hops = range(1, round(36 / hop)) if hop == 1.0 else range(round(16 / hop), round(18.5 / hop))
    rows: dict[int, tuple[bytes, int]] = {}
    e, emitted = engine(strain), 0
    for k in range(max(hops) + 1):
        if k in hops:
            rows[k] = (e.state().to_bytes(), emitted)
        emitted += len(e.push(strain.values[:, k * n : (k + 1) * n], strain.valid[:, k * n // FS]))
    picked = [k for k in hops if hop == 0.25 or k in (1, 9, 15, 16, 17, 18, 30, 31, 32)]
    for k in picked:
        content, before = rows[k]
        state = StreamState.from_bytes(content)
        assert (state.input_offset, state.gps_start) == (k * n, START)
        again = StreamEngine.resume(MODEL, CONDITIONER, state)
        assert again.next_gps == START + k * hop
        assert again.state().to_bytes() == content
        stop = (k + 4) * n if hop == 0.25 else strain.values.shape[1]
        late = strain.slice(START, START + -(-stop // FS))
        found, rest = streamed(late, hop, k * n, again)
        # Cut short, the stream ends in a cluster that is still open: it is closed, and may be a shorter one.
        assert [t.event for t in found] == [t.event for t in whole[before : before + len(found)]]
        assert hop == 0.25 or found == whole[before:]
        part = slice(round((rest.gps_start - scores.gps_start) / scores.hop), None)
        assert (rest.values == scores.values[:, part][:, : rest.values.shape[1]]).all()


def test_strain_that_comes_again_is_dropped_and_no_event_is_repeated(strain: Strain) -> None:
    e, found = engine(strain), []
    for second in range(22):
        found += e.push(strain.values[:, second * FS : (second + 1) * FS], gps=START + second)
    assert len(found) == 1
    for second in (14, 15, 16, 17, 18):  # the sender's clock moved back
        assert e.push(strain.values[:, second * FS : (second + 1) * FS], gps=START + second) == []
        assert e.scores is None
    assert e.dropped == 5 * FS
    assert e.next_gps == START + 22
    found += e.push(strain.values[:, round(21.5 * FS) : 23 * FS], gps=START + 21.5)  # half of it is new
    assert e.next_gps == START + 23
    found += streamed(strain, 1.0, 23 * FS, e)[0]
    assert [t.event for t in found] == [1, 2]


def test_a_dropped_frame_is_a_gap_and_the_clock_goes_on(strain: Strain) -> None:
    valid = strain.valid.copy()
    valid[:, 20:22] = False
    expected, scores = streamed(replace(strain, valid=valid))
    e, found, parts = engine(strain), [], []
    for second in [*range(20), *range(22, 36)]:
        found += e.push(strain.values[:, second * FS : (second + 1) * FS], gps=START + second)
        parts += [e.scores] if e.scores is not None else []
    assert found + e.finish() == expected
    assert (joined(parts).values == scores.values).all()


def test_a_gap_in_the_middle_of_a_signal_gives_no_event_twice() -> None:
    strain = strain_with(20.3, seconds=30)
    whole, _ = streamed(strain)
    for second in (19, 20, 21):
        valid = strain.valid.copy()
        valid[:, second] = False
        found, scores = streamed(replace(strain, valid=valid))
        assert len(found) <= len(whole) == 1
        ends = scores.times - START
        touch = (ends + 0.5 > second) & (ends - 1.5 < second + 1)
        assert not scores.valid[:, touch].any()  # nothing is zero-filled
        assert scores.valid[:, (ends > 12) & (ends + 0.5 <= second)].all()


def test_a_long_hole_ends_events_but_not_the_clock(strain: Strain) -> None:
    e = engine(strain)
    for second in range(17):
        assert e.push(strain.values[:, second * FS : (second + 1) * FS]) == []
    (found,) = e.push(strain.values[:, 17 * FS : 18 * FS], gps=START + 217)
    assert found.gps == pytest.approx(START + 16.3, abs=0.1)
    assert e.next_gps == START + 218
    assert e.scores is not None
    assert e.scores.gps_end == pytest.approx(START + 217.5 + 1 / 16)
    assert not e.scores.valid.any()


def test_two_events_a_second_apart_are_one_superevent_with_the_louder_as_its_latest() -> None:
    strain = strain_with(20.3, seconds=30)
    louder = strain.values.copy()
    pulse = chirp(FS) * 16.0 * np.sqrt(2)
    end = round(21.3 * FS)
    louder[:, end - len(pulse) : end] += pulse
    found, _ = streamed(replace(strain, values=louder))
    assert [(t.event, t.version) for t in found] == [(1, 1), (1, 2)]
    assert found[1].gps - found[0].gps == pytest.approx(1.0, abs=0.07)
    assert found[1].statistic > found[0].statistic


def test_samples_that_are_no_numbers_and_dead_detectors_are_gaps(strain: Strain) -> None:
    values = strain.values.copy()
    values[0, 20 * FS + 7] = np.nan
    values[1, 25 * FS : 26 * FS] = 0.0
    e, parts = engine(strain), []
    for second in range(30):
        e.push(values[:, second * FS : (second + 1) * FS])
        parts += [e.scores] if e.scores is not None else []
    scores = joined(parts)
    ends = scores.times - START
    assert not scores.valid[0, (ends > 20) & (ends < 21.4)].any()
    assert not scores.valid[1, (ends > 25) & (ends < 27.4)].any()
    assert scores.valid[:, -10:].all()


def test_of_nonsense_no_candidate_is_made(strain: Strain, caplog: pytest.LogCaptureFixture) -> None:
    values = strain.values.copy()
    event = slice(16 * FS, 17 * FS)
    values[:, 17 * FS : 25 * FS] = np.tile(values[:, event], 8)  # the second with a signal, sent again as new ones
    values[:, 27 * FS : 29 * FS] *= 1e200
    gaps = strain.valid.copy()
    gaps[:, 17:25], gaps[:, 27:29] = False, False
    expected, _ = streamed(replace(strain, valid=gaps))
    found, scores = streamed(replace(strain, values=values))
    assert [t.event for t in found] == [t.event for t in expected]
    assert [t.gps for t in found] == pytest.approx([t.gps for t in expected], abs=0.07)
    ends = scores.times - START
    assert not scores.valid[:, (ends > 16.6) & (ends < 26.4)].any()  # eight loud seconds, and none is a candidate
    assert not scores.valid[:, (ends > 26.6) & (ends < 30.4)].any()
    told = [r.getMessage() for r in caplog.records]
    assert sum("H1: strain repeats itself from GPS 1000000017" in line for line in told) == 1
    assert sum("L1: " in line and "strain is beyond" in line for line in told) == 2


def test_a_network_that_gives_no_numbers_is_an_error(strain: Strain) -> None:
    broken = template_model()
    with torch.no_grad():
        broken.members[0].template[0, 0, 5] = np.nan
    with pytest.raises(SearchError, match="the network's statistic is not a number near GPS 10000000"):
        streamed(strain, through=StreamEngine(broken, CONDITIONER, strain.detectors, strain.gps_start))


def test_a_coherent_network_has_one_row_and_needs_every_detector(strain: Strain) -> None:
    model = template_model(("H1", "L1"))
    valid = strain.valid.copy()
    valid[1, 25] = False
    scores = score_strain(model, replace(strain, valid=valid), conditioner_for(model))
    assert scores.values.shape[0] == 1
    ends = scores.times - START
    assert not scores.valid[0, (ends > 25) & (ends < 27)].any()
    (found,) = find_triggers(scores, 3.0)[:1]
    assert abs(found.gps - START - 16.4) < 0.2
    assert len(found.per_detector) == 1


def test_a_state_of_another_model_or_a_torn_one_is_refused(strain: Strain) -> None:
    content = engine(strain).state().to_bytes()
    other = template_model(threshold=1.0)
    with pytest.raises(SearchError, match="another model or conditioning"):
        StreamEngine.resume(other, CONDITIONER, StreamState.from_bytes(content))
    with pytest.raises(SearchError, match="another model or conditioning"):
        StreamEngine.resume(MODEL, replace(CONDITIONER, psd_seconds=16.0), StreamState.from_bytes(content))
    for bad in (content[:1000], b"", b"state", content.replace(b'"format": 1', b'"format": 9')):
        with pytest.raises(SearchError, match="state"):
            StreamState.from_bytes(bad)


def test_what_does_not_fit_is_refused(strain: Strain) -> None:
    with pytest.raises(SearchError, match=r"trained with sample_rate 1024"):
        StreamEngine(MODEL, replace(CONDITIONER, sample_rate=2048), ("H1", "L1"), START)
    pair = template_model(("H1", "L1"))
    with pytest.raises(SearchError, match="trained on H1 and L1 together, the strain is of L1, V1"):
        StreamEngine(pair, CONDITIONER, ("L1", "V1"), START)
    with pytest.raises(SearchError, match="whole number of samples"):
        StreamEngine(MODEL, CONDITIONER, ("H1", "L1"), START, hop=0.01)
    with pytest.raises(SearchError, match="between the samples"):
        engine(strain).push(strain.values[:, :FS], gps=START + 0.0001)
    with pytest.raises(SearchError, match=r"\[2 detectors, samples\] is expected"):
        engine(strain).push(strain.values[:1, :FS])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_chirp_in_short_strain_is_found_wherever_the_strain_has_a_score_and_only_there(seed: int) -> None:
    """Of 16 s the first and the last 0.5 s are lost to the filter, and a window of a second begins after the first."""
    for merger in (1.5, 2.0, 4.4, 8.4, 12.4, 14.4, 15.4):
        strain = strain_with(merger, seconds=16, seed=seed)
        scores = score_strain(MODEL, strain, informed(CONDITIONER, strain, "auto"))
        whole = scores.times[scores.valid.all(axis=0)] - START
        assert (whole[0], whole[-1]) == pytest.approx((1.5, 15.5), abs=scores.hop)
        (found,) = find_triggers(scores, 5.0, time_offset=-0.1)
        assert abs(found.gps - (START + merger)) < 0.4, merger
    for merger in (0.4, 15.9):  # its end, where it is loudest, has no whitened strain
        strain = strain_with(merger, seconds=16, seed=seed)
        scores = score_strain(MODEL, strain, informed(CONDITIONER, strain, "auto"))
        assert find_triggers(scores, 5.0, time_offset=-0.1) == [], merger
