"""One stretch of files, searched: what the launcher starts for `python -m mma_realtime.search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from shared.runs.store import write_atomic

from mma_realtime.data.strain import read_strain
from mma_realtime.search.coincidence import find_triggers
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.report import write_scores
from mma_realtime.search.scores import check_scored, conditioner_for, informed, score_strain


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str, tier: str) -> dict[str, float]:
    """Write `scores.npz` and `triggers.json` into `run_dir`.

    Args:
        config: `files`, `checkpoint`, `psd` (auto, trailing or file), `threshold` (None: the model's),
            `gps` (range in s of the stretch).

    Returns:
        `triggers`, `livetime` (s) and `loudest` statistic.

    Raises:
        UserError: strain or model that cannot be used.
    """
    torch.set_num_threads(1)
    model = SearchModel.load(config["checkpoint"])
    recipe = model.recipe
    strain = read_strain(*config["files"], partial=True, gps=tuple(config["gps"]))
    conditioner = informed(conditioner_for(model, strain.sample_rate), strain, config["psd"])
    scores = score_strain(model, strain, conditioner)
    check_scored(scores, strain)
    threshold = recipe.threshold if config["threshold"] is None else config["threshold"]
    triggers = find_triggers(
        scores, threshold, time_offset=recipe.time_offset, single_threshold=recipe.single_threshold
    )
    found = {"psd": conditioner.psd, "triggers": [trigger.as_dict() for trigger in triggers]}
    write_scores(run_dir / "scores.npz", scores)
    write_atomic(run_dir / "triggers.json", json.dumps(found))
    loudest = max((trigger.statistic for trigger in triggers), default=threshold)
    return {"triggers": float(len(triggers)), "livetime": scores.livetime, "loudest": loudest}
