"""Banks: signals that rise, merge where they should and have unit signal-to-noise ratio; noise of unit variance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.data import bank as module
from mma_realtime.data.bank import SignalBank, make_noise_bank, make_signal_bank
from mma_realtime.data.draws import CELLS, PARTS, draw_masses, log_uniform, mass_part, power_law, stream
from mma_realtime.errors import SearchError
from mma_realtime.gw.detectors import detector, light_travel_time
from mma_realtime.gw.psd import NoiseCurve
from torch import Tensor

RATE, BAND = 1024, (20.0, 400.0)
B = 2 * (BAND[1] - BAND[0]) / RATE


def curve(name: str = "flat", slope: float = 0.0) -> NoiseCurve:
    """log10 of the amplitude density falls by `slope` in a tenfold frequency."""
    f = torch.logspace(1, 3.2, 50, dtype=torch.float64)
    return NoiseCurve(name, f, -23 - slope * (f / 100).log10(), measured=True)


def signals(n: int = 24, seed: int = 0, **given_settings: object) -> SignalBank:
    return make_signal_bank(n, seed, RATE, BAND, **{"curves": [curve()], **given_settings})  # type: ignore[arg-type]


def analytic(x: Tensor) -> Tensor:
    """x + i (its Hilbert transform)."""
    spectrum = torch.fft.fft(x.double())
    n = x.shape[-1]
    spectrum[..., n // 2 + 1 :] = 0
    spectrum[..., 1 : (n + 1) // 2] *= 2
    return torch.fft.ifft(spectrum)


# -- signals --------------------------------------------------------------------------------------------------------


def test_signals_rise_until_the_merger() -> None:
    """Trap 1: a conjugated waveform falls, with its energy behind the merger."""
    bank = signals(m_range=(20.0, 40.0))
    x = bank.values[:, 0].double()
    energy = x.square()
    assert (energy[:, : bank.merger].sum(1) / energy.sum(1)).min() > 0.8
    turn = torch.angle(analytic(x)[:, 1:] * analytic(x)[:, :-1].conj()) * RATE / (2 * torch.pi)  # Hz
    weight = energy[:, 1:]

    def mean_frequency(begin: float, end: float) -> Tensor:
        part = slice(bank.merger - round(begin * RATE), bank.merger - round(end * RATE))
        return (turn * weight)[:, part].sum(1) / weight[:, part].sum(1)

    early, middle, late = mean_frequency(0.5, 0.2), mean_frequency(0.2, 0.05), mean_frequency(0.03, 0.0)
    assert (middle > 1.2 * early).all()
    assert (late > 1.5 * middle).all()


def test_the_amplitude_peaks_at_the_merger() -> None:
    """Of strain; what whitening favours moves the peak of a whitened signal by a few milliseconds."""
    bank = signals(64, m_range=(50.0, 75.0))
    assert bank.merger == bank.values.shape[2] - round(0.3 * RATE)
    late = (analytic(bank.values[:, 0]).abs().argmax(1) - bank.merger).double()
    assert abs(late.mean()) < 1.5  # without `peak_time`: -8 samples
    assert late.abs().max() <= 8  # the band's lower edge bends the envelope


def test_unit_signal_to_noise_ratio_in_the_band() -> None:
    heavy = signals(m_range=(40.0, 75.0), curves=())
    squares = B * heavy.values.double().square().sum((1, 2))
    torch.testing.assert_close(squares, torch.ones_like(squares), rtol=2e-3, atol=0)
    light = signals(m_range=(5.0, 8.0))
    squares = B * light.values.double().square().sum((1, 2))
    assert squares.max() < 0.35  # what is in the band before the row begins belongs to the ratio
    assert squares.min() > 0.15
    power = torch.fft.rfft(heavy.values.double() * torch.hann_window(1280).double()).abs().square()
    f = torch.fft.rfftfreq(1280, 1 / RATE)
    assert (power[..., (f < BAND[0] - 3) | (f > BAND[1] + 3)].sum((1, 2)) / power.sum((1, 2))).max() < 1e-3


def test_the_matched_filter_of_a_signal_answers_with_its_ratio() -> None:
    bank = signals(m_range=(40.0, 75.0), n=1, curves=())
    template, noise = bank.values[0, 0].double(), make_noise_bank(2048.0, 3, RATE, BAND).double()
    answers = B * noise[:, : 25 * 1280].reshape(-1, 1280) @ template
    assert abs(answers.std() - 1) < 0.05
    assert abs(B * template @ template - 1) < 2e-3


def test_a_short_row_is_the_end_of_a_long_one() -> None:
    """Light systems: nothing of what is earlier than the row comes round and lies over it."""
    short, long = signals(m_range=(5.0, 8.0)), signals(m_range=(5.0, 8.0), duration=20.0)
    assert torch.equal(short.m1, long.m1)
    seen = long.values[:, 0, -short.values.shape[2] :]
    size = seen.abs().amax(1, keepdim=True)
    away = (short.values[:, 0] - seen).abs() / size
    assert away[:, 100:].max() < 0.03
    assert away[:, :100].max() < 0.1


def test_whitened_by_the_curve_that_was_drawn() -> None:
    flat, steep = signals(), signals(curves=[curve(slope=3.0)])
    ratio = torch.fft.rfft(steep.values[:, 0].double()).abs() / torch.fft.rfft(flat.values[:, 0].double()).abs()
    f = torch.fft.rfftfreq(flat.values.shape[2], 1 / RATE)
    at = [int((f - hertz).abs().argmin()) for hertz in (60, 120)]
    gain = (ratio[:, at[1]] / ratio[:, at[0]]).median()
    assert gain == pytest.approx(8, rel=0.1)


def test_two_detectors_hear_one_source() -> None:
    bank = signals(64, m_range=(20.0, 40.0), detectors=("H1", "L1"), curves=[curve(slope=2.0)])
    assert bank.values.shape == (64, 2, 1280)
    squares = B * bank.values.double().square().sum((1, 2))
    torch.testing.assert_close(squares, torch.ones_like(squares), rtol=0.02, atol=0)
    own = B * bank.values.double().square().sum(2)
    torch.testing.assert_close(own, bank.share.double(), rtol=0.02, atol=1e-3)
    lag = bank.delay[:, 1] - bank.delay[:, 0]
    assert bank.delay.sum(1).abs().max() < 1e-12
    assert 0.006 < lag.abs().max() <= light_travel_time(detector("H1"), detector("L1"))
    assert lag.min() < -0.005
    assert lag.max() > 0.005
    # L1 is H1, later by the lag, turned by a phase and scaled: undo the lag and correlate.
    f = torch.fft.fftfreq(1280, 1 / RATE, dtype=torch.float64)
    h, l = (analytic(bank.values[:, d]) for d in range(2))
    l_undone = torch.fft.ifft(torch.fft.fft(l) * torch.exp(2j * torch.pi * f * lag[:, None]))
    match = (h.conj() * l_undone).sum(1) / (h.norm(dim=1) * l_undone.norm(dim=1))
    heard = bank.share.amin(1) > 0.01
    assert heard.sum() > 40
    assert match.abs()[heard].min() > 0.99
    wrong = torch.fft.ifft(torch.fft.fft(l) * torch.exp(-2j * torch.pi * f * lag[:, None]))
    mismatch = (h.conj() * wrong).sum(1).abs() / (h.norm(dim=1) * wrong.norm(dim=1))
    assert mismatch[heard & (lag.abs() > 0.005)].max() < 0.97
    phase = match.angle()[heard]
    assert phase.cos().std() > 0.1  # inclined sources: not in phase nor in antiphase alone
    assert phase.sin().abs().max() > 0.3


def test_detectors_have_their_own_curves() -> None:
    f = torch.linspace(20, 399, 50, dtype=torch.float64)
    both = [curve("H1 a"), curve("H1 b", 1.0), curve("L1 a", 2.0)]
    generator = torch.Generator().manual_seed(0)
    pools = {name: module.one_over_asd(both, name, f, True, generator) for name in ("H1", "L1")}
    assert (len(pools["H1"]), len(pools["L1"])) == (2, 1)
    torch.testing.assert_close(pools["L1"][0].double(), 1e-21 / both[2].asd(f), rtol=1e-6, atol=0)
    assert len(module.one_over_asd(both, "V1", f, True, generator)) == 3
    assert len(module.one_over_asd(both, "H1", f, False, generator)) == 3
    design = module.one_over_asd((), "H1", f, True, generator)
    assert design.shape == (module.POOL, 50)
    assert len(design.unique(dim=0)) == module.POOL


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = signals(curves=())
    monkeypatch.setattr(module, "CHUNK", 7)
    parts = signals(curves=())
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-4, atol=1e-6)


def test_seed_and_part_say_which_signals() -> None:
    first = signals()
    assert torch.equal(first.values, signals().values)
    assert not torch.equal(first.values, signals(seed=1).values)
    assert len({row.abs().max().item() for row in first.values}) == 24


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"duration": 0.2}, "rows of 0.2 s end before the merger: make them longer than 0.3 s"),
        ({"part": "exam"}, "part is 'exam': one of train, validation, test"),
        ({"m_range": (50.0, 20.0)}, "masses from 50 to 20 solar masses with ratios up to 10: there are none"),
        ({"m_range": (30.1, 30.2), "part": "test"}, "hold no cell of the test part: widen the range"),
        ({"detectors": ("H1", "X9")}, "unknown detector 'X9'"),
        ({"curves": [NoiseCurve("short", torch.tensor([30.0, 90.0]), torch.tensor([-23.0, -23.0]), True)]}, "short"),
    ],
)
def test_bad_settings_of_signals_are_named(given_settings: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        signals(2, **given_settings)


def test_a_band_beyond_nyquist_is_refused() -> None:
    for band in ((20.0, 600.0), (0.0, 100.0), (100.0, 100.0)):
        with pytest.raises(SearchError, match="does not fit 1024 Hz"):
            make_signal_bank(2, 0, RATE, band)
        with pytest.raises(SearchError, match="does not fit 1024 Hz"):
            make_noise_bank(32.0, 0, RATE, band)


# -- masses ---------------------------------------------------------------------------------------------------------


def test_parts_share_no_masses() -> None:
    assert sorted(tenth for part in PARTS for tenth in CELLS[part]) == list(range(10))
    cells = {}
    for part in PARTS:
        bank = draw_masses(3000, (5.0, 75.0), 10.0, part, stream(0, part))
        cells[part] = {(int(a), int(b)) for a, b in zip(*bank)}
        assert torch.isin(mass_part(*bank), torch.tensor(list(CELLS[part]))).all()
    assert not cells["train"] & cells["validation"]
    assert not cells["train"] & cells["test"]
    assert not cells["validation"] & cells["test"]
    made = signals(100, part="test", m_range=(5.0, 75.0))
    assert {(int(a), int(b)) for a, b in zip(made.m1, made.m2)} <= {
        (a, b) for a in range(5, 75) for b in range(5, 75) if int(mass_part(torch.tensor(a), torch.tensor(b))) == 9
    }


@given(st.integers(1, 120), st.integers(1, 120), st.floats(0, 0.999), st.floats(0, 0.999))
@settings(max_examples=50, deadline=None)
def test_a_cell_belongs_to_one_part(a: int, b: int, x: float, y: float) -> None:
    corner = mass_part(torch.tensor(float(a)), torch.tensor(float(b)))
    assert 0 <= int(corner) <= 9
    assert mass_part(torch.tensor(a + x, dtype=torch.float64), torch.tensor(b + y, dtype=torch.float64)) == corner


def test_parts_interleave() -> None:
    """Every square of 14 solar masses holds cells of every part: none is an island."""
    a, b = torch.meshgrid(torch.arange(5.0, 75.0), torch.arange(5.0, 75.0), indexing="ij")
    tenths = mass_part(a, b)
    for tenth in (8, 9):
        blocks = (tenths == tenth).float().unfold(0, 14, 14).unfold(1, 14, 14).sum((2, 3))
        assert blocks.min() >= 5


@given(st.floats(3, 30), st.floats(1.05, 5), st.floats(1, 10), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_masses_keep_their_range(low: float, factor: float, q_max: float, seed: int) -> None:
    high = max(low * factor, low + 12)
    m1, m2 = draw_masses(50, (low, high), max(q_max, 1.5), "train", stream(seed, "masses"))
    assert (m1 >= m2).all()
    assert m2.min() >= low
    assert m1.max() <= high
    assert (m1 / m2).max() <= max(q_max, 1.5)


def test_masses_are_uniform() -> None:
    m1, m2 = draw_masses(20_000, (10.0, 50.0), 10.0, "train", stream(0, "uniform"))
    assert m1.mean() == pytest.approx(10 + 40 * 2 / 3, rel=0.02)
    assert m2.mean() == pytest.approx(10 + 40 / 3, rel=0.02)
    assert (m1 < 30).double().mean() == pytest.approx(0.25, abs=0.03)


@given(st.floats(1, 10), st.floats(1.1, 20), st.sampled_from([-3.0, -2.0, 2.0]), st.floats(0, 0.9999))
def test_the_power_law_is_the_inverse_of_its_distribution(low: float, factor: float, index: float, u: float) -> None:
    high, k = low * factor, index + 1
    x = float(power_law(torch.tensor(u, dtype=torch.float64), low, high, index))
    assert low * (1 - 1e-9) <= x <= high * (1 + 1e-9)
    assert (x**k - low**k) / (high**k - low**k) == pytest.approx(u, abs=1e-6)


def test_log_uniform() -> None:
    assert log_uniform(torch.tensor([0.0, 0.5, 1.0]), 2.0, 200.0).tolist() == pytest.approx([2, 20, 200])


# -- noise ----------------------------------------------------------------------------------------------------------


def spectrum(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies and mean power of 1 s pieces."""
    pieces = rows.double().reshape(-1, RATE) * torch.hann_window(RATE).double()
    return torch.fft.rfftfreq(RATE, 1 / RATE), torch.fft.rfft(pieces).abs().square().mean(0)


