"""E5 and E6 of a trained search: sets like the challenge's, with and without glitches, and their time slides."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from mma_realtime.data.challenge import CURVE, generate
from mma_realtime.data.glitches import make_glitch_bank
from mma_realtime.data.strain import Strain
from mma_realtime.evaluation.distance import (
    MOST_COHERENT,
    MOST_SLIDES,
    base_threshold,
    calibration,
    sensitive_distances,
    triggers_of,
)
from mma_realtime.gw.constants import SCALE
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.units import Seconds
from mma_realtime.search.coherent import slides_of
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import conditioner_for, score_strain

GLITCH_EVERY: Seconds = 60.0  # s in each detector: more than the challenge's real noise has
GLITCH_SNR = (8.0, 100.0)
GLITCH_BAND = (20.0, 400.0)


def challenge_metrics(model: SearchModel, duration: int, seed: int, glitches: bool = False) -> dict[str, Any]:
    """Sensitive distances and calibration on one set; see `distance.sensitive_distances` and `calibration`."""
    challenge = generate(duration, seed)
    out: dict[str, Any] = {"injections": float(len(challenge.injections["tc"]))}
    for suffix in ("", "_glitches") if glitches else ("",):
        noise, signals = challenge.background, challenge.foreground
        if suffix:
            added = glitches_in(noise, seed)
            noise, signals = (dataclasses.replace(each, values=each.values + added) for each in (noise, signals))
        own = conditioner_for(model, noise.sample_rate).fitted(noise)
        quiet = score_strain(model, noise, own)
        threshold = base_threshold(quiet)
        most = MOST_COHERENT if model.coherent else MOST_SLIDES
        chance = slides_of(model, noise, own, quiet, max_slides=most, threshold=threshold)
        found = score_strain(model, signals, conditioner_for(model, signals.sample_rate).fitted(signals))
        triggers = triggers_of(found, threshold, model.recipe.time_offset)
        out |= sensitive_distances(triggers, challenge.injections, chance, model.recipe.threshold, suffix=suffix)
        if not suffix:
            out |= calibration(quiet, chance)
            out |= {"slid_livetime": chance.livetime_s, "curve/slide_tail": chance.statistics[-200:].round(3).tolist()}
    return out


def glitches_in(strain: Strain, seed: int, curve: str = CURVE) -> np.ndarray:
    """Glitches alone, as strain x 1e21: one every `GLITCH_EVERY` s in each detector, at its own times, SNR 8 to 100."""
    rate, B = strain.sample_rate // 2, (GLITCH_BAND[1] - GLITCH_BAND[0]) / (strain.sample_rate / 4)
    count = max(1, int(strain.duration / GLITCH_EVERY))
    out = np.zeros_like(strain.values)
    for row in range(len(strain.detectors)):
        bank = make_glitch_bank(count, 1000 * seed + row, rate, GLITCH_BAND, 2.0, use="test")
        rng = np.random.default_rng([seed, 77, row])
        white = torch.fft.rfft(bank.values.double())
        f = torch.fft.rfftfreq(bank.values.shape[-1], 1 / rate, dtype=torch.float64)
        inside = (f >= GLITCH_BAND[0]) & (f < GLITCH_BAND[1])
        asd = torch.zeros(len(f), dtype=torch.float64)
        asd[inside] = design_curve(curve).asd(f[inside]) * SCALE
        # Unit variance in the band is the one-sided density 2 / (rate B); twice the rate, twice the samples.
        coloured = 2 * torch.fft.irfft(white * asd * (rate * B / 2) ** 0.5, 2 * bank.values.shape[-1]).numpy()
        low, high = np.log(GLITCH_SNR).tolist()
        snr = np.exp(rng.uniform(low, high, count)) * rng.choice([-1, 1], count)
        starts = rng.integers(0, out.shape[1] - coloured.shape[1], count)
        for glitch, size, start in zip(coloured, snr, starts, strict=True):
            out[row, start : start + len(glitch)] += size * glitch
    return out
