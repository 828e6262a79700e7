"""How sure a trigger is while the strain is still coming: time slides of the scores so far (section 7).

The background is made anew about every minute of strain, from the last hour: a pure function of the scores, so a search
that was killed and goes on gives the same rates. Before a slide fits, the rate is bounded by what zero lag has shown.
Earlier loud events stay in the background, which makes rates larger, never smaller.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from typing import Any

import numpy as np

from mma_realtime.errors import AlertError, SearchError
from mma_realtime.search.coincidence import CLUSTER_GAP, clusters, combine
from mma_realtime.search.report import Slider
from mma_realtime.search.series import Scores, joined
from mma_realtime.search.significance import Background, FalseAlarmRate

REFRESH, MEMORY = 64, 3600  # parts of the scores, one a hop
log = logging.getLogger(__name__)


class SlidRanker:
    """Args:
        slider: how slides are made; its threshold is the triggers'.
        refresh: parts of scores from one background to the next.
        memory: parts that a background is made of.

    Attributes:
        number: parts taken so far.
        background: the latest; None: no slide fits yet.
    """

    def __init__(self, slider: Slider, refresh: int = REFRESH, memory: int = MEMORY) -> None:
        self.slider, self.refresh, self.memory = slider, refresh, memory
        self.parts: list[tuple[int, Scores]] = []
        self.background: Background | None = None
        self.number = 0

    @property
    def keep(self) -> int:
        """Parts from which a search that goes on makes the same background again."""
        return self.memory + self.refresh

    def take(self, scores: Scores) -> None:
        """The next part."""
        self.number += 1
        self.parts = [*self.parts[-self.keep + 1 :], (self.number, scores)]

    def slide_when_due(self) -> None:
        """A new background, where so many parts have come since the last: after a part's triggers have been told."""
        if self.number % self.refresh == 0:
            self._slide()

    def restore(self, parts: list[tuple[int, Scores]]) -> None:
        """As it was when the last of these parts had been taken."""
        self.parts = list(parts)
        self.number = parts[-1][0] if parts else 0
        self._slide()

    def _slide(self) -> None:
        last = self.number - self.number % self.refresh
        used = [scores for number, scores in self.parts if last - self.memory < number <= last]
        self.background = None
        if used:
            try:
                self.background = self.slider.background([joined(used)])
            except SearchError as error:
                log.info("no background yet: %s", error)

    def far(self, statistic: float) -> FalseAlarmRate:
        """Of a trigger in the scores taken so far.

        Raises:
            SearchError: the statistic is no number, or below the threshold.
        """
        if self.background is not None:
            return self.background.far(statistic)
        scores = joined([scores for _, scores in self.parts])
        series = combine(scores, self.slider.single_threshold)
        as_loud = len(clusters(series, scores.hop, np.nextafter(statistic, -np.inf), CLUSTER_GAP))
        # Each of these may be chance, the trigger too: more than that zero lag does not say.
        return FalseAlarmRate(max(1, as_loud) / max(scores.livetime, scores.hop), True)


def pack(scores: Scores) -> bytes:
    """Scores as bytes."""
    head = [list(scores.detectors), scores.gps_start, scores.hop, scores.window]
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
    np.savez(buffer, **arrays, values=scores.values, valid=scores.valid)
    return buffer.getvalue()


def unpack(content: bytes) -> Scores:
    """Raises:
    AlertError: they are no scores.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            detectors, gps_start, hop, window = json.loads(found["head"].tobytes())
            return Scores(tuple(detectors), gps_start, hop, found["values"], found["valid"], window)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        raise AlertError("the store's scores are damaged: restore it from a copy, or begin a new file") from None
