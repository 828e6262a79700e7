"""The pictures of a tier."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from shared.claims.results import Results
from shared.figures import COLOURS, Figure, finish, use_house_style


def draw(results: Results, folder: Path) -> list[Figure]:
    """Test error of every experiment, one dot a seed."""
    if not results.experiments:
        return []
    use_house_style()
    figure, axes = plt.subplots(figsize=(3.6, 2.8))
    for place, experiment in enumerate(results.experiments.values()):
        errors = [run.metrics["test/error"] for run in experiment.runs]
        axes.plot([place] * len(errors), errors, "o", color=COLOURS["ours"], markersize=4)
    axes.set_xticks(range(len(results.experiments)), [e.title for e in results.experiments.values()])
    axes.set(ylabel="test error (%)", xlim=(-0.5, len(results.experiments) - 0.5))
    caption = "Test error with and without dropout, one dot a seed."
    return [finish(figure, folder, "errors.svg", caption, "Test errors by variant")]
