"""The pictures of E7 to E10: sky maps, joint rates, latency and recovery. Captions are computed from what is drawn."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binom
from shared.claims.results import ExperimentResult, Results
from shared.figures import COLOURS, Figure, finish

from mma_realtime.evaluation.joint import FARS
from mma_realtime.tables import having

ALLOWED = 3.0  # s from strain to notice (section 12)


def together(experiment: ExperimentResult, curve: str) -> np.ndarray:
    """A curve's points of all seeds."""
    return np.concatenate([np.asarray(run.curves[curve], dtype=float) for run in experiment.runs])


def skymaps(results: Results, folder: Path) -> Figure | None:
    """E7: credible levels of the truth against their rank, and how large the maps are."""
    found = having(results, "skymaps/contained90")
    if not found:
        return None
    one = found[0]
    levels, areas = (np.sort(together(one, f"curve/skymaps/{what}")) for what in ("levels", "areas90"))
    n = len(levels)
    shares = (np.arange(n) + 1) / n
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    p = np.linspace(0, 1, 101)
    low, high = binom.ppf(0.025, n, p) / n, binom.ppf(0.975, n, p) / n
    left.fill_between(p, low, high, color="0.88", linewidth=0, label=f"95 % of {n} honest maps")
    left.plot(p, p, color="0.4", linestyle="--", linewidth=0.8)
    left.step([0, *levels, 1], [0, *shares, 1], where="post", color=COLOURS["ours"], label=one.title)
    left.set(xlabel="credible level", ylabel="share of injections within", xlim=(0, 1), ylim=(0, 1))
    left.legend(frameon=False, fontsize=7, loc="upper left")
    right.step([areas[0], *areas], [0, *shares], where="post", color=COLOURS["ours"])
    right.set(xscale="log", xlabel="90 % area (deg²)", ylabel="share of maps at most so large", ylim=(0, 1))
    within = [int((levels <= level).sum()) for level in (0.5, 0.9)]
    return finish(
        figure, folder, "skymaps.svg",
        f"Left: of {n} injections {within[0]} lie within the 50 % region and {within[1]} within the 90 % one; above "
        f"the diagonal maps are wider than need be. Right: half of the maps have a 90 % area of at most "
        f"{np.median(areas):,.0f} deg², the largest has {areas[-1]:,.0f}.",
        "Share of injections within a credible level against that level, and the distribution of 90 % areas",
    )  # fmt: skip


def joint(results: Results, folder: Path) -> Figure | None:
    """E8: rates of candidates alone, with a burst's time, and with its place too."""
    found = having(results, "joint/gain")
    if not found:
        return None
    names, runs = list(FARS), found[0].runs
    drawn = {
        "alone": np.array([[FARS[name] for name in names]]),
        "with the burst's time": np.array([[run.metrics[f"joint/temporal_far/{n}"] for n in names] for run in runs]),
        "with its time and place": np.array(
            [[run.metrics[f"joint/spatiotemporal_far/{n}"] for n in names] for run in runs]
        ),
    }
    figure, axes = plt.subplots(figsize=(4.4, 3.0))
    for (label, rates), colour, marker in zip(drawn.items(), ("0.45", COLOURS["orange"], COLOURS["ours"]), "so^"):
        for number, run in enumerate(rates):
            axes.plot(range(len(names)), run, marker, color=colour, markersize=5, label=None if number else label)
    axes.set_xticks(range(len(names)), [f"a {name}" for name in names])
    axes.set(yscale="log", xlabel="candidate of one false alarm", ylabel="false alarms (Hz)")
    axes.margins(x=0.12)
    axes.legend(frameon=False, fontsize=7, loc="lower left")
    places = [run.metrics["joint/gain"] for run in runs]
    times = [run.metrics["joint/time_gain"] for run in runs]
    return finish(
        figure, folder, "joint.svg",
        f"A pair like GW170817 and its burst: false-alarm rates of candidates alone and together with the burst, "
        f"{len(runs)} seeds. The places lower the rate {between(places)} times, the time {between(times)} times.",
        "False-alarm rates of a candidate alone, with the time and with the place of a gamma-ray burst",
    )  # fmt: skip


