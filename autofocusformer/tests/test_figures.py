"""Pictures of tiers that have not run here, drawn on the numbers of those that have."""

from __future__ import annotations

from pathlib import Path

from autofocusformer.figures import draw
from shared.claims.results import load_results

HERE = Path(__file__).parent.parent


def test_trainings_on_camvid_have_pictures(tmp_path: Path) -> None:
    """The gpu tier's names, on the numbers of the cpu tier's trainings."""
    results = load_results(HERE / "results" / "cpu" / "results.json")
    modes = {"camvid_adaptive": "shapes_adaptive", "camvid_grid": "shapes_grid", "camvid_windows": "shapes_random"}
    streets = results.model_copy(update={"experiments": {a: results.experiments[b] for a, b in modes.items()}})
    assert [figure.file for figure in draw(streets, tmp_path)] == ["training_camvid.svg", "trained_camvid.svg"]
