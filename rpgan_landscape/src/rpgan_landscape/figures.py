"""The pictures of a tier: escape times, D losses against their predicted plateaus, and the exact landscape."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from shared.claims.results import Results
from shared.figures import COLOURS, Figure, finish, use_house_style

from rpgan_landscape import landscape_figures
from rpgan_landscape.experiment import THIN
from rpgan_landscape.intervals import survival_band
from rpgan_landscape.tables import PREFIX, escape_times

# variant -> (label, colour, line): what is compared in one panel
PANELS = (
    (
        "the reference's settings",
        {"js": ("JS, D loss halved", "baseline", "--"), "rs": ("RS", "ours", "-")},
    ),
    (
        "D steps matched",
        {
            "js_matched": ("JS, not halved", "baseline", "--"),
            "rs": ("RS", "ours", "-"),
            "js": ("JS, halved", "baseline_2", ":"),
            "rs_halved_step": ("RS, half the D step", "ours_variant", "-."),
        },
    ),
    (
        "pairing",
        {
            "rs": ("RS, fixed", "ours", "-"),
            "rs_shuffled": ("RS, shuffled", "orange", "--"),
            "rs_all_pairs": ("RS, all pairs", "green", ":"),
        },
    ),
)


def _iterations(results: Results, name: str) -> int:
    return int(results.experiments[PREFIX + name].config["population"]["iterations"])


def escape(results: Results, folder: Path) -> Figure:
    """Share of the seeds that have escaped by each iteration, with pointwise 95 % intervals."""
    panels = [p for p in PANELS if all(_there(results, name) for name in p[1])]
    figure, all_axes = plt.subplots(1, len(panels), figsize=(2.6 * len(panels) + 0.6, 2.8), sharey=True, squeeze=False)
    for axes, (title, variants) in zip(all_axes[0], panels):
        for name, (label, colour, line) in variants.items():
            times = escape_times(results.experiments[PREFIX + name])
            grid = np.linspace(0, _iterations(results, name), 201)
            share, low, high = survival_band(times, grid)
            axes.plot(grid, share, label=label, color=COLOURS[colour], linestyle=line)
            axes.fill_between(grid, low, high, color=COLOURS[colour], alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel="iteration", ylim=(0, 1.02))
        axes.legend(frameon=False, fontsize=7, loc="upper left" if len(panels) == 1 else "lower right")
    all_axes[0][0].set_ylabel("share of seeds escaped")
    n = len(results.experiments[PREFIX + "rs"].runs)
    seen = "Under the reference's settings RS-GAN covers both clusters sooner than JS-GAN"
    if len(panels) > 1:
        seen += "; where the D step is matched, or only the pairing changes, the curves lie in each other's bands"
    return finish(
        figure, folder, "escape.svg", f"{seen} ({n} seeds, band: pointwise 95 % intervals).",
        "Share of runs that have covered both clusters against iterations, for variants of the two-cluster experiment",
    )  # fmt: skip


def d_losses(results: Results, folder: Path) -> Figure:
    """D loss of every seed, the collapsed stretches in colour, with the predicted plateaus."""
    shown = {"js": ("JS, D loss halved", 0.477386), "rs": ("RS", 0.346574)}
    figure, all_axes = plt.subplots(1, 2, figsize=(7, 2.8), sharey=True)
    for axes, (name, (title, plateau)) in zip(all_axes, shown.items()):
        for run in results.experiments[PREFIX + name].runs:
            loss, share = np.array(run.curves["curve/d_loss"]), np.array(run.curves["curve/largest_share"])
            x = THIN * np.arange(len(loss))
            axes.plot(x, loss, "-", color=COLOURS["baseline"], alpha=0.25, linewidth=0.6)
            axes.plot(x, np.where(share >= 0.9, loss, np.nan), "-", color=COLOURS["vermillion"], linewidth=1.4)
        for value, label in ((plateau, f"one cluster: {plateau:.4f}"), (np.log(2), "both: 0.6931")):
            axes.axhline(value, color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)
            axes.annotate(label, (1, value), xycoords=("axes fraction", "data"), xytext=(-2, -9),
                          textcoords="offset points", ha="right", fontsize=7)  # fmt: skip
        axes.set(title=title, xlabel="iteration", ylim=(0.2, 0.8))
    all_axes[0].set_ylabel("D loss")
    n = len(results.experiments[PREFIX + "js"].runs)
    return finish(
        figure, folder, "d_loss.svg",
        "While all fakes sit in one cluster (orange) the D loss stays on its predicted plateau, 0.4774 for JS-GAN and "
        f"0.3466 for RS-GAN; when both are covered it is log 2. A line for each of {n} seeds, every {THIN} iterations.",
        "D loss against iterations for JS and RS, with predicted plateaus as dashed lines",
    )  # fmt: skip


def gaussians(results: Results, folder: Path) -> Figure:
    """Modes covered over training, mean over seeds."""
    figure, axes = plt.subplots(figsize=(3.8, 2.8))
    styles = {
        "js": ("baseline", "--"),
        "rs": ("ours", "-"),
        "js_norm": ("baseline_2", ":"),
        "rs_norm": ("ours_variant", "-."),
    }
    for name, (colour, line) in styles.items():
        experiment = results.experiments[f"gaussians5_{name}"]
        every = experiment.config["data"]["iterations"]
        curves = np.array([run.curves["curve/modes"] for run in experiment.runs])
        axes.plot(
            every * np.arange(1, curves.shape[1] + 1),
            curves.mean(0),
            label=experiment.title,
            color=COLOURS[colour],
            linestyle=line,
        )
    axes.set(xlabel="iteration", ylabel="modes covered (of 5)", ylim=(0, 5.2))
    axes.legend(frameon=False, fontsize=7, loc="lower right")
    return finish(
        figure, folder, "gaussians.svg",
        "Five Gaussians: modes found over training by JS and RS, with and without the last-layer normalisation that "
        "only the RS runs of the reference have (mean over seeds).",
        "Number of Gaussians covered against iterations for JS and RS with and without normalisation",
    )  # fmt: skip


def _there(results: Results, name: str) -> bool:
    experiment = results.experiments.get(PREFIX + name)
    return experiment is not None and bool(experiment.runs)


def draw(results: Results, folder: Path) -> list[Figure]:
    """Every figure whose experiments are there; the exact landscape is drawn at every tier, as it needs no run."""
    use_house_style()
    out = []
    if all(_there(results, name) for name in ("js", "rs")):
        out += [escape(results, folder), d_losses(results, folder)]
    if all(f"gaussians5_{name}" in results.experiments for name in ("js", "rs", "js_norm", "rs_norm")):
        out.append(gaussians(results, folder))
    return out + landscape_figures.draw(folder)
