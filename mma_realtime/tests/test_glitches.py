"""Glitches: unit signal-to-noise ratio in the band, and the shapes that they are named after."""

from __future__ import annotations

import pytest
import torch
from mma_realtime.data.draws import unit_snr
from mma_realtime.data.glitches import GLITCHES, NEGATIVES, GlitchBank, make_glitch_bank
from mma_realtime.errors import SearchError
from torch import Tensor

RATE, BAND = 1024, (20.0, 400.0)
B = 2 * (BAND[1] - BAND[0]) / RATE


def bank(*kinds: str, n: int = 40, seed: int = 0) -> GlitchBank:
    return make_glitch_bank(n, seed, RATE, BAND, 2.0, kinds or NEGATIVES)


def spread(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x under weights [rows, x]."""
    weight = weight / weight.sum(-1, keepdim=True)
    mean = (weight * x).sum(-1)
    return mean, ((weight * x.square()).sum(-1) - mean.square()).clamp(min=0).sqrt()


def in_time(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean time after the middle and duration (s), by energy."""
    t = (torch.arange(values.shape[1]) - values.shape[1] // 2) / RATE
    return spread(t.double(), values.double().square())


def in_frequency(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean frequency and bandwidth (Hz), by energy."""
    f = torch.fft.rfftfreq(values.shape[1], 1 / RATE).double()
    return spread(f, torch.fft.rfft(values.double()).abs().square())


@pytest.mark.parametrize("kind", NEGATIVES)
def test_unit_snr_and_nothing_outside_the_band(kind: str) -> None:
    values = bank(kind).values.double()
    torch.testing.assert_close(B * values.square().sum(1), torch.ones(40).double(), rtol=1e-5, atol=0)
    power = torch.fft.rfft(values).abs().square()
    f = torch.fft.rfftfreq(values.shape[1], 1 / RATE)
    outside = power[:, (f < BAND[0]) | (f >= BAND[1])].sum(1) / power.sum(1)
    assert outside.max() < 1e-10


def test_the_scale_is_that_of_the_matched_filter() -> None:
    """In noise of unit variance in the band, the filter of a glitch of unit ratio scatters by 1 and answers with 1."""
    generator = torch.Generator().manual_seed(0)
    template = bank("sine_gaussian", n=1).values[0].double()
    noise = torch.randn(4000, len(template), generator=generator, dtype=torch.float64)
    f = torch.fft.rfftfreq(len(template), 1 / RATE)
    noise = torch.fft.irfft(torch.fft.rfft(noise) * ((f >= BAND[0]) & (f < BAND[1])), len(template))
    noise = noise / noise.std()
    answers = B * noise @ template
    assert abs(answers.std() - 1) < 0.04
    assert abs(B * template @ template - 1) < 1e-5


def test_a_blip_is_short_and_broad() -> None:
    values = bank("blip").values
    _, width = in_frequency(values)
    middle = values.shape[1] // 2
    energy = values.square()
    assert (energy[:, middle - 10 : middle + 11].sum(1) / energy.sum(1)).min() > 0.8  # 20 ms; the band's edges ring on
    assert width.min() > 30


def test_a_sine_gaussian_is_a_tone_as_long_as_its_quality_says() -> None:
    values = bank("sine_gaussian").values
    _, duration = in_time(values)
    f, width = in_frequency(values)
    assert f.min() > BAND[0]
    assert f.max() < BAND[1]
    # energy of exp(-t^2/tau^2): duration tau/sqrt(2) = Q/(2 pi f)
    quality = 2 * torch.pi * f * duration
    assert quality.min() > 2
    assert quality.max() < 32
    assert (quality.max() / quality.min()) > 4
    product = 4 * torch.pi * duration * width  # 1 for a Gaussian
    assert ((product > 0.9) & (product < 1.4)).float().mean() > 0.8


def test_a_whistle_is_lowest_in_its_middle() -> None:
    values = bank("whistle").values
    window = torch.hann_window(64)
    picture = torch.stft(values, 64, 8, window=window, return_complex=True).abs()
    f = torch.arange(33) * RATE / 64
    loudest = f[picture.argmax(1)]  # [row, frame]
    energy = picture.square().sum(1)
    middle = picture.shape[2] // 2
    lasts = (energy > 0.05 * energy.amax(1, keepdim=True)).float()
    first, last = lasts.argmax(1), lasts.shape[1] - 1 - lasts.flip(1).argmax(1)
    rows = torch.arange(len(values))
    assert (loudest[rows, first] > loudest[:, middle]).float().mean() > 0.9
    assert (loudest[rows, last] > loudest[:, middle]).float().mean() > 0.9


def test_scattered_light_is_low_and_long() -> None:
    values = bank("scattered_light").values
    f, _ = in_frequency(values)
    _, duration = in_time(values)
    assert f.max() < 130
    assert duration.min() > 0.04
    assert duration.max() > 0.2


def test_a_koi_fish_has_a_head_and_rings_on() -> None:
    values = bank("koi_fish").values
    later, duration = in_time(values)
    _, width = in_frequency(values)
    assert (later > 0).all()
    assert duration.max() > 0.015
    assert width.mean() > 30


def test_kinds_come_in_turn_and_are_told() -> None:
    made = bank(n=11)
    assert [GLITCHES[kind] for kind in made.kind] == [*NEGATIVES, *NEGATIVES, NEGATIVES[0]]
    torch.testing.assert_close(made.values[5], bank("blip", n=11).values[5])


def test_seed_and_use_say_which() -> None:
    assert torch.equal(bank().values, bank().values)
    assert not torch.equal(bank().values, bank(seed=1).values)
    assert not torch.equal(bank().values, make_glitch_bank(40, 0, RATE, BAND, 2.0, use="test").values)
    assert len(bank().values.unique(dim=0)) == 40


def test_chirps_are_signals_that_were_given() -> None:
    signals = 5 * torch.randn(3, 2048, generator=torch.Generator().manual_seed(0))
    made = make_glitch_bank(8, 0, RATE, BAND, 2.0, ("chirp", "blip"), chirps=signals)
    torch.testing.assert_close(made.values[::2], unit_snr(signals, RATE, BAND)[torch.tensor([0, 1, 2, 0])])


def test_bad_settings_are_named() -> None:
    with pytest.raises(SearchError, match="unknown kind of glitch tomte: there are blip, whistle"):
        bank("tomte")
    with pytest.raises(SearchError, match="chirp needs whitened signals of 2048 samples"):
        bank("chirp")
    with pytest.raises(SearchError, match="band 20 to 600 Hz does not fit 1024 Hz"):
        make_glitch_bank(1, 0, RATE, (20.0, 600.0))
