"""The matched-filter search: values against the goldens and closed forms, coincidence against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.data.strain import Strain
from mma_realtime.errors import SearchError
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.waveforms import peak_time, phenomd
from mma_realtime.search.bank import Bank
from mma_realtime.search.matched_filter import (
    MatchedFilterSearch,
    band,
    loud_bins,
    snr_series,
    snr_series_at,
    template_series,
)
from mma_realtime.search.template_triggers import (
    Peaks,
    TemplateTriggers,
    coincident_pairs,
    network_triggers,
    slid_background,
)

GOLDEN = Path(__file__).parent / "golden" / "matched_filter.npz"
RATE = 512
BANK = Bank(torch.tensor([36.0, 36.0, 50.0]).double(), torch.tensor([24.0, 29.0, 45.0]).double(), 20.0, 250.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Small products: threads that wait for each other cost ten times more on a busy machine."""
    torch.set_num_threads(1)


def density(n: int, rate: int) -> np.ndarray:
    f = torch.fft.rfftfreq(n, 1 / rate).double()
    return design_curve("aLIGOZeroDetHighPower").psd(f.clamp(10, 1000)).numpy() * 1e42


def noise(seconds: int, seed: int, rate: int = RATE) -> np.ndarray:
    """Coloured noise, scaled, made in frequency."""
    S = density(seconds * rate, rate)
    normal = np.random.default_rng(seed).standard_normal((2, len(S)))
    return np.fft.irfft(np.sqrt(S * seconds / 4) * (normal[0] + 1j * normal[1])) * rate


def signal(seconds: int, m1: float, m2: float, snr: float, peak: float, rate: int = RATE) -> np.ndarray:
    """Scaled strain of a chirp whose amplitude peaks at `peak` seconds, of this optimal SNR in BANK's band."""
    n = seconds * rate
    f = torch.fft.rfftfreq(n, 1 / rate).double()
    one, two = torch.tensor([m1]).double(), torch.tensor([m2]).double()
    h = phenomd(one, two, f)[0].numpy() * 1e21
    inside = (f >= 20).numpy() & (f < 250).numpy()
    rho = np.sqrt(4 / seconds * (np.abs(h[inside]) ** 2 / density(n, rate)[inside]).sum())
    late = peak - float(peak_time(one, two))
    return np.fft.irfft(h * snr / rho * np.exp(-2j * np.pi * f.numpy() * late)) * rate


