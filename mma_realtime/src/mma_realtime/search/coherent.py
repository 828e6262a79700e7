"""Time slides of networks that look at two detectors together (section 7).

A twin network reads the strain of each detector by itself into embeddings; a slide pairs those of other times. So the
slides are exact, and cost no more than the head. Any other coherent network looks at the strain again in every slide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float32

from mma_realtime.data.strain import Strain
from mma_realtime.errors import NoSlideError, SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.models import combine_statistics
from mma_realtime.models.twin import TwinDeepFilter
from mma_realtime.search.coincidence import CLUSTER_GAP, clusters
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import HOP, Scores, check_model, windows_of
from mma_realtime.search.significance import (
    BEYOND_THE_WINDOW,
    Background,
    check_apart,
    in_hops,
    slide_shifts,
    time_slides,
)

AT_ONCE = 4096  # windows
# Over all slides of a stretch. A twin looks at a window in 0.3 us of a core (its parts look once), a ResNet in 30 ms.
TWIN_WINDOWS, OTHER_WINDOWS, LARGE_WINDOWS = 20_000_000, 60_000, 4_000
LARGE = 1_000_000  # parameters
Slid = Callable[[int], Float32[torch.Tensor, " window"]]


@torch.no_grad()
def slid_statistics(
    model: SearchModel, strain: Strain, conditioner: Conditioner, hop: Seconds = HOP
) -> tuple[Slid, Bool[np.ndarray, "detector window"], GPS]:
    """The statistic of every window when the second detector is late by so many hops (round the stretch).

    Returns:
        the function, which windows of each detector are valid, and the GPS s at which the first one ends. A twin's
        embeddings are made once; any other network looks at the strain again for each shift.

    Raises:
        SearchError: not two detectors, or model, strain and conditioner do not fit.
    """
    check_model(model, conditioner)
    model.check_detectors(strain.detectors)
    if len(strain.detectors) != 2:
        raise SearchError(f"time slides are of two detectors, {len(strain.detectors)} given")
    length, samples = model.members[0].input_length, round(hop * model.recipe.sample_rate)
    values, starts, whole, ends = windows_of(strain, conditioner, length, samples)
    some = np.flatnonzero(whole.any(axis=0))
    if not len(some):
        raise NoSlideError("no window has a score: the strain is shorter than its gaps and the start of the PSD allow")
    starts, whole = starts[some[0] : some[-1] + 1], whole[:, some[0] : some[-1] + 1]
    x, first = torch.from_numpy(values[:, starts[0] : starts[-1] + length]), float(ends[some[0]])
    twins = [member for member in model.members if isinstance(member, TwinDeepFilter)]
    if len(twins) == len(model.members):
        rows = [twin.embeddings(x, samples) for twin in twins]

        def of_twins(shift: int) -> Float32[torch.Tensor, " window"]:
            each = []
            for twin, (one, other) in zip(twins, rows, strict=True):
                moved = torch.stack([one, other.roll(shift, 0)])
                each.append(torch.cat([twin.paired(part) for part in moved.split(AT_ONCE, 1)]))
            return combine_statistics(torch.stack(each), model.recipe.combine)

        return of_twins, whole, first

    windows = x.unfold(-1, length, samples)  # [2, K, L]: a slide pairs other windows, none runs across the ends

    def looked_again(shift: int) -> Float32[torch.Tensor, " window"]:
        late = torch.stack([windows[0], windows[1].roll(shift, 0)], 1)  # [K, 2, L]
        each = [torch.cat([member.statistic(part) for part in late.split(256)]) for member in model.members]
        return combine_statistics(torch.stack(each), model.recipe.combine)

    return looked_again, whole, first


@torch.no_grad()
def coherent_backgrounds(
    model: SearchModel,
    strain: Strain,
    conditioner: Conditioner,
    step: Seconds | None = None,
    max_slides: int | None = None,
    on_sources: Sequence[Sequence[GPS]] = ((),),
    threshold: float = 0.0,
    correlated: bool = False,
    hop: Seconds = HOP,
    progress: Callable[[int, int], None] = lambda done, total: None,
    min_shift: Seconds | None = None,
) -> list[Background]:
    """Backgrounds of a network that looks at two detectors together, one for each of `on_sources`.

    The networks look once, whatever is taken out. Arguments as of `time_slides`.
    """
    return backgrounds_of(
        slid_statistics(model, strain, conditioner, hop), model.window, step, max_slides, on_sources, threshold,
        correlated, hop, progress, min_shift,
    )  # fmt: skip


def backgrounds_of(
    slid: tuple[Slid, Bool[np.ndarray, "detector window"], GPS],
    window: Seconds,
    step: Seconds | None,
    max_slides: int | None,
    on_sources: Sequence[Sequence[GPS]],
    threshold: float,
    correlated: bool,
    hop: Seconds,
    progress: Callable[[int, int], None],
    min_shift: Seconds | None,
) -> list[Background]:
    """Of what `slid_statistics` gave; arguments as of `coherent_backgrounds`."""
    statistic, valid, first = slid
    apart = window + BEYOND_THE_WINDOW
    step = apart if step is None else step
    least = apart if min_shift is None else min_shift
    check_apart(step, least, apart, correlated)
    times = first + hop * np.arange(valid.shape[1])
    lives = [valid.copy() for _ in on_sources]
    for live, on_source in zip(lives, on_sources, strict=True):
        for gps in on_source:
            live[:, (times >= gps - 0.5) & (times <= gps + window + 0.5)] = False
    shifts = slide_shifts(
        valid.shape[1], in_hops(step, hop, "the slide step"), math.ceil(least / hop - 1e-9), max_slides
    )
    if not len(shifts):
        raise NoSlideError(f"{valid.shape[1] * hop:.1f} s of scores hold no slide: at least {2 * least:g} s are needed")
    maxima: list[list[float]] = [[] for _ in lives]
    livetimes: list[list[float]] = [[] for _ in lives]
    loudest = [-math.inf for _ in lives]
    for number, shift in enumerate(shifts.tolist()):
        found = statistic(shift).numpy()
        for i, live in enumerate(lives):
            both = live[0] & np.roll(live[1], shift)
            series = np.where(both, found, -np.inf)
            maxima[i] += [float(series[a : b + 1].max()) for a, b in clusters(series, hop, threshold, CLUSTER_GAP)]
            livetimes[i].append(float(both.sum()) * hop)
            loudest[i] = max(loudest[i], float(series.max(initial=-math.inf)))
        progress(number + 1, len(shifts))
    if not all(map(sum, livetimes)):
        raise NoSlideError("the detectors never overlap in any slide: there is no livetime to count in")
    each = math.ceil(apart / step - 1e-9)
    return [
        Background(np.sort(np.array(m)), sum(live), sum(live[::each]), len(shifts), step, threshold, most)
        for m, live, most in zip(maxima, livetimes, loudest, strict=True)
    ]


def coherent_slides(
    model: SearchModel,
    strain: Strain,
    conditioner: Conditioner,
    step: Seconds | None = None,
    max_slides: int | None = None,
    on_source: Sequence[GPS] = (),
    threshold: float = 0.0,
    correlated: bool = False,
    hop: Seconds = HOP,
    progress: Callable[[int, int], None] = lambda done, total: None,
    min_shift: Seconds | None = None,
) -> Background:
    """One background of a network that looks at two detectors together; arguments as of `time_slides`."""
    return coherent_backgrounds(
        model, strain, conditioner, step, max_slides, [on_source], threshold, correlated, hop, progress, min_shift
    )[0]


def slides_of(
    model: SearchModel,
    strain: Strain,
    conditioner: Conditioner,
    scores: Scores,
    step: Seconds | None = None,
    max_slides: int | None = None,
    on_source: Sequence[GPS] = (),
    threshold: float = 0.0,
    correlated: bool = False,
    min_shift: Seconds | None = None,
) -> Background:
    """The background of a stretch by whichever slides the networks allow; arguments as of `time_slides`."""
    if model.coherent:
        return coherent_slides(
            model, strain, conditioner, step, max_slides, on_source, threshold, correlated, scores.hop,
            min_shift=min_shift,
        )  # fmt: skip
    return time_slides(
        scores, step, min_shift, max_slides, on_source, threshold=threshold, correlated=correlated,
        single_threshold=model.recipe.single_threshold,
    )  # fmt: skip


@dataclass
class CoherentStretch:
    """A stretch that networks looked at two detectors of together, to be slid.

    The networks look at each slide once; what they found is kept, for backgrounds with other windows taken out.

    Args:
        model: networks.
        scores: of the search.
        load: reads the strain again, and the conditioner that the scores were made with.
        progress: told how many slides are done, of how many.
    """

    model: SearchModel
    scores: Scores
    load: Callable[[], tuple[Strain, Conditioner]]
    progress: Callable[[int, int], None] = lambda done, total: None
    _kept: tuple[Slid, Bool[np.ndarray, "detector window"], GPS] | None = field(default=None, init=False)

    @property
    def livetime(self) -> Seconds:
        return self.scores.livetime

    @property
    def most_slides(self) -> int:
        """As many as `TWIN_WINDOWS`, `OTHER_WINDOWS` or `LARGE_WINDOWS` allow."""
        twins = all(isinstance(member, TwinDeepFilter) for member in self.model.members)
        large = sum(p.numel() for member in self.model.members for p in member.parameters()) > LARGE
        windows = TWIN_WINDOWS if twins else LARGE_WINDOWS if large else OTHER_WINDOWS
        return max(1, windows // max(1, self.scores.values.shape[1] * len(self.model.members)))

    def background(
        self,
        step: Seconds,
        min_shift: Seconds | None,
        max_slides: int | None,
        on_source: Sequence[GPS],
        threshold: float,
        correlated: bool,
    ) -> Background:
        """Arguments as of `time_slides`; the same step and number of slides in every call."""
        settings = (threshold, correlated, self.scores.hop, self.progress, min_shift)
        if self._kept is not None:
            return backgrounds_of(self._kept, self.model.window, step, max_slides, [on_source], *settings)[0]
        statistic, valid, first = slid_statistics(self.model, *self.load(), self.scores.hop)
        kept: dict[int, torch.Tensor] = {}

        def keep(shift: int) -> torch.Tensor:
            kept[shift] = statistic(shift)
            return kept[shift]

        with torch.no_grad():
            out = backgrounds_of(
                (keep, valid, first), self.model.window, step, max_slides, [on_source], *settings
            )[0]  # fmt: skip
        self._kept = (kept.__getitem__, valid, first)
        return out