def test_white_noise_in_the_band() -> None:
    rows = make_noise_bank(512.0, 0, RATE, BAND)
    assert rows.shape == (16, 32 * RATE)
    assert rows.std() == pytest.approx(1, abs=0.005)
    f, power = spectrum(rows)
    inside, outside = (f > 24) & (f < 396), (f < 16) | (f > 404)
    assert power[outside].max() < 1e-4 * power[inside].mean()
    assert power[inside].max() / power[inside].min() < 2
    kurtosis = rows.double().pow(4).mean() / rows.double().square().mean() ** 2
    assert kurtosis == pytest.approx(3, abs=0.05)


def test_rows_parts_and_seeds_of_noise_are_independent() -> None:
    one = make_noise_bank(40.0, 0, RATE, BAND)
    assert len(one) == 2
    others = [make_noise_bank(32.0, 0, RATE, BAND, "test"), make_noise_bank(32.0, 1, RATE, BAND), one[1:]]
    for other in others:
        assert abs(torch.corrcoef(torch.cat([one[:1], other[:1]]))[0, 1]) < 0.04
    assert torch.equal(one, make_noise_bank(40.0, 0, RATE, BAND))


def test_conditioned_noise_has_the_errors_of_an_estimate() -> None:
    steep = curve(slope=3.0)
    rows = make_noise_bank(128.0, 0, RATE, BAND, conditioned=True, curves=[steep])
    assert rows.shape == (4, 32 * RATE)
    assert torch.isfinite(rows).all()
    assert rows.std() == pytest.approx(1, abs=0.05)
    f, power = spectrum(rows)
    inside, outside = (f > 26) & (f < 394), (f < 14) | (f > 406)
    assert power[outside].sum() < 1e-3 * power[inside].sum()
    # flat over six octaves of a curve that falls a million-fold in power
    assert power[(f > 30) & (f < 60)].mean() == pytest.approx(float(power[(f > 300) & (f < 390)].mean()), rel=0.15)
    # each row's spectrum is bent by its own estimate, by more than its own scatter
    own = torch.stack([spectrum(row)[1][inside] for row in rows])
    white = torch.stack([spectrum(row)[1][inside] for row in make_noise_bank(128.0, 0, RATE, BAND)])
    assert own.log().std(1).mean() > 1.15 * white.log().std(1).mean()
