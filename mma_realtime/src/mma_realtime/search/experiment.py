"""One stretch of files, searched: what the launcher starts for `python -m mma_realtime.search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from shared.runs.store import write_atomic

from mma_realtime.data.strain_files import SAMPLE_RATE
from mma_realtime.data.strain_parts import check_parts, listed, preferred
from mma_realtime.errors import SearchError
from mma_realtime.search.coincidence import find_triggers
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.report import write_scores
from mma_realtime.search.scores import score_strain
from mma_realtime.search.stretch import FileStretch


def stretch_of(config: dict[str, Any]) -> FileStretch:
    """The strain of a job.

    Raises:
        StrainError: its files overlap, or have a rate that is not taken.
    """
    first, last = config["gps"]
    parts = sorted(preferred(listed(config["files"]), SAMPLE_RATE), key=lambda part: part.gps_start)
    parts = [part for part in parts if first <= part.gps_start and part.gps_end <= last]
    check_parts(parts)
    return FileStretch(parts, tuple(config["detectors"]), first, last)


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str, tier: str) -> dict[str, float]:
    """Write `scores.npz` and `triggers.json` into `run_dir`.

    Args:
        config: `files`, `checkpoint`, `psd` (auto, trailing or file), `threshold` (None: the model's),
            `gps` (range in s of the stretch), `detectors` (that are searched together).

    Returns:
        `triggers`, `livetime` (s) and `loudest` statistic.

    Raises:
        UserError: strain or model that cannot be used.
    """
    torch.set_num_threads(1)
    model = SearchModel.load(config["checkpoint"])
    recipe = model.recipe
    stretch = stretch_of(config)
    try:
        conditioner = stretch.conditioner(model, config["psd"])
    except SearchError as error:
        raise SearchError(stretch.complaint(str(error))) from None
    scores = score_strain(model, stretch.blocks(), conditioner)
    if not scores.valid.all(axis=0).any():
        raise SearchError(stretch.complaint())
    threshold = recipe.threshold if config["threshold"] is None else config["threshold"]
    triggers = find_triggers(
        scores, threshold, time_offset=recipe.time_offset, single_threshold=recipe.single_threshold
    )
    found = {"psd": conditioner.psd, "triggers": [trigger.as_dict() for trigger in triggers]}
    write_scores(run_dir / "scores.npz", scores)
    write_atomic(run_dir / "triggers.json", json.dumps(found))
    loudest = max((trigger.statistic for trigger in triggers), default=threshold)
    return {"triggers": float(len(triggers)), "livetime": scores.livetime, "loudest": loudest}
