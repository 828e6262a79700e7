"""Time slides of networks that look at two detectors together (section 7).

A twin network reads the strain of each detector by itself into embeddings; a slide pairs those of other times. So the
slides are exact, and cost no more than the head. Any other coherent network would have to look at the strain again.
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
from mma_realtime.models import combine_statistics
from mma_realtime.models.twin import TwinDeepFilter
from mma_realtime.search.coincidence import CLUSTER_GAP, clusters
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import HOP, Scores, check_model
from mma_realtime.search.significance import BEYOND_THE_WINDOW, Background, in_hops, slide_shifts, time_slides

AT_ONCE = 4096  # windows


def embedded(
    model: SearchModel, strain: Strain, conditioner: Conditioner, hop: Seconds = HOP
) -> tuple[list[Float32[torch.Tensor, "detector window embedding"]], Bool[np.ndarray, "detector window"], GPS]:
    """Embeddings of every window by each member, which windows are valid, and when the first one ends.

    Raises:
        SearchError: the model's networks have no embeddings, or do not fit strain and conditioner.
    """
    check_model(model, conditioner)
    model.check_detectors(strain.detectors)
    twins = [member for member in model.members if isinstance(member, TwinDeepFilter)]
    if len(twins) < len(model.members) or len(strain.detectors) != 2:
        raise SearchError(
            f"{model.recipe.network} has no embeddings of each detector: its slides would take a new look at the "
            "strain for each; use `twin`, or a network of one detector"
        )
    parts = list(conditioner.whitened(strain))
    values = np.concatenate([part.values for part in parts], axis=1).astype(np.float32)
    valid = np.concatenate([part.valid for part in parts], axis=1)
    rate = model.recipe.sample_rate
    samples, length = round(hop * rate), twins[0].input_length
    first = -parts[0].start % samples  # windows end at multiples of the hop since the strain's start, as in `Scorer`
    first += (-length) % samples
    x = torch.from_numpy(values[:, first:])
    rows = [twin.embeddings(x, samples) for twin in twins]
    starts = first + samples * np.arange(rows[0].shape[1])
    bad = np.cumsum(np.pad(~valid, [(0, 0), (1, 0)]), axis=1)
    whole = bad[:, starts + length] == bad[:, starts]
    return rows, whole, strain.gps_start + (parts[0].start + first + length) / rate


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
    """The background of a twin network; arguments as of `time_slides`."""
    rows, valid, first = embedded(model, strain, conditioner, hop)
    apart = model.window + BEYOND_THE_WINDOW
    step = apart if step is None else step
    if step < apart - 1e-9 and not correlated:
        raise SearchError(
            f"a slide step of {step:g} s is shorter than the window and 1 s ({apart:g} s): use a longer one"
        )
    times = first + hop * np.arange(valid.shape[1])
    for gps in on_source:
        valid = valid & ~((times >= gps - 0.5) & (times <= gps + model.window + 0.5))
    some = np.flatnonzero(valid.any(axis=0))
    if not len(some):
        raise SearchError("no window has a score: the strain is shorter than its gaps and the start of the PSD allow")
    inside = slice(some[0], some[-1] + 1)
    rows, valid = [each[:, inside] for each in rows], valid[:, inside]
    shifts = slide_shifts(
        valid.shape[1], in_hops(step, hop, "the slide step"), math.ceil(apart / hop - 1e-9), max_slides
    )
    if not len(shifts):
        raise SearchError(f"{valid.shape[1] * hop:.1f} s of scores hold no slide: at least {2 * apart:g} s are needed")
    maxima: list[float] = []
    livetimes, loudest = [], -math.inf
    for number, shift in enumerate(shifts.tolist()):
        live = valid[0] & np.roll(valid[1], shift)
        each = []
        for embeddings in rows:
            moved = torch.stack([embeddings[0], embeddings[1].roll(shift, 0)])
            twin = model.members[len(each)]
            assert isinstance(twin, TwinDeepFilter)
            each.append(torch.cat([twin.paired(part) for part in moved.split(AT_ONCE, 1)]))
        series = np.where(live, combine_statistics(torch.stack(each), model.recipe.combine).numpy(), -np.inf)
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