def strain_of(rows: list[np.ndarray], valid: np.ndarray | None = None, rate: int = RATE) -> Strain:
    values = np.stack(rows)
    valid = np.ones((len(rows), values.shape[1] // rate), dtype=bool) if valid is None else valid
    values = values * np.repeat(valid, rate, axis=1)
    return Strain(("H1", "L1")[: len(rows)], 1000.0, rate, values, valid)


def search(**options: object) -> MatchedFilterSearch:
    return MatchedFilterSearch(BANK, RATE, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def two_events() -> Strain:
    return strain_of(
        [
            noise(64, 1) + signal(64, 36, 29, 12, 30.3) + signal(64, 36, 24, 8, 31.3),
            noise(64, 2) + signal(64, 36, 29, 9, 30.307) + signal(64, 36, 24, 9, 31.295),
        ]
    )


def test_the_series_is_the_goldens() -> None:
    with np.load(GOLDEN) as g:
        m1, m2 = (float(m) for m in g["mass"])
        bank = Bank(torch.tensor([m1]).double(), torch.tensor([m2]).double(), float(g["f_low"]), float(g["f_high"]))
        n, rate = len(g["strain_e22"]), int(g["fs"])
        first, last = band(n // rate, bank.f_low, bank.f_high)
        S = torch.from_numpy(g["psd_full_e46"][first:last].astype(float)) * 1e-4
        h = template_series(bank, slice(0, 1), n // rate, bank.f_low, bank.f_high)
        d = torch.fft.rfft(torch.from_numpy(g["strain_e22"].astype(float) * 0.1))[first:last] / rate
        data = (4 / (n // rate) * d / S).to(torch.complex64)
        sigma = float((h[0].abs().square() * (4 / (n // rate)) / S).sum().sqrt())
        assert sigma == pytest.approx(float(g["sigma"]), rel=1e-4)
        z = snr_series(data, h, torch.zeros(1, n // 2, dtype=torch.complex64))[0].abs().numpy() / sigma
        # The goldens' series belongs to the waveform's t = 0, ours to the peak of its amplitude.
        around = np.abs(g["snr_around_peak"])
        late = -float(peak_time(bank.m1, bank.m2)) * rate
        middle = int(g["peak_index"])
        at = middle - late + np.arange(-200, 201, 8)
        f = np.arange(last - first)
        spectrum = (data * h[0]).numpy().astype(complex)
        direct = np.abs(np.exp(2j * np.pi * np.outer(at, f) / n) @ spectrum) / sigma
        assert np.abs(direct - around[56:457:8]).max() < 1e-3 * float(g["peak_abs"])
        assert 0.96 < z.max() / float(g["peak_abs"]) < 1  # at half the rate the peak lies between samples


def test_in_noise_the_mean_of_z_squared_is_two() -> None:
    """1,000 draws far from each other, in the whole of the search: whitening measured on the noise itself."""
    mf = search()
    draws = []
    for seed in range(3):
        strain = strain_of([noise(128, 10 + seed)])
        (piece,) = mf.pieces(strain, 256)
        h = template_series(BANK, slice(None), 256, 20.0, 250.0)
        z = snr_series(piece.data, h, torch.zeros(3, 256 * 256, dtype=torch.complex64))
        sigma = (h.abs().square() @ piece.noise).sqrt()
        used = slice((piece.used[0] - piece.second + 8) * 256, (piece.used[1] - piece.second) * 256, 64)
        draws.append((z / sigma[:, None]).abs().square()[:, used])
    power = torch.cat([d.flatten() for d in draws])
    assert len(power) > 1000
    assert float(power.mean()) == pytest.approx(2.0, abs=0.1)
    assert float((power > 2 * np.log(100)).float().mean()) == pytest.approx(0.01, abs=0.005)  # exponential


def test_signals_are_found_at_their_time_with_their_ratio(two_events: Strain) -> None:
    found = network_triggers(search().triggers(two_events), 8.0)
    assert [round(t.gps - 1000, 1) for t in found] == [30.3, 31.3]  # two events 1 s apart
    assert abs(found[0].gps - 1030.3035) < 0.005
    assert found[0].per_detector[0] == pytest.approx(12, abs=2.5)
    assert found[0].per_detector[1] == pytest.approx(9, abs=2.5)
    assert found[0].statistic == pytest.approx(np.hypot(*found[0].per_detector), rel=1e-6)


def test_without_noise_a_signal_has_its_ratio_whatever_the_transform() -> None:
    """Known noise, no noise: SNR 10 and the time to a tenth of a sample, at the full rate and at the shortened one."""
    psd = torch.from_numpy(density(8 * RATE, RATE))
    for peak in (30.0, 30.0 + 0.5 / RATE, 30.0 + 0.3 / RATE):
        strain = strain_of([signal(64, 50, 45, 10, peak)])
        for loss in (0.0, 1e-3):
            mf = search(psd=psd, band_loss=loss)
            (peaks,) = mf.triggers(strain).peaks
            mine = peaks.template == 2
            k = peaks.snr[mine].argmax()
            assert peaks.snr[mine][k] == pytest.approx(10, rel=0.02)
            assert peaks.time[mine][k] == pytest.approx(peak, abs=2e-4)


def test_a_conjugated_template_finds_nothing(two_events: Strain) -> None:
    """The sign: time-reversed strain has falling chirps."""
    backwards = Strain(
        two_events.detectors, 1000.0, RATE, np.ascontiguousarray(two_events.values[:, ::-1]), two_events.valid
    )
    loudest = max((t.statistic for t in network_triggers(search().triggers(backwards), 5.7)), default=0.0)
    assert loudest < 0.8 * max(t.statistic for t in network_triggers(search().triggers(two_events), 5.7))


def test_pieces_are_as_one(two_events: Strain) -> None:
    """Short segments see what one long one sees, with the noise known."""
    psd = torch.from_numpy(density(8 * RATE, RATE))
    one = search(psd=psd, threshold=4.5).triggers(two_events)
    many = search(psd=psd, threshold=4.5, segment=16.0).triggers(two_events)
    assert (one.live == many.live).all()
    assert one.livetime == 62
    for a, b in zip(one.peaks, many.peaks, strict=True):
        assert len(a) > 5
        assert len(a) == len(b)
        np.testing.assert_allclose(a.snr, b.snr, rtol=2e-2)
        np.testing.assert_allclose(a.time, b.time, atol=1e-3)


def test_a_gap_is_never_searched(two_events: Strain) -> None:
    valid = np.ones((2, 64), dtype=bool)
    valid[0, 28:33] = False
    triggers = search().triggers(strain_of(list(two_events.values), valid))
    assert not triggers.live[0, 27:34].any()
    assert triggers.live[1, 27:34].all()
    inside = (triggers.peaks[0].time >= 27) & (triggers.peaks[0].time < 34)
    assert not inside.any()
    assert not [t for t in network_triggers(triggers, 8.0) if 1027 < t.gps < 1034]


def test_loud_bins_are_those_of_the_definition() -> None:
    z = torch.randn(3, 4096, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
    threshold = torch.tensor([1.5, 2.0, 9.0])
    template, bins, sample = loud_bins(z, 16, threshold)
    size = z.abs().view(3, 256, 16)
    expected = (size.amax(2) >= threshold[:, None]).nonzero()
    assert torch.equal(torch.stack([template, bins], 1), expected)
    assert torch.equal(sample, bins * 16 + size[template, bins].argmax(1))
    assert not (template == 2).any()


def brute_pairs(
    a: Peaks, b: Peaks, duration: float, threshold: float, shift: float, window: float
) -> set[tuple[int, int]]:
    out = set()
    for i in range(len(a)):
        for j in range(len(b)):
            dt = (a.time[i] - shift) % duration - b.time[j]
            loud = np.hypot(float(a.snr[i]), float(b.snr[j])) >= threshold
            if a.template[i] == b.template[j] and abs(dt) <= window and loud:
                out.add((i, j))
    return out


def draw_peaks(rng: np.random.Generator, n: int) -> Peaks:
    template = rng.integers(0, 3, n).astype(np.int32)
    time = rng.integers(0, 1280, n) / 64
    order = np.lexsort((time, template))
    return Peaks(template[order], time[order], rng.uniform(4, 9, n).astype(np.float32)[order])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 300), st.sampled_from([0.0, 0.02, 0.2]))
def test_pairs_are_all_pairs_of_one_template(seed: int, hops: int, window: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = draw_peaks(rng, 40), draw_peaks(rng, 50)
    pairs = coincident_pairs(a, b, 20.0, 8.0, hops / 16, window)
    assert set(zip(pairs.first.tolist(), pairs.second.tolist())) == brute_pairs(a, b, 20.0, 8.0, hops / 16, window)
    assert (np.diff(pairs.time) >= 0).all()


def uncorrelated(seed: int, live: np.ndarray | None = None) -> TemplateTriggers:
    rng = np.random.default_rng(seed)
    live = np.ones((2, 20), dtype=bool) if live is None else live
    peaks = tuple(
        p.where(row[p.time.astype(int)]) for p, row in zip((draw_peaks(rng, 200), draw_peaks(rng, 200)), live)
    )
    return TemplateTriggers(("H1", "L1"), 1000.0, live, peaks, 4.0)


def test_slides_count_the_loudest_of_each_cluster_and_their_livetime() -> None:
    live = np.ones((2, 20), dtype=bool)
    live[0, 4:6] = live[1, 9] = False
    triggers = uncorrelated(1, live)
    background = slid_background(triggers, 6.0, step=2.0)
    found, livetime = [], 0.0
    for shift in range(2, 19, 2):
        livetime += float((live[0] & np.roll(live[1], shift)).sum())
        pairs = brute_pairs(*triggers.peaks, 20.0, 6.0, shift, 0.015)
        a, b = triggers.peaks
        hits = sorted((float(a.time[i]), float(np.hypot(float(a.snr[i]), float(b.snr[j])))) for i, j in pairs)
        cluster: list[float] = []
        for number, (t, s) in enumerate(hits):
            if number and t - hits[number - 1][0] >= 0.35:
                found.append(max(cluster))
                cluster = []
            cluster.append(s)
        if cluster:
            found.append(max(cluster))
    assert len(found) > 20
    np.testing.assert_allclose(background.statistics, np.sort(found), rtol=1e-9)
    assert background.livetime_s == livetime == background.independent_livetime_s
    assert background.far(background.loudest + 1).upper_limit


def test_a_candidate_can_be_taken_out_of_its_own_background(two_events: Strain) -> None:
    triggers = search().triggers(two_events)
    inclusive = slid_background(triggers, 5.7, step=0.25, correlated=True)
    exclusive = slid_background(triggers, 5.7, step=0.25, correlated=True, on_source=[1030.3, 1031.3])
    assert exclusive.loudest < 9 < inclusive.loudest
    assert exclusive.livetime_s < inclusive.livetime_s
    assert exclusive.independent_livetime_s < exclusive.livetime_s / 7


def test_slides_that_cannot_be_are_refused() -> None:
    with pytest.raises(SearchError, match=r"step of 1 s is shorter than 2 s"):
        slid_background(uncorrelated(0), 6.0, step=1.0)
    short = TemplateTriggers(("H1", "L1"), 0.0, np.ones((2, 3), bool), uncorrelated(0).peaks, 4.0)
    with pytest.raises(SearchError, match="hold no slide"):
        slid_background(short, 6.0)
    alone = TemplateTriggers(("H1",), 0.0, np.ones((1, 20), bool), uncorrelated(0).peaks[:1], 4.0)
    with pytest.raises(SearchError, match=r"two detectors: 1 given \(H1\)"):
        network_triggers(alone, 6.0)


def test_strain_and_banks_that_do_not_fit_are_refused(two_events: Strain) -> None:
    with pytest.raises(SearchError, match="ends at 250 Hz, strain at 256 Hz"):
        MatchedFilterSearch(BANK, 256)
    with pytest.raises(SearchError, match="read the strain at the search's rate"):
        MatchedFilterSearch(BANK, 1024).triggers(two_events)
    with pytest.raises(SearchError, match="more than half of a segment of 4 s"):
        search(segment=4.0)
    with pytest.raises(SearchError, match="longest gapless stretch is 5 s, at least 8 s"):
        search().triggers(strain_of([noise(5, 0)]))


def test_what_a_localiser_needs(two_events: Strain) -> None:
    series = snr_series_at(search(), two_events, 1, 1030.3, 0.1)
    assert series.detectors == ("H1", "L1")
    assert series.snr.shape == (2, 2 * 51 + 1)
    peaks = series.snr.abs().argmax(1) - 51
    assert abs(series.toa[0] - 1030.3) < 1 / RATE
    assert (peaks / RATE).tolist() == pytest.approx([0.0, 0.007], abs=0.004)
    assert series.snr.abs().amax(1).tolist() == pytest.approx([12, 9], abs=2.5)
    h = phenomd(BANK.m1[1:2], BANK.m2[1:2], torch.arange(20, 250, 0.25).double())[0].numpy() * 1e21
    S = design_curve("aLIGOZeroDetHighPower").psd(torch.arange(20, 250, 0.25).double()).numpy() * 1e42
    assert series.horizon[0] == pytest.approx(400 * np.sqrt((np.abs(h) ** 2 / S).sum()), rel=0.1)
    with pytest.raises(SearchError, match=r"without gaps 0\.1 s around"):
        snr_series_at(search(), two_events, 1, 1063.95, 0.1)
