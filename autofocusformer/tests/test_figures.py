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
    files = ["training_camvid.svg", "trained_camvid.svg", "importance_camvid.svg"]
    assert [figure.file for figure in draw(streets, tmp_path)] == files


def test_the_learned_importance_is_a_map_for_each_seed(tmp_path: Path) -> None:
    results = load_results(HERE / "results" / "cpu" / "results.json")
    shapes = results.experiments["shapes_adaptive"].model_copy(deep=True)
    for run in shapes.runs:
        for name in [name for name in run.curves if name.startswith("picture/")]:
            del run.curves[name]
    bare = results.model_copy(update={"experiments": {"shapes_adaptive": shapes}})
    assert "importance_shapes.svg" not in [figure.file for figure in draw(bare, tmp_path)]
    for run in shapes.runs:
        run.curves["picture/canvas"] = [16.0, 16.0]
        run.curves["picture/importance"] = [i / 256 for i in range(256)]
        run.curves["picture/kept"] = [0.0, 0.0, 15.0, 3.0]
    assert "importance_shapes.svg" in [figure.file for figure in draw(bare, tmp_path)]
    drawn = (tmp_path / "importance_shapes.svg").read_text()
    for text in ("seed 10", "seed 12", "importance s", "first test image"):
        assert text in drawn
