"""The two pictures of the README and the report: information flow (figure 2) and entropy over the epochs."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from shared.claims.results import ExperimentResult, Results
from shared.figures import COLOURS, Figure, finish, use_house_style

# tier -> experiments at theta = width: for the flow, and with curves over the epochs
FLOW = {
    "quick": ("digits_ff_1", "digits_all_1"),
    "cpu": ("long_ff_1", "long_all_1"),
    "gpu": ("mnist_full_sweep_ff_1", "mnist_full_sweep_all_1"),
}
CURVES = {"quick": FLOW["quick"], "cpu": ("curve_ff", "curve_all"), "gpu": FLOW["gpu"]}
SWEEP = {
    "quick": ("digits", ("0.1", "0.3", "1")),
    "cpu": ("short", ("0.1", "0.3", "1", "3")),
    "gpu": ("mnist_full_sweep", ("0.1", "0.3", "1", "3")),
}
STYLE = {
    "FF": {"color": COLOURS["baseline"], "linestyle": "--", "marker": "s"},
    "collaborative": {"color": COLOURS["ours"], "linestyle": "-", "marker": "o"},
}


def values(experiment: ExperimentResult, metric: str) -> np.ndarray:
    return np.array([run.metrics[metric] for run in experiment.runs])


def band(axes: plt.Axes, x: list[float], runs: np.ndarray, label: str) -> None:
    """Mean over seeds with a band of one standard deviation; `runs` is [seeds, points]."""
    mean, spread = runs.mean(0), runs.std(0, ddof=1) if len(runs) > 1 else 0 * runs[0]
    style = STYLE[label]
    axes.plot(x, mean, label=label, markersize=4 if len(x) < 8 else 0, **style)  # type: ignore[arg-type]
    axes.fill_between(x, mean - spread, mean + spread, color=style["color"], alpha=0.2, linewidth=0)


def information_flow(results: Results, folder: Path) -> Figure:
    """Error of each layer alone and of the prefix sums, FF against collaborative FF (figure 2)."""
    figure, (alone, prefix) = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True)
    for name, label in zip(FLOW[results.tier], STYLE):
        experiment = results.experiments[name]
        k = sum(metric.startswith("test/error_layer") for metric in experiment.runs[0].metrics)
        for axes, part in ((alone, "layer"), (prefix, "prefix")):
            band(
                axes,
                list(range(1, k + 1)),
                np.stack([values(experiment, f"test/error_{part}{i + 1}") for i in range(k)], 1),
                label,
            )
            axes.set_xticks(range(1, k + 1))
    alone.set(xlabel="layer, alone", ylabel="test error (%)")
    prefix.set(xlabel="sum of layers 1 to ...")
    alone.set_ylim(bottom=0)
    prefix.legend(frameon=False)
    return finish(
        figure, folder, "information_flow.svg",
        "In FF the first layer alone already has the error of the whole net; in collaborative FF single layers "
        "are worse and every added layer lowers the error (theta = width, mean over seeds, band: one s.d.).",
        "Test error of each layer alone, and of sums of layers, for FF and collaborative FF",
    )  # fmt: skip


def entropy_over_epochs(results: Results, folder: Path) -> Figure:
    """Scale-free functional entropy of the goodness of positives and of negatives (section 2.7)."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True)
    for name, label in zip(CURVES[results.tier], STYLE):
        runs = results.experiments[name].runs
        for ax, sign in zip(axes, ("positive", "negative")):
            split = "val" if f"curve/val/entropy_{sign}_scale_free" in runs[0].curves else "test"
            curves = np.array([run.curves[f"curve/{split}/entropy_{sign}_scale_free"] for run in runs])
            band(ax, list(range(1, curves.shape[1] + 1)), curves, label)
            ax.set(xlabel="epoch", title=f"{sign} pairs", yscale="log")
    axes[0].set_ylabel("entropy of goodness / mean")
    axes[0].legend(frameon=False)
    return finish(
        figure, folder, "entropy.svg",
        "How unevenly goodness is spread over samples and layers, for pairs with the true and with a wrong label "
        "(scale-free functional entropy, theta = width, mean over seeds, band: one standard deviation).",
        "Scale-free entropy of the goodness against epochs, for positive and negative pairs",
    )  # fmt: skip


def threshold_sweep(results: Results, folder: Path) -> Figure:
    """Test error against theta / width at a fixed budget, simultaneous updates (section 6.4)."""
    figure, axes = plt.subplots(figsize=(3.6, 2.8))
    prefix, thetas = SWEEP[results.tier]
    for method, label in zip(("ff", "all"), STYLE):
        runs = np.stack([values(results.experiments[f"{prefix}_{method}_{t}"], "test/error") for t in thetas], 1)
        band(axes, [float(t) for t in thetas], runs, label)
    axes.set(xscale="log", yscale="log", xlabel="threshold theta / width", ylabel="test error (%)")
    axes.set_xticks([float(t) for t in thetas], thetas)
    axes.minorticks_off()
    ticks = [t for t in (2, 3, 5, 10, 20, 50, 90) if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, [str(t) for t in ticks])
    axes.legend(frameon=False)
    return finish(
        figure, folder, "threshold.svg",
        "Which of the two is better depends on the threshold: compare at equal theta, and each at its own best "
        "(mean over seeds, band: one standard deviation).",
        "Test error against the threshold for FF and collaborative FF",
    )  # fmt: skip


def draw(results: Results, folder: Path) -> list[Figure]:
    """Every figure whose experiments are there."""
    use_house_style()
    wanted = []
    sweep, thetas = SWEEP.get(results.tier, ("", ()))
    for make, names in (
        (information_flow, FLOW.get(results.tier, ())),
        (entropy_over_epochs, CURVES.get(results.tier, ())),
        (threshold_sweep, tuple(f"{sweep}_{m}_{t}" for m in ("ff", "all") for t in thetas)),
    ):
        if names and all(name in results.experiments and results.experiments[name].runs for name in names):
            wanted.append(make(results, folder))
    return wanted
