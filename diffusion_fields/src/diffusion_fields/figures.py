"""The pictures of a tier: the exact context-rate law, what sampling does to one network, training, and samples."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from shared.claims.results import ExperimentResult, Results
from shared.figures import COLOURS, Figure, finish, use_house_style

from diffusion_fields.draw import mollweide
from diffusion_fields.oracle import fibonacci_sphere
from diffusion_fields.tables import LOOKS


def _mean(experiment: ExperimentResult, metric: str) -> tuple[float, float]:
    values = np.array([run.metrics[metric] for run in experiment.runs])
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def context_rate(results: Results, folder: Path) -> Figure | None:
    """The law of section 6, and trained networks on top of it."""
    sphere, circle = results.experiments.get("oracle"), results.experiments.get("oracle_circle")
    if sphere is None or not sphere.runs:
        return None
    trained = [
        (count, results.experiments[name]) for count, name in ((4, "circle_4"), (8, "circle_8"), (16, "circle"))
        if name in results.experiments and results.experiments[name].runs
    ]  # fmt: skip
    whole = circle is not None and bool(circle.runs) and len(trained) > 1
    figure, all_axes = plt.subplots(1, 3 if whole else 1, figsize=(8.4 if whole else 4, 2.8), squeeze=False)
    axes = all_axes[0][0]
    curves = sphere.runs[0].curves
    axes.plot(curves["curve/counts"], curves["curve/error"], "-", color=COLOURS["vermillion"], marker=".")
    _freedom(axes, 35)
    axes.set(
        xlabel="context pairs of 100", ylabel="relative error of the covariance", ylim=(0, None), title="sphere, exact"
    )
    if whole:
        assert circle is not None
        curves, count = circle.runs[0].curves, [n for n, _ in trained]
        panels = (
            ("floor", "test/loss", "noise error, mean over t"),
            ("w2_sq", "w2_sq/same", "W2² of samples to the truth"),
        )
        for axes, (law, measured, label) in zip(all_axes[0][1:], panels):
            style = {"color": COLOURS["vermillion"], "marker": "."}
            axes.plot(curves["curve/counts"], curves[f"curve/{law}"], "-", label="best possible", **style)
            mean, deviation = zip(*(_mean(e, measured) for _, e in trained), strict=True)
            axes.errorbar(count, mean, deviation, fmt="o-", color=COLOURS["ours"], label="trained", markersize=4)
            _freedom(axes, 6)
            axes.set(xlabel="context pairs of 48", ylabel=label, ylim=(0, None), title="circle, trained on top")
        own = curves["curve/floor"][0]
        all_axes[0][1].axhline(own, color=COLOURS["orange"], linestyle=":", linewidth=1)
        all_axes[0][1].annotate(
            "without context", (48, own), ha="right", va="bottom", fontsize=7, color=COLOURS["orange"]
        )
        all_axes[0][2].legend(frameon=False, fontsize=7)
    more = "; trained networks (blue, bars: standard deviation over seeds) keep a distance" if whole else ""
    return finish(
        figure, folder, "context_rate.svg",
        "What a perfect network can do with N_c context pairs turns where N_c passes the field's degrees of freedom "
        f"(dashed){more}. Red: closed form.",
        "Best possible loss and samples against the number of context pairs, on the sphere and the circle",
    )  # fmt: skip


def _freedom(axes: Axes, count: int) -> None:
    """The number of degrees of freedom, as a line."""
    axes.axvline(count, color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)


def sampling(results: Results, folder: Path) -> Figure | None:
    """One trained network sampled in several ways."""
    circle = results.experiments.get("circle")
    if circle is None or not circle.runs or "w2_sq/redrawn" not in circle.runs[0].metrics:
        return None
    names = [name for name in LOOKS if f"w2_sq/{name}" in circle.runs[0].metrics]
    figure, axes = plt.subplots(figsize=(6, 2.6))
    for i, name in enumerate(names):
        mean, deviation = _mean(circle, f"w2_sq/{name}")
        colour = COLOURS["ours"] if name == "same" else COLOURS["ours_variant"]
        axes.barh(i, mean, xerr=deviation, color=colour, height=0.7)
        if f"ideal_w2_sq/{name}" in circle.runs[0].metrics:
            ideal, _ = _mean(circle, f"ideal_w2_sq/{name}")
            axes.plot([ideal, ideal], [i - 0.35, i + 0.35], color=COLOURS["vermillion"], linewidth=2)
    axes.set_yticks(range(len(names)), [LOOKS[name] for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.set(xlabel="W2² of samples to the truth")
    return finish(
        figure, folder, "sampling.svg",
        "One trained network, sampled in other ways than it was trained for: the context has to stay the same through "
        "all steps and have the trained size. Red: the ideal sampler; bars: mean and standard deviation over seeds.",
        "Bars of the distance of samples to the truth for several ways to sample one network",
    )  # fmt: skip


def training(results: Results, folder: Path) -> Figure | None:
    """Validation loss against the floors."""
    shown = {
        "circle": ("trained", "ours", "-"), "circle_blind": ("no context", "baseline", "--"),
        "circle_independent": ("independent noise", "orange", "-."),
        "circle_reference": ("signal by LayerNorm", "green", ":"),
    }  # fmt: skip
    found = {n: results.experiments[n] for n in shown if n in results.experiments and results.experiments[n].runs}
    if "circle" not in found:
        return None
    figure, axes = plt.subplots(figsize=(4.6, 3))
    for name, e in found.items():
        label, colour, line = shown[name]
        rows = np.array([run.curves["curve/val/loss"] for run in e.runs])
        x, mean, deviation = (
            e.runs[0].curves["curve/val_step"],
            rows.mean(0),
            rows.std(0, ddof=1) if len(rows) > 1 else 0,
        )
        axes.plot(x, mean, label=label, color=COLOURS[colour], linestyle=line)
        axes.fill_between(x, mean - deviation, mean + deviation, color=COLOURS[colour], alpha=0.15, linewidth=0)
    run = found["circle"].runs[0]
    for metric, label in (("curve/val/own_only", "own value alone"), ("curve/val/bayes_floor", "Bayes floor")):
        axes.axhline(run.curves[metric][-1], color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)
        axes.annotate(label, (run.curves["curve/val_step"][0], run.curves[metric][-1]), va="bottom", fontsize=7,
                      color=COLOURS["paper"])  # fmt: skip
    axes.set(xlabel="step", ylabel="noise error, mean over t")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(
        figure, folder, "training.svg",
        "Validation loss of fields on the circle between its two floors: what a network reaches that sees only a "
        "point's own value, and what none can go below. Band: standard deviation over seeds.",
        "Validation loss against steps with the own-only and the Bayes floor",
    )  # fmt: skip


def spectra(results: Results, folder: Path) -> Figure | None:
    """Power of samples over the true power, by degree."""
    found = [n for n in ("circle", "sphere3", "topography") if n in results.experiments and results.experiments[n].runs]
    if not found:
        return None
    figure, all_axes = plt.subplots(1, len(found), figsize=(2.4 * len(found) + 0.4, 2.7), sharey=True, squeeze=False)
    for axes, name in zip(all_axes[0], found):
        e = results.experiments[name]
        degrees = sorted(int(k[2:-5]) for k in e.runs[0].metrics if k.startswith("r_") and k.endswith("/same"))
        mean, deviation = (np.array(v) for v in zip(*(_mean(e, f"r_{l}/same") for l in degrees), strict=True))
        ideal = [_mean(e, f"ideal_r_{l}/same")[0] for l in degrees]
        axes.plot(degrees, ideal, "-", color=COLOURS["vermillion"], label="ideal sampler")
        axes.errorbar(degrees, mean, deviation, fmt="o", color=COLOURS["ours"], markersize=4, label="trained")
        axes.axhline(1, color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)
        axes.set(xlabel="degree", title=e.title, xticks=degrees)
        axes.title.set_fontsize(8)
    all_axes[0][0].set_ylabel("power, samples over truth")
    all_axes[0][0].set_ylim(0, None)
    all_axes[0][-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(
        figure, folder, "spectra.svg",
        "Power of the samples at each degree (on the circle: mode) over the true one; 1 would be exact. "
        "Red: the ideal sampler with the same "
        "context and steps. Bars: standard deviation over seeds.",
        "Spectrum ratio of samples by degree, on the sphere and of the Earth's topography",
    )  # fmt: skip


def digits(results: Results, folder: Path) -> Figure | None:
    """Samples at the trained resolution and at twice of it."""
    rows = []
    for name in ("digits", "digits_jitter"):
        e = results.experiments.get(name)
        if e is not None and e.runs:
            for look, side in (("same", 8), ("x2_regular", 16)):
                values = e.runs[0].curves.get(f"curve/samples/{look}")
                if values:
                    images = np.array(values).reshape(-1, side, side)
                    rows.append((f"{e.title}\n{side} x {side}", images))
    if not rows:
        return None
    figure, all_axes = plt.subplots(len(rows), 8, figsize=(6.4, 0.85 * len(rows)), squeeze=False)
    for axes_row, (title, images) in zip(all_axes, rows):
        for i, axes in enumerate(axes_row):
            axes.axis("off")
            if i < len(images):
                axes.imshow(images[i], cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes_row[0].text(-0.15, 0.5, title, transform=axes_row[0].transAxes, ha="right", va="center", fontsize=7)
    return finish(
        figure, folder, "digits.svg",
        "Digits sampled at the trained 8 x 8 pixels and, by the same networks, at 16 x 16: a network that knew one "
        "grid only has nothing to say between its points. First eight samples of the first seed.",
        "Rows of sampled digits at two resolutions",
    )  # fmt: skip


def globes(results: Results, folder: Path) -> Figure | None:
    """Sampled topographies at the trained points."""
    e = results.experiments.get("topography")
    if e is None or not e.runs:
        return None
    values = np.array(e.runs[0].curves["curve/samples/same"])
    count = int(e.config["data"]["options"]["points"])
    fields = values.reshape(-1, count)[:4]
    x, y = mollweide(fibonacci_sphere(count))
    figure, all_axes = plt.subplots(1, 4, figsize=(7.2, 1.5))
    for axes, field in zip(all_axes, fields):
        axes.scatter(x, y, c=field, cmap="terrain", vmin=-2.5, vmax=2.5, s=9, linewidths=0)
        axes.set_aspect("equal")
        axes.axis("off")
    figure.colorbar(all_axes[0].collections[0], ax=list(all_axes), shrink=0.8, label="height (sd)")
    return finish(
        figure, folder, "topography.svg",
        "Four sampled planets (l = 1 to 8) at the 256 trained points, in Mollweide's projection; heights in standard "
        "deviations. The training fields are the Earth, turned at random.",
        "Maps of four sampled topographies",
    )  # fmt: skip


def draw(results: Results, folder: Path) -> list[Figure]:
    """Every figure whose experiments are there."""
    use_house_style()
    makers = (context_rate, sampling, training, spectra, digits, globes)
    return [figure for figure in (make(results, folder) for make in makers) if figure is not None]
