"""What the commands print and write: triggers with their false-alarm rates, and what these rest on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from shared.runs.store import write_atomic

from mma_realtime.data.strain import Strain
from mma_realtime.errors import NoSlideError, SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.coherent import CoherentStretch
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.model_file import DEFAULT, SearchModel
from mma_realtime.search.series import Scores
from mma_realtime.search.significance import (
    Background,
    FalseAlarmRate,
    duration_text,
    short_step,
    time_slides,
    together,
)
from mma_realtime.times import utc_iso

MOST_SUMS = 2e9  # hops times slides: some seconds of one core
MOST_EXCLUSIVE = 16  # triggers, the loudest, whose own windows are taken out of a background of their own
WIDE = 100  # characters, of a terminal that has room for all columns
SIGNIFICANT = 0.1  # the largest p of a signal whose windows are no noise to fainter triggers


@dataclass(frozen=True)
class Judged:
    """A trigger and how often chance does as well.

    Args:
        far: from slides without the trigger's own windows, and those of louder signals. inclusive: from all windows.
        independent: as `far`, its bound from independent slides alone.
        p: chance of one false alarm as loud in the time searched, by `independent`.
    """

    trigger: Trigger
    far: FalseAlarmRate | None
    inclusive: FalseAlarmRate | None
    independent: FalseAlarmRate | None
    p: float | None

    def as_dict(self) -> dict[str, Any]:
        rates = {"far": self.far, "far_inclusive": self.inclusive, "far_independent": self.independent}
        return self.trigger.as_dict() | {
            "utc": utc_iso(self.trigger.gps),
            **{f"{name}_hz": each and each.value_hz for name, each in rates.items()},
            **{f"{name}_is_upper_limit": each and each.upper_limit for name, each in rates.items()},
            "p_value": self.p,
        }


@dataclass(frozen=True)
class Slider:
    """How a background is made of stretches of scores.

    Args:
        step: s; None: as short as 2,000 s of slid livetime need (`short_step`).
        min_shift: s; None: the window and 1 s.
        max_slides: of each stretch; None: as many as take some seconds.
        threshold, single_threshold: as of the triggers.
        correlated: allow a `step` shorter than the window and 1 s.
    """

    threshold: float
    single_threshold: float = -math.inf
    step: Seconds | None = None
    min_shift: Seconds | None = None
    max_slides: int | None = None
    correlated: bool = False

    def background(self, stretches: Sequence[Scores | CoherentStretch], on_source: Sequence[GPS] = ()) -> Background:
        """Of those stretches that are long enough for a slide.

        Raises:
            SearchError: none is; see `time_slides`.
        """
        out, why = [], NoSlideError("there is no strain to slide")
        for each in stretches:
            try:
                out.append(self._of(each, on_source))
            except NoSlideError as error:
                why = error
        if not out:
            raise why
        return together(out)

    def _of(self, stretch: Scores | CoherentStretch, on_source: Sequence[GPS]) -> Background:
        correlated = self.correlated or self.step is None
        if isinstance(stretch, CoherentStretch):
            most = self.max_slides or stretch.most_slides
            step = short_step(stretch.scores, max_slides=most) if self.step is None else self.step
            return stretch.background(step, self.min_shift, most, on_source, self.threshold, correlated)
        step = short_step(stretch) if self.step is None else self.step
        most = self.max_slides or max(1, int(MOST_SUMS / max(1, stretch.values.shape[1])))
        return time_slides(
            stretch, step, self.min_shift, most, on_source, threshold=self.threshold,
            single_threshold=self.single_threshold, correlated=correlated,
        )  # fmt: skip

    def limit_text(self, stretches: Sequence[Scores | CoherentStretch]) -> str:
        """Of networks that look again in every slide: how many slides of a stretch are made at most; else nothing."""
        most = [each.most_slides for each in stretches if isinstance(each, CoherentStretch)]
        if not most or self.max_slides:
            return ""
        return (
            f"networks that see both detectors look again in every slide: at most {min(most):,} slides of a stretch, "
            "for more, python -m mma_realtime.slides --max-slides"
        )


def slidable(
    model: SearchModel,
    scores: Scores,
    load: Callable[[], tuple[Strain, Conditioner]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores | CoherentStretch:
    """What is slid: scores of each detector, or the strain again where networks look at the detectors together."""
    return CoherentStretch(model, scores, load, progress) if model.coherent else scores


def judged(
    triggers: Sequence[Trigger], stretches: Sequence[Scores | CoherentStretch], slider: Slider
) -> tuple[list[Judged], Background | None, str]:
    """Triggers with their rates, the background of all windows, and, where there is none, why.

    From the loudest down: a trigger's background leaves out its own windows and those of all louder signals, which are
    triggers above all of their own background with p at most `SIGNIFICANT`. Others are noise, and stay.
    """
    livetime = sum(scores.livetime for scores in stretches)
    try:
        everything = slider.background(stretches)
    except SearchError as error:
        return [Judged(trigger, None, None, None, None) for trigger in triggers], None, str(error)
    signals: list[GPS] = []
    found: dict[int, Judged] = {}
    loudest_first = sorted(range(len(triggers)), key=lambda i: -triggers[i].statistic)
    own = everything
    for number, i in enumerate(loudest_first):
        trigger = triggers[i]
        if number < MOST_EXCLUSIVE:
            own = slider.background(stretches, [*signals, trigger.gps])
        elif number == MOST_EXCLUSIVE and signals:
            own = slider.background(stretches, signals)
        elif number == MOST_EXCLUSIVE:
            own = everything
        far, independent = own.far(trigger.statistic), own.independent_far(trigger.statistic)
        p = independent.p_value(livetime)
        found[i] = Judged(trigger, far, everything.far(trigger.statistic), independent, p)
        if far.upper_limit and p <= SIGNIFICANT and number < MOST_EXCLUSIVE:
            signals.append(trigger.gps)
    return [found[i] for i in range(len(triggers))], everything, ""


def trigger_table(rows: Sequence[Judged], detectors: tuple[str, ...], width: int = WIDE) -> Table:
    """GPS and UTC, statistic, per detector, false-alarm rate, the rate that p uses (`Judged.independent`), and p.

    Args:
        width: characters of the terminal; UTC is left out below `WIDE`, where p would not fit.
    """
    table = Table(box=None, pad_edge=False)
    per_row = len(rows[0].trigger.per_detector) if rows else len(detectors)
    names = detectors if per_row == len(detectors) else ("+".join(detectors),)
    table.add_column("GPS (s)", no_wrap=True)
    if width >= WIDE:
        table.add_column("UTC", no_wrap=True)
    for name in ("statistic", *names, "event", "false alarms", "for p", "p"):
        table.add_column(name, justify="right", no_wrap=name not in ("false alarms", "for p"))
    for each in rows:
        trigger = each.trigger
        utc = [utc_iso(trigger.gps).replace("T", " ").removesuffix("Z")] if width >= WIDE else []
        table.add_row(
            f"{trigger.gps:.3f}", *utc, f"{trigger.statistic:.2f}", *(f"{value:.2f}" for value in trigger.per_detector),
            f"{trigger.event}.{trigger.version}", str(each.far or "-"), str(each.independent or "-"),
            "-" if each.p is None else f"{each.p:.2g}",
        )  # fmt: skip
    return table


def background_text(background: Background | None, why: str) -> str:
    """What the rates rest on, in a sentence."""
    if background is None:
        return f"no false-alarm rates: {why}"
    text = (
        f"background: {background.n_slides:,} slides of the same strain, {background.step:g} s apart, "
        f"{background.livetime_s:,.0f} s; rates below 1 per {duration_text(background.livetime_s)} are bounds (<)"
    )
    if background.correlated:
        text += (
            f"; slides so close pair nearly the same windows: only {background.independent_livetime_s:,.0f} s of it "
            f"are independent, and bound rates at 1 per {duration_text(background.independent_livetime_s)}; "
            "p uses these"
        )
    else:
        text += "; all are independent, and p uses these rates"
    return text


def background_dict(background: Background | None, why: str = "") -> dict[str, Any]:
    if background is None:
        return {"missing": why}
    return {
        "slides": background.n_slides,
        "step_s": background.step,
        "livetime_s": background.livetime_s,
        "independent_livetime_s": background.independent_livetime_s,
        "p_value_from": "far_independent_hz",
        "correlated": background.correlated,
        "threshold": background.threshold,
        "loudest": background.loudest if math.isfinite(background.loudest) else None,
        "clusters": len(background.statistics),
    }


def model_dict(model: SearchModel) -> dict[str, Any]:
    recipe = model.recipe
    return {
        "path": str(model.path) if model.path else None,
        "sha256": model.checksum,
        "network": recipe.network,
        "members": len(model.members),
        "combine": recipe.combine,
        "sample_rate": recipe.sample_rate,
        "band": list(recipe.band),
        "trained_as": recipe.trained_as,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def load_model(path: Path | None) -> SearchModel:
    """The model a command was given, or the one that the cpu tier left."""
    return SearchModel.load(DEFAULT if path is None else path)


def progress_bar(**settings: Any) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}"),
    )
    return Progress(*columns, **settings)


def write_scores(path: Path, scores: Scores) -> None:
    """Scores as an .npz, for slides of several stretches together."""
    from io import BytesIO

    buffer = BytesIO()
    head = np.array([scores.gps_start, scores.hop, scores.window])
    np.savez(buffer, head=head, detectors=np.array(scores.detectors), values=scores.values, valid=scores.valid)
    write_atomic(path, buffer.getvalue())


def read_scores(path: Path) -> Scores:
    with np.load(path, allow_pickle=False) as found:
        gps_start, hop, window = found["head"].tolist()
        detectors = tuple(found["detectors"].tolist())
        return Scores(detectors, gps_start, hop, found["values"], found["valid"], window)
