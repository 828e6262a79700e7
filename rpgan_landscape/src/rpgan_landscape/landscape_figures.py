"""Pictures of the exact landscape (section 4 of the specification): g over (y1, y2), trees, histograms, a descent.

Nothing here is measured: every picture follows from the losses alone, in a few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from shared.figures import COLOURS, GRID, INK, Figure, finish, use_house_style
from shared.runs.store import write_atomic

from rpgan_landscape.landscape import (
    MergeTree,
    analyse,
    barrier_tree,
    descend,
    global_minimum,
    lipschitz_values,
    pattern,
    value,
    values,
)
from rpgan_landscape.landscape.games import resolve
from rpgan_landscape.landscape.states import State
from rpgan_landscape.landscape.topology import levels, strict_minima

TITLES = {
    "js": "JS", "ls": "LS", "hinge": "hinge", "w": "W",
    "rs": "RS", "rp_ls": "Rp-LS", "rp_hinge": "Rp-hinge", "rp_w": "Rp-W",
    "allpairs_logistic": "all-pairs logistic", "allpairs_ls": "all-pairs LS", "allpairs_hinge": "all-pairs hinge",
}  # fmt: skip
ROWS = (
    ("js", "rs", "allpairs_logistic"),
    ("ls", "rp_ls", "allpairs_ls"),
    ("hinge", "rp_hinge", "allpairs_hinge"),
    ("w", "rp_w", None),
)
TREES = ("js", "hinge", "rs", "allpairs_logistic")
REALS = np.array([0.25, 0.75])
LIPSCHITZ = 10.0
DEPTH = LinearSegmentedColormap.from_list("depth", [COLOURS["ours"], "#f2f2f2"])
GOOD, BAD = INK, COLOURS["vermillion"]


def pair_landscapes(folder: Path, points: int = 41) -> Figure:
    """g over (y1, y2) for two reals, every loss: all critics on the left of each pair, L-Lipschitz ones on the right.

    Colour is the height of g between its minimum and the largest value shown of that loss.
    """
    figure, axes = plt.subplots(4, 6, figsize=(7.2, 5.6), sharex=True, sharey=True)
    for row, losses in zip(axes, ROWS):
        for (exact, smooth), loss in zip(zip(row[::2], row[1::2]), losses):
            for ax in (exact, smooth):
                ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=REALS, yticks=REALS)
                ax.set_xticklabels(["$x_1$", "$x_2$"])
                ax.set_yticklabels(["$x_1$", "$x_2$"])
                ax.tick_params(length=0)
                ax.grid(False)
                ax.spines[["top", "right"]].set_visible(True)
            if loss is None:
                _key(exact, smooth)
                continue
            exact.set_title(TITLES[loss])
            _lipschitz(smooth, loss, points)
            if loss in ("w", "rp_w"):
                exact.text(0.5, 0.5, "infinite", ha="center", va="center", color=COLOURS["baseline"])
            else:
                _all_critics(exact, loss)
    for ax in axes[:, 0]:
        ax.set_ylabel("$y_2$", labelpad=0)
    for ax in axes[-1, :4]:
        ax.set_xlabel("$y_1$", labelpad=0)
    return finish(
        figure, folder, "pair_landscapes.svg",
        "g over the places of two fakes: for every critic (left of each pair) it is flat but for lines and points, "
        f"for {LIPSCHITZ:g}-Lipschitz critics (right) these have width. Blue is low, a ring is a global minimum, a red "
        "cross a strict bad one: both fakes on one real point. Losses with fixed pairs and the hinge have none.",
        "Heat maps of g over (y1, y2) for eleven losses, for unrestricted and for Lipschitz critics",
    )  # fmt: skip


def _all_critics(ax: Axes, loss: str) -> None:
    """g is one value off the data; lines where one fake is on a real point, points where both are."""
    least = global_minimum(loss)

    def colour(y: Sequence[float]) -> tuple[float, float, float, float]:
        return DEPTH(1 - value(loss, y, REALS) / least)

    ax.set_facecolor(colour((0.5, 0.5)))
    for x in REALS:
        ax.axvline(x, color=colour((x, 0.5)), linewidth=2)
        ax.axhline(x, color=colour((0.5, x)), linewidth=2)
    strict = strict_minima(levels(resolve(loss), 2)[0])
    for y in ((a, b) for a in REALS for b in REALS):
        ax.plot(*y, "s", color=colour(y), markersize=5)
        if strict[pattern(REALS, y)]:
            _mark(ax, y, value(loss, y, REALS) < least + 1e-9)


def _lipschitz(ax: Axes, loss: str, points: int) -> None:
    t = np.linspace(0, 1, points)
    g = lipschitz_values(loss, np.stack(np.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 2), REALS, LIPSCHITZ)
    height = (g - g.min()) / (g.max() - g.min())
    half = 0.5 / (points - 1)
    ax.imshow(
        height.reshape(points, points).T, origin="lower", extent=(-half, 1 + half, -half, 1 + half), cmap=DEPTH,
        vmin=0, vmax=1, interpolation="nearest",
    )  # fmt: skip
    contours = height.reshape(points, points).T
    ax.contour(t, t, contours, levels=[0.2, 0.4, 0.6, 0.8], colors=INK, linewidths=0.3, linestyles="-", alpha=0.5)


def _key(left: Axes, right: Axes) -> None:
    """In the place of a loss that is none: what the marks and the two panels of a loss mean."""
    for ax in (left, right):
        ax.axis("off")
    _mark(left, (0.1, 0.9), True)
    _mark(left, (0.1, 0.65), False)
    words = ("global minimum", "strict bad minimum", "left: every critic", f"right: {LIPSCHITZ:g}-Lipschitz critics")
    for y, x, word in zip((0.9, 0.65, 0.4, 0.15), (0.25, 0.25, 0.02, 0.02), words):
        left.text(x, y, word, va="center").set_in_layout(False)


def _mark(ax: Axes, at: Sequence[float], good: bool) -> None:
    style = (
        {"marker": "o", "markerfacecolor": "none", "markeredgecolor": GOOD} if good else {"marker": "x", "color": BAD}
    )
    ax.plot(*at, **style, markersize=8 if good else 6, markeredgewidth=1.3 if good else 1.6)  # type: ignore[arg-type]


def barrier_trees(folder: Path) -> Figure:
    """Merge trees of the strict minima for n = 3 and 4: a line ends at a minimum and joins others where a path can."""
    figure, axes = plt.subplots(2, len(TREES), figsize=(7.2, 4.4), sharey=True)
    for n, row in zip((3, 4), axes):
        for ax, loss in zip(row, TREES):
            tree, least = barrier_tree(loss, n), global_minimum(loss)
            _branch(ax, tree, 0, -least, least)
            leaves = tree.leaves()
            bad = sum(leaf.value > least + 1e-9 for leaf in leaves)
            ax.set(xticks=[], xlabel=f"{len(leaves) - bad} good, {bad} bad", ylim=(-1.04, 0.02))
            ax.spines["bottom"].set_visible(False)
            ax.set_title(TITLES[loss] if n == 3 else "")
        row[0].set_ylabel(f"$g\\,/\\,|\\min g|$,  n = {n}")
    return finish(
        figure, folder, "barrier_trees.svg",
        "Every line ends below in a strict minimum and meets another where the lowest path between the two passes. "
        "JS and the all-pairs loss have a minimum for each collapse (red), shallower the larger the crowd; the hinge "
        "and the paired loss have the n! global minima only (black).",
        "Merge trees of the strict minima of four losses, for three and for four points",
    )  # fmt: skip


def _branch(ax: Axes, tree: MergeTree, left: int, scale: float, least: float) -> float:
    """Draw a tree whose first leaf is number `left`; returns where its stem stands."""
    if tree.state is not None:
        return float(left)
    stems = []
    for child in tree.children:
        stem = _branch(ax, child, left, scale, least)
        bad = child.leaves()[0].value > least + 1e-9
        ax.plot(
            [stem, stem], [child.value / scale, tree.value / scale], color=BAD if bad else GOOD, linewidth=0.7, ls="-"
        )
        left += len(child.leaves())
        stems.append(stem)
    ax.plot([stems[0], stems[-1]], [tree.value / scale] * 2, color=INK, linewidth=0.7, linestyle="-")
    return (stems[0] + stems[-1]) / 2


def histograms(folder: Path, n: int = 5) -> Figure:
    """How many states have which value: all states, and those with every fake on a real point."""
    figure, axes = plt.subplots(2, 2, figsize=(7.2, 3.8), sharex=True, sharey=True)
    for ax, loss in zip(axes.flat, TREES):
        found = analyse(loss, n)
        for histogram, label, colour, width in (
            (found.hist_all, "all states", COLOURS["baseline"], 0.022),
            (found.hist_on_data, "every fake on a real point", COLOURS["ours"], 0.011),
        ):
            g = np.array(list(histogram)) / -found.global_minimum
            ax.bar(g, list(histogram.values()), width=width, color=colour, label=label)
        ax.set(yscale="log", title=TITLES[loss])
    for ax in axes[1]:
        ax.set_xlabel("$g\\,/\\,|\\min g|$")
    for ax in axes[:, 0]:
        ax.set_ylabel("states")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return finish(
        figure, folder, "value_histograms.svg",
        f"The values of g over the {(n + 1) ** n:,} states of n = {n}: losses that count fakes one by one have many "
        "levels, the hinge (modes covered) and the paired loss (pairs on cycles) have n + 1.",
        "Histograms of g over all states and over those on the data, for four losses",
    )  # fmt: skip


def descent(folder: Path, start: State = (0, 0, 0, 0, 0)) -> Figure:
    """The constructive path of RS as an animation, beside g of RS and of JS along it."""
    path = descend("rs", start)
    assert path is not None  # a pairing loss has one from everywhere
    curves = {name: values(name, path) / -global_minimum(name) for name in ("rs", "js")}
    write_atomic(folder / "descent.svg", _animation(path, curves))
    return Figure(
        "descent.svg",
        f"The constructive path from total collapse, n = {len(start)}: fakes off the cycles leave (RS: g stays), then "
        "each arrives on its own partner (g falls). JS has to rise on the same path, and so on every other.",
        f"Animation: {len(start)} fakes leave one real point and arrive one by one on their own; g of RS never rises, "
        "g of JS rises first",
    )


def _animation(path: list[State], curves: dict[str, np.ndarray], seconds: float = 12.0) -> str:
    """SVG with SMIL, no script: the fakes move to each state of `path` in turn, and a dot follows each curve."""
    n, steps = len(path[0]), len(path)
    spacing, ground = 150 / max(n - 1, 1), 96.0

    def place(state: State, i: int) -> tuple[float, float]:
        """Fakes on a real point are stacked above it; one outside waits in the row on top, each at its own place."""
        if state[i] == n:
            return 28 + (i + 0.5) * spacing * (n - 1) / n, 34.0
        return 28 + state[i] * spacing, ground - 9.0 * (1 + sum(k == state[i] for k in state[:i]))

    left, right, top, bottom = 252.0, 462.0, 34.0, 126.0
    low, high = min(c.min() for c in curves.values()), max(c.max() for c in curves.values())

    def at(step: int, g: float) -> tuple[float, float]:
        return left + (right - left) * step / (steps - 1), bottom - (bottom - top) * (g - low) / (high - low)

    # Half of each interval at rest, half moving; the last state is held for two.
    times = [t / (steps + 1) for s in range(steps) for t in (s, s + 0.5)]
    key_times = ";".join(f"{t:.4f}" for t in [*times, 1.0])

    def animate(attribute: str, stations: Sequence[float]) -> str:
        doubled = ";".join(f"{x:.1f}" for x in [*np.repeat(stations, 2), stations[-1]])
        return (
            f'<animate attributeName="{attribute}" dur="{seconds:g}s" repeatCount="indefinite" '
            f'keyTimes="{key_times}" values="{doubled}"/>'
        )

    def dot(stations: Sequence[tuple[float, float]], radius: float, colour: str) -> str:
        (x, y), xs, ys = stations[-1], [x for x, _ in stations], [y for _, y in stations]
        # Where nothing moves (print), the last state is shown.
        moves = animate("cx", xs) + animate("cy", ys)
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" style="fill: {colour}">{moves}</circle>'

    def text(x: float, y: float, words: str, anchor: str = "middle", colour: str = INK) -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill: {colour}">{words}</text>'

    def line(ends: Sequence[tuple[float, float]], colour: str, width: float, dash: str = "") -> str:
        dashed = f"; stroke-dasharray: {dash}" if dash else ""
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in ends)
        return f'<polyline points="{corners}" style="fill: none; stroke: {colour}; stroke-width: {width}{dashed}"/>'

    drawn = [
        line([(16, ground), (190, ground)], GRID, 1),
        text(8, 16, "fakes", "start"),
        text(8, 130, "real points", "start"),
    ]
    for k in range(n):
        x = 28 + k * spacing
        drawn += [line([(x, ground - 3), (x, ground + 3)], INK, 1.2), text(x, ground + 14, f"x{k + 1}")]
    colours = {"rs": COLOURS["ours"], "js": COLOURS["baseline"]}
    drawn += [line([(left, top), (left, bottom), (right, bottom)], INK, 0.6), text(left, 14, "g / |min g|")]
    drawn += [text(left - 4, y + 3, f"{g:.1f}".replace("-", "−"), "end") for y, g in ((top, high), (bottom, low))]
    drawn.append(text((left + right) / 2, 142, "step of the path"))
    for name, curve in curves.items():
        stations = [at(s, g) for s, g in enumerate(curve)]
        # Values are held until the next step: g jumps.
        stairs = [p for here, there in pairwise(stations) for p in (here, (there[0], here[1]))] + [stations[-1]]
        drawn += [line(stairs, colours[name], 1.5, "" if name == "rs" else "4 2"), dot(stations, 3, colours[name])]
        x, y = stations[1]
        drawn.append(text(x, y - 5 if name == "rs" else y + 14, TITLES[name], "start", colours[name]))
    drawn += [dot([place(state, i) for state in path], 4, COLOURS["orange"]) for i in range(n)]
    font = "font: 9px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="480pt" height="150pt" viewBox="0 0 480 150"'
    return "\n".join([f'{head} style="{font}">', *drawn, "</svg>"]) + "\n"


def draw(folder: Path) -> list[Figure]:
    """Every picture of the exact landscape, as SVG files in `folder`."""
    use_house_style()
    return [make(folder) for make in (pair_landscapes, barrier_trees, histograms, descent)]
