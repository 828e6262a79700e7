"""The pictures of a tier: gaps and norms over training, what D memorises, scores by weight, samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from shared.claims.results import ExperimentResult, Results
from shared.figures import COLOURS, Figure, finish, use_house_style

from diggan.tables import BEST, by_features, caveat, group_of, mean_and_spread, weight_of

# data -> (experiment without a penalty, with it), largest and smallest part of the data
PAIRS = {
    "digits": (("digits_plain", "digits_dig_100"), ("digits800_plain", "digits800_dig_100")),
    "mnist": (("mnist500_plain", "mnist500_dig_100"), ("mnist5000_plain", "mnist5000_dig_100")),
    "cifar": (("cifar_plain", "cifar_dig"),),
    "conv": (("conv_plain", "conv_dig_100"),),
    "c10_10": (("c10_10_plain", "c10_10_dig"),),
}


def _there(results: Results, names: Sequence[str]) -> bool:
    return all(n in results.experiments and results.experiments[n].runs for n in names)


def _curves(experiment: ExperimentResult, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(iterations, curves [seeds, looks])."""
    rows = np.array([run.curves[f"curve/{name}"] for run in experiment.runs])
    every = experiment.config["data"].get("iterations", 250)
    return every * np.arange(rows.shape[1]), rows


def _band(
    axes: plt.Axes, experiment: ExperimentResult, name: str, colour: str, line: str, label: str, whole: bool = False
) -> None:
    """Mean over seeds, with a band of one standard deviation; `whole`: from the least to the largest."""
    x, rows = _curves(experiment, name)
    axes.plot(x, rows.mean(0), color=COLOURS[colour], linestyle=line, label=label)
    if len(rows) > 1:
        low, high = rows.mean(0) - rows.std(0, ddof=1), rows.mean(0) + rows.std(0, ddof=1)
        if whole:
            low, high = rows.min(0), rows.max(0)
        axes.fill_between(x, low, high, color=COLOURS[colour], alpha=0.15, linewidth=0)


def _titled(name: str, experiment: ExperimentResult) -> str:
    """`100 digits, no penalty`."""
    return f"{group_of(name, experiment).split(',')[0]}, {experiment.title}"


def norms(results: Results, folder: Path, name: str) -> Figure:
    """F1: gradient norms on training images and fakes, one panel for each part of the data and each method."""
    pairs = [pair for pair in PAIRS[name] if _there(results, pair)]
    figure, all_axes = plt.subplots(
        len(pairs), 2, figsize=(6.4, 2.2 * len(pairs) + 0.4), sharex=True, sharey="row", squeeze=False
    )
    for row, pair in zip(all_axes, pairs):
        for axes, p in zip(row, pair):
            experiment = results.experiments[p]
            _band(axes, experiment, "norm_real", "ours", "-", "training images")
            _band(axes, experiment, "norm_fake", "orange", "--", "fakes")
            _band(axes, experiment, "norm_held_out", "baseline", ":", "held-out images")
            axes.set_title(_titled(p, experiment), fontsize=8)
            axes.set_ylim(bottom=0)
        row[0].set_ylabel("mean |dD/dx|")
    for axes in all_axes[-1]:
        axes.set_xlabel("G iteration")
    all_axes[0][0].legend(frameon=False, fontsize=7)
    first = pairs[0][0]
    data, seeds = group_of(first, results.experiments[first]), len(results.experiments[first].runs)
    band = f" (mean of {seeds} seeds, band: one standard deviation)" if seeds > 1 else " (one seed)"
    return finish(
        figure, folder, f"norms_{name}.svg",
        f"{data}: norms of D's input gradient on training images, on fakes and on held-out images, without the "
        f"penalty and with it{band}.",
        "Gradient norms of the discriminator on training images, held-out images and fakes over training",
    )  # fmt: skip


