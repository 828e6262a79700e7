"""From trained networks to a search: from which statistic on there are triggers, and when in a plateau an event is.

Both are measured on twenty minutes of simulated noise with signals that no other measurement uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from mma_realtime.data.challenge import generate
from mma_realtime.errors import SearchError
from mma_realtime.evaluation.distance import base_threshold
from mma_realtime.gw.units import Seconds
from mma_realtime.models import SearchNetwork
from mma_realtime.search.coincidence import find_triggers
from mma_realtime.search.model_file import Recipe, SearchModel
from mma_realtime.search.scores import conditioner_for, score_strain

SEED, DURATION = 70_001, 1200  # of the calibration's set
ONE_PER: Seconds = 100.0  # between two windows of noise above the threshold
NEAR: Seconds = 0.5  # of an injection: its trigger


def calibrated(
    members: Sequence[SearchNetwork],
    network: str,
    size: dict[str, Any],
    sample_rate: int,
    band: tuple[float, float],
    detectors: tuple[str, ...],
    combine: Literal["mean", "min"] = "mean",
    trained_as: str = "",
    duration: int = DURATION,
    near: Seconds = NEAR,
) -> SearchModel:
    """A search of these networks, its threshold and its time offset calibrated.

    Args:
        size: all arguments of `models.build` but the network's name.
        detectors: what it was trained on; of one: it looks at each detector by itself.
        duration: s of the calibration's set.
        near: s around an injection in which its trigger is looked for.

    Raises:
        SearchError: no trigger lies near any injection: when in a plateau an event is cannot be told.
    """
    each: Any = "each" if len(detectors) == 1 else detectors
    recipe = Recipe(network, size, sample_rate, band, each, combine, trained_as=trained_as)
    model = SearchModel(recipe, list(members))
    challenge = generate(duration, SEED)
    noise = score_strain(model, challenge.background, conditioner_for(model).fitted(challenge.background))
    threshold = base_threshold(noise, ONE_PER)
    # The spectrum is that of the noise: so many signals are in no real hour.
    scores = score_strain(model, challenge.foreground, conditioner_for(model).fitted(challenge.background))
    times = np.array([trigger.gps for trigger in find_triggers(scores, threshold)])
    off = [float(d[np.abs(d).argmin()]) for d in (challenge.injections["tc"][:, None] - times)] if len(times) else []
    heard = [d for d in off if abs(d) < near]
    if not heard:
        raise SearchError(
            f"calibration: none of the {len(challenge.injections['tc'])} injections of {duration} s has a trigger "
            f"within {near:g} s, so the time of an event is not known; train longer, or give search.calibration more s"
        )
    offset = float(np.median(heard))
    return SearchModel(dataclasses.replace(recipe, threshold=threshold, time_offset=offset), list(members))


def size_of(network: SearchNetwork, size: dict[str, Any]) -> dict[str, Any]:
    """All arguments of `models.build` for a network like this one."""
    return {**size, "input_length": network.input_length, "channels": network.channels, "outputs": network.outputs}


def parameters(members: Sequence[torch.nn.Module]) -> int:
    """Of all members together."""
    return sum(p.numel() for member in members for p in member.parameters())
