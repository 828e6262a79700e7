"""From whitened strain to scores (section 7): networks over every window of a stretch, at the inference rate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from mma_realtime.data.strain import Strain
from mma_realtime.data.strain_files import runs, span
from mma_realtime.data.strain_parts import HOLE
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.models import count_windows
from mma_realtime.search.conditioning import Conditioner, Whitened
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.series import Scores, joined

__all__ = [
    "HOP", "SHORT", "Noise", "Scorer", "ScorerState", "Scores", "check_model", "check_scored", "conditioner_for",
    "informed", "joined", "nothing_scored", "psd_of", "score_strain", "windows_of",
]  # fmt: skip

HOP: Seconds = 1 / 16
Noise = Literal["auto", "trailing", "file"]
SHORT: Seconds = HOLE  # a stretch shorter than this has the PSD of all of it, else that of the seconds before


@dataclass(frozen=True)
class ScorerState:
    """The end of the whitened strain, which the next windows begin in.

    Args:
        values, valid: the last samples of a window less one hop, at most.
        end: of them, in samples since `gps_start`.
    """

    values: Float32[np.ndarray, "detector time"]
    valid: Bool[np.ndarray, "detector time"]
    end: int


@dataclass(frozen=True)
class Scorer:
    """Windows over whitened strain that comes in parts: one ends at every multiple of the hop since `gps_start`.

    Args:
        model: the networks.
        detectors: of the strain.
        gps_start: GPS s of sample 0.
        hop: s between windows; a whole number of samples.

    Raises:
        SearchError: such a hop cannot be; the networks were trained on other detectors.
    """

    model: SearchModel
    detectors: tuple[str, ...]
    gps_start: GPS
    hop: Seconds = HOP

    def __post_init__(self) -> None:
        self.model.check_detectors(self.detectors)
        samples = self.hop * self.model.recipe.sample_rate
        if samples != round(samples) or samples < 1 or self.hop > self.model.window:
            raise SearchError(
                f"a hop of {self.hop:g} s between windows: it has to be a whole number of samples at "
                f"{self.model.recipe.sample_rate} Hz, and at most the window of {self.model.window:g} s"
            )

    @property
    def samples(self) -> int:
        """Of a hop."""
        return round(self.hop * self.model.recipe.sample_rate)

    def start(self) -> ScorerState:
        n = len(self.detectors)
        return ScorerState(np.zeros((n, 0), np.float32), np.zeros((n, 0), bool), 0)

    def advance(self, state: ScorerState, new: Whitened) -> tuple[ScorerState, Scores]:
        """Scores of the windows that end in the new samples; the strain is cast to float32 here, whitened.

        The first window ends a window after `gps_start`.
        """
        hop, length = self.samples, self.model.members[0].input_length
        values = np.concatenate([state.values, new.values.astype(np.float32)], axis=1)
        valid = np.concatenate([state.valid, new.valid], axis=1)
        end = state.end + new.values.shape[1]
        begin = end - values.shape[1]
        first = max(-(-length // hop), state.end // hop + 1)  # the first new window ends at first * hop
        count = max(0, end // hop - first + 1)
        rows = 1 if self.model.coherent else len(values)
        scores = Scores(
            self.detectors, self.gps_start + first * self.hop, self.hop,
            np.zeros((rows, count), np.float32), np.zeros((rows, count), bool), self.model.window,
        )  # fmt: skip
        if count:
            a = first * hop - length - begin
            bad = np.cumsum(np.pad(~valid[:, a:], [(0, 0), (1, 0)]), axis=1)
            starts = hop * np.arange(count)
            whole = bad[:, starts + length] == bad[:, starts]
            if self.model.coherent:
                whole = whole.all(axis=0, keepdims=True)
            if whole.any():
                x = torch.from_numpy(values[:, a : a + starts[-1] + length])
                found = self.model.series(x, hop).numpy()
                scores = replace(scores, values=np.where(whole, found, np.float32(0)), valid=whole)
        left = min(values.shape[1], length + end % hop - hop) if end >= length else values.shape[1]
        kept = values.shape[1] - left
        return ScorerState(values[:, kept:], valid[:, kept:], end), scores


def score_strain(
    model: SearchModel,
    strain: Strain | Iterable[Strain],
    conditioner: Conditioner,
    hop: Seconds = HOP,
    progress: Callable[[Seconds], None] = lambda seconds: None,
) -> Scores:
    """Scores of a stretch of strain, offline: a minute at a time, by the code that streams.

    Args:
        strain: of the whole stretch, or blocks of it that follow each other.
        progress: told how many seconds of scores are new.

    Raises:
        SearchError: strain, conditioner and model do not fit, or the strain is shorter than a window.
    """
    check_model(model, conditioner)
    blocks = iter([strain] if isinstance(strain, Strain) else strain)
    first = next(blocks)
    scorer = Scorer(model, first.detectors, first.gps_start, hop)
    state, parts = scorer.start(), []
    for whitened in conditioner.whitened(itertools.chain([first], blocks)):
        state, scores = scorer.advance(state, whitened)
        parts.append(scores)
        progress(scores.values.shape[1] * hop)
    return joined(parts)


def check_model(model: SearchModel, conditioner: Conditioner) -> None:
    """Raises:
    SearchError: the conditioner prepares strain otherwise than the networks were trained on.
    """
    for name in ("sample_rate", "band"):
        is_, has = getattr(conditioner, name), getattr(model.recipe, name)
        if is_ != has:
            raise SearchError(
                f"{model.path or 'this model'} was trained with {name} {has}, the strain is conditioned to {is_}: "
                "condition it as the model was trained"
            )


def conditioner_for(model: SearchModel, sample_rate_in: int = 2048, **settings: object) -> Conditioner:
    """The conditioner that prepares strain as the networks were trained; `settings` as of `Conditioner`."""
    recipe = model.recipe
    return Conditioner(sample_rate_in, recipe.sample_rate, recipe.band, **settings)  # type: ignore[arg-type]


def psd_of(duration: Seconds, noise: Noise) -> Literal["trailing", "file"]:
    """Which PSD a stretch of so many s gets: `auto` is that of all of it where it is shorter than `SHORT`."""
    if noise == "auto":
        return "file" if duration < SHORT else "trailing"
    return noise


def informed(conditioner: Conditioner, strain: Strain, noise: Noise) -> Conditioner:
    """A trailing conditioner, with the PSD of all of `strain`, a whole stretch, where `noise` asks for that."""
    return conditioner.fitted(strain) if psd_of(strain.duration, noise) == "file" else conditioner


def check_scored(scores: Scores, strain: Strain) -> None:
    """Raises:
    SearchError: no window of the strain has a score in every detector, so nothing could be found in it.
    """
    if not scores.valid.all(axis=0).any():
        raise SearchError(nothing_scored(strain.source, strain.detectors, strain.gps_start, strain.valid))


def nothing_scored(
    source: str, detectors: tuple[str, ...], gps_start: GPS, valid: Bool[np.ndarray, "detector second"]
) -> str:
    """What to say of strain in which no window has a score; names files, GPS range and the longest gapless stretch."""
    longest = max((b - a for a, b in runs(np.logical_and.reduce(valid))), default=0)
    names = " and ".join(detectors)
    return (
        f"{source}, {names}, {span(gps_start, gps_start + valid.shape[1])}: no window has a score: the longest stretch "
        f"without a gap in any detector is {longest} s, and the PSD, the scale and a window need more (16 s are "
        "enough): give a longer file"
    )


class Windowed(NamedTuple):
    """Whitened strain, and where its windows are.

    Attributes:
        values: unit variance in noise.
        starts: sample at which each window begins.
        whole: whether a window of a detector touches neither gap nor edge nor the start of the PSD.
        ends: GPS s at which each window ends.
    """

    values: Float32[np.ndarray, "detector time"]
    starts: Int64[np.ndarray, " window"]
    whole: Bool[np.ndarray, "detector window"]
    ends: Float64[np.ndarray, " window"]


def windows_of(strain: Strain, conditioner: Conditioner, length: int, hop: int) -> Windowed:
    """All windows of a stretch, those that `score_strain` scores: they end at multiples of the hop since its start.

    Args:
        length: samples of a window, at the conditioner's rate. hop: samples.
    """
    parts = list(conditioner.whitened(strain))
    values = np.concatenate([part.values for part in parts], axis=1).astype(np.float32)
    valid = np.concatenate([part.valid for part in parts], axis=1)
    first = (-parts[0].start - length) % hop
    starts = first + hop * np.arange(count_windows(values.shape[1] - first, length, hop))
    bad = np.cumsum(np.pad(~valid, [(0, 0), (1, 0)]), axis=1)
    whole = bad[:, starts + length] == bad[:, starts]
    ends = strain.gps_start + (parts[0].start + starts + length) / conditioner.sample_rate
    return Windowed(values, starts, whole, ends)