def gaps(results: Results, folder: Path, name: str) -> Figure:
    """F1 and T1: the gap and FID-local over training."""
    arms = [(n, results.experiments[n]) for n in ARMS[name] if _there(results, [n])]
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.7))
    for (_, experiment), (colour, line) in zip(arms, STYLES):
        _band(left, experiment, "gap", colour, line, experiment.title, whole=True)
        _band(right, experiment, "fid", colour, line, experiment.title, whole=True)
    fid = by_features("FID", [experiment for _, experiment in arms])
    left.set(xlabel="G iteration", ylabel="gap of mean gradient norms", yscale="log")
    left.set_ylim(bottom=1e-3)
    right.set(xlabel="G iteration", ylabel=fid, yscale="log")
    right.legend(frameon=False, fontsize=7)
    seeds = min(len(experiment.runs) for _, experiment in arms)
    band = f"mean of {seeds} seeds, band: least to largest" if seeds > 1 else caveat(arms[0][1])
    last = {experiment.title: _curves(experiment, "fid")[1][:, -1].mean() for _, experiment in arms}
    order = "; ".join(f"{title}: {value:.0f}" for title, value in sorted(last.items(), key=lambda pair: pair[1]))
    return finish(
        figure, folder, f"gap_{name}.svg",
        f"{group_of(*arms[0])}: the gap of the mean gradient norms, and {fid}, over training. At the end: {order} "
        f"({band}; the gap of a single look comes near 0 where the norms cross).",
        "Gap of gradient norms and FID-local over training, for several weights of the penalty",
    )  # fmt: skip


ARMS = {
    "digits": ("digits_plain", "digits_dig_10", "digits_dig_100", "digits_dig_1000"),
    "mnist": ("mnist500_plain", "mnist500_dig_10", "mnist500_dig_100", "mnist500_dig_1000"),
    "digits800": ("digits800_plain", "digits800_dig_100"),
    "mnist5000": ("mnist5000_plain", "mnist5000_dig_100"),
    "cifar": ("cifar_plain", "cifar_dig"),
    "conv": ("conv_plain", "conv_dig_10", "conv_dig_100", "conv_dig_1000"),
    "c10_10": ("c10_10_plain", "c10_10_dig_100", "c10_10_dig_1000", "c10_10_dig"),
}
STYLES = (("baseline", "--"), ("ours_variant", "-."), ("ours", "-"), ("purple", ":"))


def memorised(results: Results, folder: Path, name: str) -> Figure:
    """F2: D's accuracy on the images that it was trained on, and on others."""
    pair = PAIRS[name][0]
    figure, all_axes = plt.subplots(1, 2, figsize=(6.4, 2.5), sharey=True)
    for axes, p in zip(all_axes, pair):
        experiment = results.experiments[p]
        _band(axes, experiment, "accuracy_real", "ours", "-", "training images")
        _band(axes, experiment, "accuracy_held_out", "baseline", "--", "held-out images")
        axes.set_title(_titled(p, experiment), fontsize=8)
        axes.set(xlabel="G iteration", ylim=(0, 1.03))
    all_axes[0].set_ylabel("D takes for real (share)")
    all_axes[0].legend(frameon=False, fontsize=7, loc="lower right")
    return finish(
        figure, folder, f"memorised_{name}.svg",
        f"{group_of(p, experiment)}: the distance between the lines is what D knows of its training images alone"
        f"{' (band: one standard deviation over seeds)' if len(experiment.runs) > 1 else ' (one seed)'}.",
        "Accuracy of the discriminator on training and on held-out images over training",
    )  # fmt: skip


