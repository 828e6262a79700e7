"""The pictures of a tier: both settings side by side, the curves of learning, and where a network looked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle
from shared.claims.results import ExperimentResult, Results
from shared.figures import COLOURS, INK, Figure, finish, mean_band, use_house_style

from spatial_textvqa.data.scenes import COLOURS as LOOKS
from spatial_textvqa.data.scenes import KINDS, SHAPES, TEMPLATES
from spatial_textvqa.data.words import ALL_WORDS

CHANCE = 100 / 6
STYLE: dict[str, dict[str, Any]] = {
    "c3": {"color": COLOURS["ours"]},
    "full": {"color": COLOURS["baseline"], "linestyle": (0, (5, 2))},
}
NAMES = {"c3": "spatial, c = 3", "full": "full attention"}
CONTROLS = (
    "c3_none", "c1_none", "c5_none", "c9_none", "no_boxes_none", "full_bias_none", "random_none", "full_none",
    "full_lr4e-3", "full_long_lr1e-3", "full_long",
)  # fmt: skip


def draw(results: Results, folder: Path) -> list[Figure]:
    """The figures for which there are results."""
    use_house_style()
    found = {name: e for name, e in results.experiments.items() if e.runs}
    out = []
    if all(f"{model}_{look}" in found for model in NAMES for look in ("none", "object")):
        out += [_both_settings(found, folder), _learning(found, folder)]
    if sum(name in found for name in CONTROLS) > 2:
        out.append(_controls(found, folder))
    for name in ("c3_none", "full_none"):
        if name in found and "picture/edges" in found[name].runs[0].curves:
            out.append(_looked(found[name], name, folder))
    return out


def _values(experiment: ExperimentResult, metric: str) -> list[float]:
    return [100 * run.metrics[metric] for run in experiment.runs]


def _both_settings(found: dict[str, ExperimentResult], folder: Path) -> Figure:
    figure, axes = plt.subplots(figsize=(4.2, 2.8))
    ticks = []
    for place, look in enumerate(("none", "object")):
        for shift, model in enumerate(NAMES):
            values = _values(found[f"{model}_{look}"], "test/spatial")
            x, mean = place + 0.36 * (shift - 0.5), sum(values) / len(values)
            axes.bar(x, mean, 0.32, color=STYLE[model]["color"], alpha=0.85 if model == "c3" else 0.6)
            axes.plot([x] * len(values), values, "o", color=INK, markersize=2.5)
            axes.annotate(f"{mean:.0f}", (x, max(values)), xytext=(0, 3), textcoords="offset points", ha="center")
            ticks.append((x, NAMES[model].replace(", ", ",\n").replace(" attention", "\nattention")))
    _chance(axes)
    axes.set_xticks([x for x, _ in ticks], [name for _, name in ticks])
    for place, words in enumerate(("OCR tokens\nwithout appearance", "OCR tokens look\nlike their objects")):
        axes.annotate(words, (place, 112), ha="center", annotation_clip=False)
    axes.set(ylabel="spatial questions right (%)", ylim=(0, 110))
    caption = (
        "Spatial questions on test scenes, one dot a seed: the gap is wide where only geometry ties a token to its "
        "object (left), and a few points where a token looks like its object (right)."
    )
    return finish(figure, folder, "both_settings.svg", caption, "Bars of spatial accuracy in both settings")


def _chance(axes: Any) -> None:
    axes.axhline(CHANCE, color=COLOURS["paper"], linestyle=(0, (1, 2)), linewidth=1)
    axes.annotate("chance", (1, CHANCE), xycoords=("axes fraction", "data"), xytext=(-2, 2), textcoords="offset points",
                  ha="right", color=COLOURS["paper"])  # fmt: skip


def _learning(found: dict[str, ExperimentResult], folder: Path) -> Figure:
    figure, pair = plt.subplots(1, 2, figsize=(6.4, 2.6), sharey=True)
    for axes, look in zip(pair, ("none", "object")):
        for model, label in NAMES.items():
            curves = [[100 * v for v in run.curves["curve/val/spatial"]] for run in found[f"{model}_{look}"].runs]
            epochs = list(range(1, len(curves[0]) + 1))
            mean_band(axes, epochs, curves, label, **STYLE[model])
        _chance(axes)
        axes.set(xlabel="epoch", ylim=(0, 105), xlim=(1, len(epochs) * 1.45))
        axes.set_xticks(range(2, len(epochs) + 1, 2))
        axes.set_title("tokens without appearance" if look == "none" else "tokens look like their objects", loc="left")
    pair[0].set_ylabel("spatial questions right (%)")
    caption = (
        "Spatial questions on validation scenes after each epoch, mean and standard deviation over seeds: without "
        "appearance full attention finds about every third; with it, it learns the task later."
    )
    return finish(figure, folder, "learning.svg", caption, "Learning curves of both models in both settings")


def _controls(found: dict[str, ExperimentResult], folder: Path) -> Figure:
    shown = [name for name in CONTROLS if name in found]
    figure, axes = plt.subplots(figsize=(5.4, 0.26 * len(shown) + 0.9))
    for row, name in enumerate(reversed(shown)):
        values = _values(found[name], "test/spatial")
        colour = COLOURS["ours"] if name == "c3_none" else COLOURS["baseline"]
        axes.plot([sum(values) / len(values)], [row], "|", color=colour, markersize=12)
        axes.plot(values, [row] * len(values), "o", color=colour, markersize=3.5)
    axes.axvline(CHANCE, color=COLOURS["paper"], linestyle=(0, (1, 2)), linewidth=1)
    axes.set_yticks(range(len(shown)), [found[name].title for name in reversed(shown)])
    axes.set(xlabel="spatial questions right (%)", xlim=(0, 102))
    caption = (
        "What the graph is worth where tokens have no appearance: spatial questions on test scenes, one dot a seed, a "
        "bar at the mean; the dotted line is chance."
    )
    return finish(figure, folder, "controls.svg", caption, "Spatial accuracy of every variant")


def _looked(experiment: ExperimentResult, name: str, folder: Path) -> Figure:
    """One scene with the strongest edges of the last spatial layer (of full attention: the last)."""
    curves = experiment.runs[0].curves
    boxes, tokens = (_rows(curves[f"picture/{what}"], 4) for what in ("boxes", "token_boxes"))
    looks, edges = _rows(curves["picture/look"], 2), _rows(curves["picture/edges"], 4)
    kind, reference, target = (int(v) for v in curves["picture/question"])
    words = [ALL_WORDS[int(word)] for word in curves["picture/word"] if word >= 0]
    figure, axes = plt.subplots(figsize=(3.6, 3.6))
    for number, ((x0, y0, x1, y1), (colour, shape)) in enumerate(zip(boxes, looks)):
        strong = number in (reference, target)
        style: dict[str, Any] = {
            "edgecolor": COLOURS["vermillion"] if number == reference else INK,
            "linewidth": 1.6 if strong else 0.6,
        }
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor="none", **style))
        axes.annotate(f"{LOOKS[int(colour)]} {SHAPES[int(shape)]}", (x0, y0), fontsize=6, va="bottom")
    for (x0, y0, x1, y1), word in zip(tokens, words):
        axes.annotate(word, ((x0 + x1) / 2, (y0 + y1) / 2), ha="center", va="center", fontsize=7)
    middle = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in (*boxes, *tokens)]
    for query, key, _, weight in edges:
        ends = middle[int(query)], middle[int(key)]
        arrow = FancyArrowPatch(
            *ends, arrowstyle="-|>", mutation_scale=7, connectionstyle="arc3,rad=0.15", color=STYLE["c3"]["color"],
            linewidth=0.4 + 2 * weight, alpha=0.25 + 0.7 * min(1.0, weight),
        )  # fmt: skip
        axes.add_patch(arrow)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
    colour, shape = (int(v) for v in looks[reference])
    question = TEMPLATES[KINDS[kind]].format(colour=LOOKS[colour], shape=SHAPES[shape])
    said = int(curves["picture/answer"][0])
    answer = words[said] if 0 <= said < len(words) else "a fixed word"
    axes.set_title(f"{question}?  {answer}", loc="left", fontsize=8)
    caption = (
        f"{experiment.title}: the strongest attention of the last layer, largest over heads, from the right answer's "
        "token and the reference (red box) to what they look at; the first spatial question of the test scenes, right "
        "or not."
    )
    return finish(figure, folder, f"attention_{name}.svg", caption, f"A scene with attention edges, {experiment.title}")


def _rows(values: list[float], width: int) -> list[tuple[float, ...]]:
    return [tuple(values[at : at + width]) for at in range(0, len(values), width)]
