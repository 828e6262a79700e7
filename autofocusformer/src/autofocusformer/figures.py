"""The pictures of a tier: what is kept, how it is clustered, what sampling allows, and what training makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from shared.claims.results import ExperimentResult, Results
from shared.errors import UserError
from shared.figures import COLOURS, Figure, finish, use_house_style

from autofocusformer.data import sets
from autofocusformer.data.synthetic import SceneConfig, scene
from autofocusformer.pictures import RED, cluster_map, faded, full_canvas, kept_tokens, show, tiles, tokens_over
from autofocusformer.sampling import Mode
from autofocusformer.tokens_of_images import pad_to_multiple

STYLES = {
    "adaptive": (COLOURS["ours"], "-", "o"),
    "oracle": (COLOURS["ours_variant"], "--", "^"),
    "grid": (COLOURS["baseline"], "-", "s"),
    "random": (COLOURS["baseline_2"], ":", "x"),
    "windows": (COLOURS["baseline_3"], "-.", "d"),
}
SHARES = (1 / 4, 1 / 16, 1 / 64)
SHOWN: tuple[Mode, ...] = ("adaptive", "oracle", "grid")


def _there(results: Results, names: Sequence[str]) -> list[str]:
    return [n for n in names if n in results.experiments and results.experiments[n].runs]


def _values(experiment: ExperimentResult, metric: str) -> np.ndarray:
    return np.array([run.metrics[metric] for run in experiment.runs if metric in run.metrics])


def kept(folder: Path, image: np.ndarray, labels: np.ndarray, file: str, what: str) -> Figure:
    """Kept points over an image: a row a mode, a column a stage."""
    h, w = image.shape[:2]
    figure, axes = plt.subplots(len(SHOWN), 3, figsize=(6.4, 0.3 + 2.0 * len(SHOWN) * h / w + 0.15 * len(SHOWN)))
    for row, mode in zip(axes, SHOWN):
        levels = kept_tokens(image, labels, mode)
        for stage, (place, positions) in enumerate(zip(row, levels), start=2):
            show(place, faded(image), f"{mode}, stage {stage}: {len(positions)}")
            tokens_over(place, positions, (3.4, 4.6, 6.0)[stage - 2] * (1.0 if w < 200 else 0.6))
    caption = (
        f"{what}: the tokens kept for stages 2, 3 and 4 at a rate of 1/4 (red), by gradients (adaptive), by true label "
        "edges (oracle), and on the grid; nothing is trained."
    )
    return finish(figure, folder, file, caption, f"Kept tokens over {what} by stage and sampling mode")


def clusters(folder: Path) -> Figure:
    """Clusters of a full canvas and of an adaptive selection, as coloured tiles."""
    config = SceneConfig()
    image, labels = scene(0, 4, config)
    chosen = kept_tokens(image, labels, "adaptive")[0]
    figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.4))
    tiles(axes[0], cluster_map(full_canvas(32, 32), (32, 32)), "full canvas, ours")
    tiles(axes[1], cluster_map(chosen, (32, 32)), "adaptive, 1/4, ours")
    tiles(axes[2], cluster_map(full_canvas(32, 32), (32, 32), curve="scan-line"), "full canvas, scan line")
    caption = (
        "Clusters of 8 points each as coloured tiles (colours repeat): along the snake of anchors they are compact, on "
        "a full canvas and on an adaptive selection; along scan lines they are not."
    )
    return finish(figure, folder, "clusters.svg", caption, "Clusters as coloured tiles on a canvas of 32 x 32")


def clustering_cost(results: Results, folder: Path) -> Figure:
    """Time and sizes of clusters against the number of points."""
    names = _there(results, ["cluster_784", "cluster_3136", "cluster_16384"])
    sizes = [int(name.split("_")[1]) for name in names]
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.5))
    for method, colour, label in (
        ("snake", "ours", "along the curve"),
        ("k-means", "baseline", "k-means, 10 iterations"),
    ):
        found = [results.experiments[name] for name in names]
        times = [_values(e, f"{method}/ms").mean() for e in found]
        left.plot(sizes, times, "o-", color=COLOURS[colour], markersize=3)
        left.annotate(
            label, (sizes[-1], times[-1]), xytext=(-4, 5), textcoords="offset points", ha="right",
            color=COLOURS[colour], fontsize=8,
        )  # fmt: skip
        low = [_values(e, f"{method}/smallest").min() for e in found]
        high = [_values(e, f"{method}/largest").max() for e in found]
        right.fill_between(sizes, low, high, color=COLOURS[colour], alpha=0.3, linewidth=0)
        right.plot(sizes, low, "-", color=COLOURS[colour], linewidth=1)
        right.plot(sizes, high, "-", color=COLOURS[colour], linewidth=1)
        right.annotate(
            label.split(",")[0], (sizes[-1], high[-1]), xytext=(-2, 4), textcoords="offset points", ha="right",
            color=COLOURS[colour], fontsize=8,
        )  # fmt: skip
    left.set(xscale="log", yscale="log", xlabel="points", ylabel="ms on one core", ylim=(None, 4000))
    right.set(xscale="log", xlabel="points", ylabel="points in a cluster", ylim=(0, None))
    caption = (
        "Clustering by the curve against ten iterations of k-means: time, and the range from the smallest to the "
        f"largest cluster ({len(results.experiments[names[0]].runs)} seeds)."
    )
    return finish(
        figure, folder, "clustering.svg", caption, "Time and balance of clustering against the number of points"
    )


def budget(results: Results, folder: Path, prefix: str, file: str, what: str) -> Figure:
    """IoU of small and of large classes against the share of tokens kept."""
    figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.6))
    for mode, (colour, line, marker) in STYLES.items():
        for name in _there(results, [f"{prefix}_{mode}"]):
            experiment = results.experiments[name]
            for place, metric in zip(axes, ("small", "large", "coverage")):
                rows = np.stack([_values(experiment, f"{metric}/{level}") for level in (2, 3, 4)])
                deviation = rows.std(1, ddof=1) if rows.shape[1] > 1 else None
                place.errorbar(
                    SHARES, rows.mean(1), yerr=deviation, color=colour, linestyle=line, marker=marker, markersize=3,
                    label=mode, capsize=1.5, linewidth=1,
                )  # fmt: skip
    for place, title in zip(axes, ("IoU, small classes", "IoU, large classes", "object tokens kept")):
        place.set(xscale="log", xlabel="share of tokens kept", ylim=(0, None))
        place.set_title(title, fontsize=8)
        place.set_xticks(SHARES, ["1/4", "1/16", "1/64"])
        place.minorticks_off()
    axes[0].legend(frameon=False, fontsize=7)
    caption = (
        f"{what}: what sampling alone allows (every pixel takes the true label of the nearest kept token), by mode; "
        "bars: one standard deviation over seeds. Nothing is trained."
    )
    return finish(figure, folder, file, caption, f"IoU and coverage against the budget on {what}")


def training(results: Results, folder: Path, names: Sequence[str], file: str, what: str) -> Figure:
    """Loss, coverage of object tokens and spread of the importance over training."""
    from autofocusformer.module import LOG_EVERY  # brings Lightning, which no other picture needs

    figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.4))
    curves = (("loss", "loss"), ("coverage/2", "object tokens kept, stage 2"), ("spread/2", "spread of importance"))
    every = results.experiments[names[0]].config["model"]["init_args"].get("log_every", LOG_EVERY)
    for name in names:
        mode = name.split("_")[-1] if name.split("_")[-1] in STYLES else "adaptive"
        colour, line, _ = STYLES[mode]
        for place, (curve, _title) in zip(axes, curves):
            found = [run.curves.get(f"curve/{curve}", []) for run in results.experiments[name].runs]
            length = min(len(each) for each in found)
            if not length:
                continue
            rows, steps = np.array([each[:length] for each in found]), every * np.arange(length)
            place.plot(steps, rows.mean(0), color=colour, linestyle=line, label=mode, linewidth=1)
            if len(rows) > 1:
                deviation = rows.std(0, ddof=1)
                low, high = rows.mean(0) - deviation, rows.mean(0) + deviation
                place.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    for place, (_, title) in zip(axes, curves):
        place.set(xlabel="step", ylim=(0, None))
        place.set_title(title, fontsize=8)
    # A point beats the grid prior only where its importance is larger by more than 1 / alpha.
    backbone = results.experiments[names[0]].config["model"]["init_args"].get("backbone") or {}
    threshold = 1 / backbone.get("alpha", 4.0)
    axes[2].axhline(threshold, color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)
    axes[2].annotate(
        "1 / alpha", (0.98, threshold), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
        ha="right", fontsize=7, color=COLOURS["paper"],
    )  # fmt: skip
    axes[2].set_ylim(0, max(axes[2].get_ylim()[1], 1.25 * threshold))
    if len(names) > 1:
        axes[0].legend(frameon=False, fontsize=7)
    seeds = len(results.experiments[names[0]].runs)
    caption = (
        f"{what}: loss, share of object tokens kept for stage 2, and spread of the learned importance (95th minus 5th "
        f"percentile) on the batch of every {every}th step ({seeds} seed{'s' * (seeds > 1)})."
    )
    return finish(figure, folder, file, caption, f"Loss, coverage and spread of importance in training: {what}")


def trained(
    results: Results, folder: Path, names: Sequence[str], file: str, small: str = "shapes", large: str = "regions"
) -> Figure:
    """Test mIoU of all modes, one dot a seed."""
    figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.5))
    metrics = (
        ("test/miou_small", f"mIoU, {small}"),
        ("test/miou_large", f"mIoU, {large}"),
        ("test/coverage/2", "coverage, stage 2"),
    )
    for place, (metric, title) in zip(axes, metrics):
        for x, name in enumerate(names):
            colour = STYLES[name.split("_")[-1]][0]
            values = _values(results.experiments[name], metric)
            place.plot([x] * len(values), values, "o", color=colour, markersize=3.5)
            place.plot([x - 0.25, x + 0.25], [values.mean()] * 2, "-", color=colour)
        place.set_xticks(range(len(names)), [name.split("_")[-1] for name in names], fontsize=7)
        place.set_title(title, fontsize=8)
        place.set_xlim(-0.5, len(names) - 0.5)
    caption = (
        f"Trained alike, with equal parameters and token budgets: test mIoU of {small} and of {large}, and the share "
        "of object tokens kept for stage 2, one dot a seed, the mean as a line."
    )
    return finish(figure, folder, file, caption, "Test mIoU by sampling mode, one dot a seed")


def learned_importance(results: Results, folder: Path, name: str, file: str, what: str) -> list[Figure]:
    """The first test image, and how important each seed's network finds the points of stage 1; none without data."""
    from autofocusformer.experiment import images_of  # brings Lightning, which no other picture needs

    experiment = results.experiments[name]
    runs = [run for run in experiment.runs if "picture/importance" in run.curves]
    if not runs:
        return []
    try:
        data = images_of(experiment.config["data"])
        _, first = data._scene(data.source("test"), 0)
    except UserError:
        return []
    image = (first.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    h, w = (int(value) for value in runs[0].curves["picture/canvas"])
    figure, axes = plt.subplots(
        1, 1 + len(runs), figsize=(6.8, 0.5 + 6.2 / (1 + len(runs)) * h / w), layout="constrained"
    )
    show(axes[0], image, "first test image")
    for place, run in zip(axes[1:], runs):
        drawn = place.imshow(np.reshape(run.curves["picture/importance"], (h, w)), vmin=0, vmax=1, cmap="viridis")
        x, y = np.reshape(run.curves["picture/kept"], (-1, 2)).T
        place.plot(x, y, ".", color=RED, markersize=1.8 if w > 40 else 3, markeredgewidth=0)
        place.set_axis_off()
        place.set_title(f"seed {run.seed}", fontsize=8)
    figure.colorbar(drawn, ax=axes[-1], label="importance s", shrink=0.8)
    caption = (
        f"{what}: the importance that the network has learned, without labels of its own, of every point of stage 1, "
        "by seed; red: the points kept for stage 2 (those of the grid prior among them)."
    )
    return [finish(figure, folder, file, caption, f"Learned importance of stage 1, {what}")]


def draw(results: Results, folder: Path) -> list[Figure]:
    """Whatever the results hold."""
    use_house_style()
    out = []
    if _there(results, ["limit_fine_adaptive"]):
        image, labels = _measured_scene(results.experiments["limit_fine_adaptive"].config)
        out.append(kept(folder, image, labels, "kept_synthetic.svg", "a scene with objects of 3 to 6 px"))
        out.append(budget(results, folder, "limit_fine", "budget_synthetic.svg", "smooth scenes, objects of 3 to 6 px"))
    if _there(results, ["limit_texture_adaptive"]):
        out.append(
            budget(results, folder, "limit_texture", "budget_texture.svg", "textured scenes, objects of 3 to 6 px")
        )
    if _there(results, ["limit_shapes_adaptive"]):
        out.append(budget(results, folder, "limit_shapes", "budget_shapes.svg", "the test scenes of the trainings"))
    if _there(results, ["camvid_limit_adaptive"]):
        out.append(budget(results, folder, "camvid_limit", "budget_camvid.svg", "CamVid, small classes"))
        out += _camvid(folder)
    if len(_there(results, ["cluster_784", "cluster_3136", "cluster_16384"])) > 1:
        out += [clusters(folder), clustering_cost(results, folder)]
    if short := _there(results, ["short_training"]):
        out.append(training(results, folder, short, "training.svg", "A short training of Nano"))
    if shapes := _there(results, [f"shapes_{mode}" for mode in STYLES]):
        out += [
            training(results, folder, shapes, "training_shapes.svg", "Shapes"),
            trained(results, folder, shapes, "trained.svg"),
            *learned_importance(results, folder, shapes[0], "importance_shapes.svg", "a test scene of the trainings"),
        ]
    if streets := _there(results, [f"camvid_{mode}" for mode in STYLES]):
        out.append(training(results, folder, streets, "training_camvid.svg", "CamVid"))
        out.append(trained(results, folder, streets, "trained_camvid.svg", "small classes", "large classes"))
        out += learned_importance(results, folder, streets[0], "importance_camvid.svg", "a street scene (CamVid)")
    return out


def _measured_scene(config: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """One of the scenes that the first seed is measured on."""
    scene: dict[str, Any] = config["data"]["scene"]
    settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in scene.items()}
    return sets.synthetic("test", SceneConfig(**settings), config["sampling_limited"]["images"], 0).read(6)


def _camvid(folder: Path) -> list[Figure]:
    """A picture on a street scene, where the data still are."""
    try:
        part = sets.load("camvid", "test")
        image, labels = part.read(60 % part.size)
    except UserError:
        return []
    image, labels = pad_to_multiple(image, 4, 0)[::2, ::2], pad_to_multiple(labels, 4, 255)[::2, ::2]
    return [kept(folder, image, labels, "kept_camvid.svg", "a street scene (CamVid, half size)")]