def weights(results: Results, folder: Path, name: str) -> Figure:
    """A1 and A2: FID-local against the weight of each penalty."""
    prefix = "mnist500_" if name == "mnist" else f"{name}_"
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for key, experiment in results.experiments.items():
        model = experiment.config.get("model") or {}
        if not key.startswith(prefix) or not experiment.runs or model.get("policy") or BEST in key:
            continue
        if model.get("regulariser", "none") == "none":
            continue
        variant = model.get("variant", "official")
        group = model["regulariser"] if variant == "official" else f"dig, {variant}"
        mean, spread = mean_and_spread(experiment, "tail/fid")
        groups.setdefault(group, []).append((weight_of(experiment), mean, spread))
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    plain = results.experiments.get(f"{prefix}plain")
    if plain is not None and plain.runs:
        axes.axhline(mean_and_spread(plain, "tail/fid")[0], color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)
        axes.annotate("no penalty", (1, mean_and_spread(plain, "tail/fid")[0]), xycoords=("axes fraction", "data"),
                      xytext=(0, 3), textcoords="offset points", fontsize=7, ha="right")  # fmt: skip
    colours = [
        "ours",
        "ours_variant",
        "baseline",
        "baseline_2",
        "baseline_3",
        "orange",
        "green",
        "vermillion",
        "purple",
    ]
    order = sorted(groups, key=lambda g: (g != "dig", g))
    for i, group in enumerate(order):
        x, y, bars = map(np.array, zip(*sorted(groups[group])))
        x = x * 1.05 ** (i - len(order) / 2)  # beside each other where their weights are the same
        marker, line = "osD^vP<>X*"[i % 10], ["-", "--", ":", "-."][i % 4]
        axes.errorbar(x, y, bars, color=COLOURS[colours[i % len(colours)]], marker=marker, markersize=4,
                      linestyle=line, linewidth=1, capsize=2, label=group)  # fmt: skip
    tried = {key: e for key, e in results.experiments.items() if key.startswith(prefix) and e.runs}
    data, fid = group_of(*next(iter(tried.items()))), by_features("FID", list(tried.values()))
    axes.set(xscale="log", yscale="log", xlabel="weight of the penalty", ylabel=f"tail {fid}")
    alone = " A point by itself: one weight was tried." if any(len(points) == 1 for points in groups.values()) else ""
    axes.legend(frameon=False, fontsize=6.5, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return finish(
        figure, folder, f"weights_{name}.svg",
        f"{data}: {fid} at the weights that were tried. A line's lowest point is what a penalty is worth when its "
        f"weight is chosen well (mean over seeds, bars: one standard deviation).{alone}",
        "FID-local against the weight of the penalty, one line for each regulariser",
    )  # fmt: skip


def samples(results: Results, folder: Path) -> Figure | None:
    """Samples of some methods, and below each the training image nearest to it."""
    rows = []
    for names in SHOWN:
        rows += [(n, results.experiments[n]) for n in names if _there(results, [n])]
    rows = [(n, e) for n, e in rows if "samples/nearest" in e.runs[0].curves]
    if not rows:
        return None
    figure, all_axes = plt.subplots(len(rows), 1, figsize=(6.4, 1.15 * len(rows)), squeeze=False)
    for axes, (name, experiment) in zip(all_axes[:, 0], rows):
        curves = experiment.runs[0].curves
        n, c, h, w = (int(v) for v in curves["samples/shape"])
        lines = []
        for part in ("samples/pixels", "samples/nearest"):
            images = np.array(curves[part]).reshape(n, c, h, w)[: min(n, 12)]
            lines.append(np.concatenate([np.pad(i, ((0, 0), (1, 1), (1, 1)), constant_values=255) for i in images], 2))
        shown = np.concatenate(lines, 1).transpose(1, 2, 0).astype(np.uint8)
        axes.imshow(shown[..., 0] if c == 1 else shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_ylabel(_titled(name, experiment), rotation=0, ha="right", va="center", fontsize=7)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(False)
    return finish(
        figure, folder, "samples.svg",
        "Upper rows: samples of the first seed, the first that were drawn; lower rows: the training image nearest to "
        "each "
        "(larger images reduced to 16 pixels a side).",
        "Rows of generated images and of their nearest training images, for several methods",
    )  # fmt: skip


SHOWN = (
    ("digits_plain", "digits_dig_100", "digits_da", "digits_r1_10"),
    ("mnist500_plain", "mnist500_dig_100", "mnist500_da", "mnist500_r1_10"),
    ("cifar_plain", "cifar_dig"),
    ("c10_10_plain", "c10_10_dig", "c10_10_da", "c10_10_da_dig"),
)


def draw(results: Results, folder: Path) -> list[Figure]:
    """Every figure whose experiments are there."""
    use_house_style()
    out: list[Figure | None] = []
    for name, pairs in PAIRS.items():
        if _there(results, pairs[0]):
            out += [norms(results, folder, name), gaps(results, folder, name), memorised(results, folder, name)]
            if name in ("digits", "mnist", "conv"):
                out.append(weights(results, folder, name))
    for name in ("digits800", "mnist5000"):
        if _there(results, ARMS[name]):
            out.append(gaps(results, folder, name))
    return [figure for figure in [*out, samples(results, folder)] if figure is not None]
