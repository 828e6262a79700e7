"""Time slides of networks that look at two detectors together (section 7).

A twin network reads the strain of each detector by itself into embeddings; a slide pairs those of other times. So the
slides are exact, and cost no more than the head. Any other coherent network looks at the strain again in every slide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32

from mma_realtime.data.strain import Strain
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.models import combine_statistics, count_windows
from mma_realtime.models.twin import TwinDeepFilter
from mma_realtime.search.coincidence import CLUSTER_GAP, clusters
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import HOP, Scores, check_model
from mma_realtime.search.significance import BEYOND_THE_WINDOW, Background, in_hops, slide_shifts, time_slides

AT_ONCE = 4096  # windows
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
    parts = list(conditioner.whitened(strain))
    values = np.concatenate([part.values for part in parts], axis=1).astype(np.float32)
    valid = np.concatenate([part.valid for part in parts], axis=1)
    rate, length = model.recipe.sample_rate, model.members[0].input_length
    samples = round(hop * rate)
    first = (-parts[0].start - length) % samples  # windows end at multiples of the hop, as in `Scorer`
    starts = first + samples * np.arange(count_windows(values.shape[1] - first, length, samples))
    bad = np.cumsum(np.pad(~valid, [(0, 0), (1, 0)]), axis=1)
    whole = bad[:, starts + length] == bad[:, starts]
    some = np.flatnonzero(whole.any(axis=0))
    if not len(some):
        raise SearchError("no window has a score: the strain is shorter than its gaps and the start of the PSD allow")
    starts, whole = starts[some[0] : some[-1] + 1], whole[:, some[0] : some[-1] + 1]
    x = torch.from_numpy(values[:, starts[0] : starts[-1] + length])
    ends = strain.gps_start + (parts[0].start + int(starts[0]) + length) / rate
    twins = [member for member in model.members if isinstance(member, TwinDeepFilter)]
    if len(twins) == len(model.members):
        rows = [twin.embeddings(x, samples) for twin in twins]

        def of_twins(shift: int) -> Float32[torch.Tensor, " window"]:
            each = []
            for twin, (one, other) in zip(twins, rows, strict=True):
                moved = torch.stack([one, other.roll(shift, 0)])
                each.append(torch.cat([twin.paired(part) for part in moved.split(AT_ONCE, 1)]))
            return combine_statistics(torch.stack(each), model.recipe.combine)

        return of_twins, whole, ends

    windows = x.unfold(-1, length, samples)  # [2, K, L]: a slide pairs other windows, none runs across the ends

    def looked_again(shift: int) -> Float32[torch.Tensor, " window"]:
        late = torch.stack([windows[0], windows[1].roll(shift, 0)], 1)  # [K, 2, L]
        each = [torch.cat([member.statistic(part) for part in late.split(256)]) for member in model.members]
        return combine_statistics(torch.stack(each), model.recipe.combine)

    return looked_again, whole, ends


@torch.no_grad()
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
) -> Background:
    """The background of a network that looks at two detectors together; arguments as of `time_slides`."""
    statistic, valid, first = slid_statistics(model, strain, conditioner, hop)
    apart = model.window + BEYOND_THE_WINDOW
    step = apart if step is None else step
    if step < apart - 1e-9 and not correlated:
        raise SearchError(
            f"a slide step of {step:g} s is shorter than the window and 1 s ({apart:g} s): use a longer one"
        )
    times = first + hop * np.arange(valid.shape[1])
    for gps in on_source:
        valid = valid & ~((times >= gps - 0.5) & (times <= gps + model.window + 0.5))
    shifts = slide_shifts(
        valid.shape[1], in_hops(step, hop, "the slide step"), math.ceil(apart / hop - 1e-9), max_slides
    )
    if not len(shifts):
        raise SearchError(f"{valid.shape[1] * hop:.1f} s of scores hold no slide: at least {2 * apart:g} s are needed")
    maxima: list[float] = []
    livetimes, loudest = [], -math.inf
    for number, shift in enumerate(shifts.tolist()):
        live = valid[0] & np.roll(valid[1], shift)
        series = np.where(live, statistic(shift).numpy(), -np.inf)
        maxima += [float(series[a : b + 1].max()) for a, b in clusters(series, hop, threshold, CLUSTER_GAP)]
        livetimes.append(float(live.sum()) * hop)
        loudest = max(loudest, float(series.max(initial=-math.inf)))
        progress(number + 1, len(shifts))
    if not sum(livetimes):
        raise SearchError("the detectors never overlap in any slide: there is no livetime to count in")
    independent = livetimes[:: math.ceil(apart / step - 1e-9)]
    return Background(
        np.sort(np.array(maxima)), sum(livetimes), sum(independent), len(shifts), step, threshold, loudest
    )


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
) -> Background:
    """The background of a stretch by whichever slides the networks allow; arguments as of `time_slides`."""
    if model.coherent:
        return coherent_slides(
            model, strain, conditioner, step, max_slides, on_source, threshold, correlated, scores.hop
        )
    return time_slides(
        scores, step, None, max_slides, on_source, threshold=threshold, correlated=correlated,
        single_threshold=model.recipe.single_threshold,
    )  # fmt: skip
