"""The alert pipeline with a watch in its hand: how long each step of a hop took (section 9's budget)."""

from __future__ import annotations

import time
from typing import Any

from mma_realtime.alerts.pipeline import AlertPipeline, Block
from mma_realtime.alerts.superevent import Candidate, Superevent
from mma_realtime.gw.units import Seconds
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.conditioning import Whitened
from mma_realtime.search.scores import Scorer, ScorerState
from mma_realtime.search.series import Scores

WHITENING, INFERENCE, COINCIDENCE = "whitening", "inference", "coincidence"
FAR, NOTICE = "false-alarm rate", "notice, written"


class TimedPipeline(AlertPipeline):
    """Attributes:
    took: s, by step, since it was cleared; false-alarm rate and notice only of hops with a trigger.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.took: dict[str, list[Seconds]] = {}
        self._far = self._begun = 0.0
        self._scorer = _TimedScorer(self.engine.scorer)
        self.engine.scorer = self._scorer  # type: ignore[assignment]

    def hop(self, block: Block) -> list[Superevent]:
        self._begun, self._far = time.perf_counter(), 0.0
        self._scorer.entered = self._scorer.left = self._begun
        return super().hop(block)

    def _commit(self, triggers: list[Trigger], scores: bytes | None, end: bool = False) -> list[Superevent]:
        if end:  # no hop: there is nothing to time
            return super()._commit(triggers, scores, end)
        begin = time.perf_counter()
        self._note(WHITENING, self._scorer.entered - self._begun)
        self._note(INFERENCE, self._scorer.left - self._scorer.entered)
        self._note(COINCIDENCE, begin - self._scorer.left)
        told = super()._commit(triggers, scores)
        if triggers:
            self._note(FAR, self._far)
            self._note(NOTICE, time.perf_counter() - begin - self._far)
        return told

    def _candidate(self, trigger: Trigger) -> Candidate:
        begin = time.perf_counter()
        candidate = super()._candidate(trigger)
        self._far += time.perf_counter() - begin
        return candidate

    def _note(self, step: str, seconds: Seconds) -> None:
        self.took.setdefault(step, []).append(max(0.0, seconds))


class _TimedScorer:
    """A scorer that remembers when it was entered and left last."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.entered = self.left = 0.0

    def advance(self, state: ScorerState, new: Whitened) -> tuple[ScorerState, Scores]:
        self.entered = time.perf_counter()
        out = self._scorer.advance(state, new)
        self.left = time.perf_counter()
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)