def between(values: list[float]) -> str:
    """Three digits; the range, where there is one."""
    low, high = (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def latency(results: Results, folder: Path) -> Figure | None:
    """E9: how long notices took, and the memory beside the strain."""
    found = having(results, "latency_p99")
    if not found:
        return None
    one = found[0]
    total = together(one, "curve/latency/total")
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
    left.hist(total, bins=np.arange(0, max(ALLOWED, total.max()) + 0.2, 0.1), color=COLOURS["ours"])
    left.axvline(ALLOWED, color="0.4", linestyle="--", linewidth=0.8)
    left.annotate("allowed", (ALLOWED, 0.98), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=7,
                  color="0.3", rotation=90)  # fmt: skip
    left.set(xlabel="merger to notice on the bus (s)", ylabel="events", xlim=(0, None))
    for run in one.runs:
        minutes = np.asarray(run.curves["curve/latency/memory_s"]) / 60
        right.plot(minutes, run.curves["curve/latency/memory_mb"], color=COLOURS["ours"], linewidth=1)
    most = together(one, "curve/latency/memory_mb").max()
    right.set(xlabel="strain (min)", ylabel="memory (MB)", ylim=(0, 1.15 * most))
    slopes = [run.metrics["memory_mb_per_hour"] for run in one.runs]
    over = int((total > ALLOWED).sum())
    return finish(
        figure, folder, "latency.svg",
        f"{len(total)} events: half of the notices are on the bus within {np.median(total):.2f} s of the merger, the "
        f"slowest after {total.max():.2f} s; {over or 'none'} took more than {ALLOWED:g} s. In the second half memory "
        f"changed by {between(slopes)} MB an hour.",
        "Histogram of the time from merger to notice, and resident memory against strain",
    )  # fmt: skip


def recovery(results: Results, folder: Path) -> Figure | None:
    """E10: where the replay was killed, what there was to lose, and how soon it was back."""
    found = having(results, "recovery/kills")
    if not found:
        return None
    run = found[0].runs[0]
    at = {what: np.asarray(run.curves[f"curve/recovery/{what}"]) for what in ("killed_s", "injected_s", "alerted_s")}
    starts = np.asarray(run.curves["curve/recovery/starts"])
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 3.0), height_ratios=(1, 1.3))
    rows = (("kills", "killed_s", "x", COLOURS["vermillion"]), ("injections", "injected_s", "|", "0.45"),
            ("alerted", "alerted_s", "o", COLOURS["ours"]))  # fmt: skip
    for row, (_, what, marker, colour) in enumerate(rows):
        top.plot(at[what], np.full(len(at[what]), -row), marker, color=colour, markersize=6)
    top.set_yticks([0, -1, -2], [name for name, *_ in rows])
    top.set(xlabel="strain (s)", xlim=(0, None), ylim=(-2.6, 0.6))
    top.grid(visible=False)
    bottom.hist(starts, bins=min(20, max(1, len(starts))), color=COLOURS["ours"])
    bottom.set(xlabel="start of a process to its first hop (s)", ylabel="starts", xlim=(0, None))
    alerted, once, wrong = (run.metrics[f"recovery/{key}"] for key in ("alerted", "alerted_once", "lost_or_doubled"))
    return finish(
        figure, folder, "recovery.svg",
        f"{run.metrics['recovery/kills']:.0f} kills in the strain (seed {run.seed}). Of {alerted:.0f} injections that "
        f"the undisturbed replay alerts, the killed one alerts {once:.0f} once; lost, doubled or out of order: "
        f"{wrong:.0f}.",
        "Times of kills, injections and alerts in the strain, and how soon a killed replay was back",
    )  # fmt: skip


def draw(results: Results, folder: Path) -> list[Figure]:
    """Every figure whose experiments are there."""
    made = [make(results, folder) for make in (skymaps, joint, latency, recovery)]
    return [figure for figure in made if figure is not None]
