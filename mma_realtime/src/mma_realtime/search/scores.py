"""From whitened strain to scores (section 7): networks over every window of a stretch, at the inference rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32

from mma_realtime.data.strain import Strain
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.conditioning import Conditioner, Whitened
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.series import Scores, joined

__all__ = ["HOP", "Scorer", "ScorerState", "Scores", "check_model", "conditioner_for", "joined", "score_strain"]

HOP: Seconds = 1 / 16


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
    strain: Strain,
    conditioner: Conditioner,
    hop: Seconds = HOP,
    progress: Callable[[Seconds], None] = lambda seconds: None,
) -> Scores:
    """Scores of a stretch of strain, offline: a minute at a time, by the code that streams.

    Args:
        progress: told how many seconds of scores are new.

    Raises:
        SearchError: strain, conditioner and model do not fit, or the strain is shorter than a window.
    """
    check_model(model, conditioner)
    scorer = Scorer(model, strain.detectors, strain.gps_start, hop)
    state, parts = scorer.start(), []
    for whitened in conditioner.whitened(strain):
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
