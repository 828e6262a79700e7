"""The one figure style: matplotlib settings by one call, the colours by their role, SVG that is the same every time."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.runs.store import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

INK, GRID, PAPER = "#2b2b2b", "#dcdcdc", "#ffffff"  # what the report swaps in dark mode

# Okabe-Ito. Ours has one colour everywhere; baselines are grey or muted; the paper's value is a dashed grey line.
COLOURS = {
    "ours": "#0072b2",
    "ours_variant": "#56b4e9",
    "baseline": "#7a7a7a",
    "baseline_2": "#a08a5b",
    "baseline_3": "#8a6f8f",
    "paper": "#8c8c8c",
    "orange": "#e69f00",
    "green": "#009e73",
    "vermillion": "#d55e00",
    "purple": "#cc79a7",
}

_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Figure:
    """A figure that was drawn: its file, one sentence on what to see, and a description for who cannot see it."""

    file: str
    caption: str
    alt: str


def use_house_style() -> None:
    """Set matplotlib to the house style, without a display."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    plt.style.use(["default", str(Path(__file__).with_name("house.mplstyle"))])


def save(figure: MatplotlibFigure, path: Path | str) -> None:
    """Write a figure as SVG: text as text, in the reader's own sans-serif; the same bytes for the same figure.

    Raises:
        UserError: the disk is full.
    """
    import matplotlib

    buffer = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "house", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = re.sub(r"(?:'DejaVu Sans'|&quot;DejaVu Sans&quot;)(?:, [^;\"]*?sans-serif)?", _FONTS, buffer.getvalue())
    write_atomic(Path(path), "\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def finish(figure: MatplotlibFigure, folder: Path, file: str, caption: str, alt: str) -> Figure:
    """Save a figure in `folder`, close it, and return what a page says of it."""
    import matplotlib.pyplot as plt

    save(figure, folder / file)
    plt.close(figure)
    return Figure(file, caption, alt)


def paper_line(axes: Axes, value: float, label: str = "paper") -> None:
    """The paper's value as a dashed grey line that says so."""
    axes.axhline(value, color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    axes.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=COLOURS["paper"],
    )


def mean_band(axes: Axes, x: Sequence[float], runs: Sequence[Sequence[float]], label: str, **style: Any) -> None:
    """Mean over seeds, with a band of one sample standard deviation; `runs` is [seed][point]. Labelled at its end."""
    import numpy as np

    values = np.asarray(runs, dtype=float)
    mean = values.mean(0)
    deviation = values.std(0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
    (line,) = axes.plot(x, mean, label=label, **style)
    axes.fill_between(x, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.annotate(
        label, (x[-1], mean[-1]), xytext=(4, 0), textcoords="offset points", va="center", color=line.get_color()
    )
