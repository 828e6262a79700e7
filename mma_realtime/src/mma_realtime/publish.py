"""The search that the commands take by themselves: that of one run of a tier, copied beside the tier's results.

An experiment says which: `model.search.publish` is a seed. The file is taken from the run's own folder, so it is there
also where every run was taken from the store and none was made.

E9 and E10 search with the published file, whose content is part of their runs' keys. Where a run has published another
one, they are measured again: what is reported is of the search that stands beside it.
"""

from __future__ import annotations

from pathlib import Path

from shared.claims.results import load_results
from shared.runs.store import write_atomic

FILE = "search_model.pt"


def publish(root: Path, tier: str) -> bool:
    """Copy the asked run's search to `results/<tier>`; where its folder is gone, what stands there stays.

    Args:
        root: of the paper, which holds `runs` and `results`.

    Returns:
        Whether another one stands there now.
    """
    results = root / "results" / tier / "results.json"
    if not results.is_file():
        return False
    changed = False
    for experiment in load_results(results).experiments.values():
        asked = ((experiment.config.get("model") or {}).get("search") or {}).get("publish")
        for run in experiment.runs:
            made = root / "runs" / run.key / FILE
            if run.seed != asked or not made.is_file():
                continue
            published = results.with_name(FILE)
            if not published.is_file() or published.read_bytes() != made.read_bytes():
                write_atomic(published, made.read_bytes())
                changed = True
    return changed
