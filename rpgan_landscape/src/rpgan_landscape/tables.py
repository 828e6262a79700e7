"""All variants side by side (section 8): what a single claim cannot say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import numpy as np
from shared.claims.results import ExperimentResult, Results, Table

from rpgan_landscape.intervals import Interval, median, ratio

PREFIX = "two_cluster_"
# (what, slower?, faster?): ratios of median escape times, and what is matched in each.
GAPS = (
    ("JS / RS, the reference's settings (JS D loss halved)", "js", "rs"),
    ("JS / RS, D steps matched: neither is halved", "js_matched", "rs"),
    ("JS / RS, D steps matched: both are halved", "js", "rs_halved_step"),
    ("RS shuffled / RS fixed pairing", "rs_shuffled", "rs"),
    ("RS all pairs / RS fixed pairing", "rs_all_pairs", "rs"),
    ("LS / Rp-LS, LS halved", "ls", "rp_ls"),
    ("JS / RS, minimax generators, D steps matched", "js_minimax", "rs_minimax"),
)


def escape_times(experiment: ExperimentResult) -> np.ndarray:
    """Over seeds; infinite where a run never escaped."""
    return np.array([r.metrics["escape_time"] if r.metrics["escaped"] else math.inf for r in experiment.runs])


def _time(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.0f}"


def _interval(found: Interval, form: str) -> str:
    if math.isnan(found.value):
        return "–"
    shown = [
        "∞" if math.isinf(v) else "?" if math.isnan(v) else format(v, form)
        for v in (found.value, found.low, found.high)
    ]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _mean(values: Iterable[float], form: str = ".2f") -> str:
    found = list(values)
    return format(statistics.fmean(found), form) if found else "–"


def variants(results: Results) -> Table | None:
    """One row a variant of the two-cluster experiment."""
    rows = []
    for name, experiment in results.experiments.items():
        if not name.startswith(PREFIX) or not experiment.runs:
            continue
        runs, times = experiment.runs, escape_times(experiment)
        ordered = np.sort(times)
        quartiles = [ordered[round(q * (len(times) - 1))] for q in (0.25, 0.75)]
        lost = [run.metrics["collapsed_iterations"] for run in runs]
        windows = [value for run in runs for value in run.curves["window/mean_d_loss"]]
        last = [value for run in runs for value in run.curves["window/last_d_loss"]]
        middle = median(times)
        rows.append(
            [
                experiment.title,
                f"{int(sum(run.metrics['escaped'] for run in runs))}/{len(runs)}",
                f"{_time(middle.value)} [{_time(middle.low)}, {_time(middle.high)}]",
                f"{_time(quartiles[0])}–{_time(quartiles[1])}",
                f"{statistics.fmean(lost):.0f} (max {max(lost):.0f})",
                str(sum(value >= 200 for value in lost)),
                str(len(windows)),
                _mean(windows, ".4f"),
                _mean(last, ".4f"),
            ]
        )
    if not rows:
        return None
    columns = [
        "variant",
        "escaped",
        "median escape [95 %]",
        "quartiles",
        "collapsed iterations",
        "runs with ≥ 200",
        "windows",
        "their D loss",
        "at their end",
    ]
    return Table(
        title="Two clusters: when GANs escape, and how long they are collapsed",
        columns=columns,
        rows=rows,
        note="Escape: first of 50 iterations in a row with 30 of 100 fakes in each cluster. Collapsed: 90 in one. "
        "Windows: collapsed for at least 100 iterations in a row; the prediction for their D loss is 0.4774 (JS "
        "halved), 0.9548 (JS), 0.3466 (RS). Intervals: bootstrap over seeds.",
    )


def gaps(results: Results) -> Table | None:
    """Ratios of median escape times: what remains of the published speed gap when its confound is taken away."""
    rows = []
    for says, slower, faster in GAPS:
        pair = [results.experiments.get(PREFIX + name) for name in (slower, faster)]
        if all(each is not None and each.runs for each in pair):
            a, b = (escape_times(each) for each in pair if each is not None)
            rows.append([says, f"{len(a)}, {len(b)}", _interval(ratio(a, b), ".2f")])
    if not rows:
        return None
    return Table(
        title="Two clusters: how much sooner",
        columns=["ratio of median escape times", "seeds", "ratio [95 %]"],
        rows=rows,
        note="1 lies in the interval: no difference was found.",
    )


def landscapes(results: Results) -> Table | None:
    """Section 3's table at the largest n."""
    found = {n: e for n, e in results.experiments.items() if n.startswith("landscape_") and e.runs}
    if not found:
        return None
    most = max(
        int(key[1:].split("/")[0]) for e in found.values() for key in e.runs[0].metrics if key.endswith("/strict")
    )
    rows = []
    for name, experiment in found.items():
        m = experiment.runs[0].metrics
        if f"n{most}/strict" not in m:
            continue
        rows.append(
            [
                name.removeprefix("landscape_"),
                *(f"{int(m[f'n{most}/{key}']):,}" for key in ("strict", "bad", "unreachable", "unreachable_on_data")),
                f"{m[f'n{most}/largest_barrier']:.6f}",
                f"{m['paths/found']:.0%}",
            ]
        )
    return Table(
        title=f"The exact landscape at n = {most}: {(most + 1) ** most:,} states, {most**most:,} of them on data",
        columns=[
            "loss",
            "strict minima",
            "of them bad",
            "unreachable states",
            "of them on data",
            "largest barrier",
            "descents that succeed",
        ],
        rows=rows,
        note=f"n^n − n! = {most**most - math.factorial(most):,}. "
        "Every state is enumerated; descents start at 200 random states of 2 to 8 points.",
    )


def _summary(run_values: list[float], form: str = ".2f") -> str:
    if len(run_values) < 2:
        return _mean(run_values, form)
    return f"{statistics.fmean(run_values):{form}} ± {statistics.stdev(run_values):{form}}"


def _trained(
    results: Results, prefix: str, title: str, columns: dict[str, tuple[str, str]], note: str = ""
) -> Table | None:
    """One row for each experiment of a prefix: mean ± standard deviation of the metrics that its runs share."""
    found = [e for n, e in results.experiments.items() if n.startswith(prefix) and e.runs and not e.chosen]
    shown = {k: v for k, v in columns.items() if any(all(k in r.metrics for r in e.runs) for e in found)}
    if not found or not shown:
        return None
    rows = [
        [e.title, str(len(e.runs))]
        + [
            _summary([r.metrics[k] for r in e.runs], form) if all(k in r.metrics for r in e.runs) else "–"
            for k, (_, form) in shown.items()
        ]
        for e in found
    ]
    return Table(
        title=title, columns=["variant", "seeds", *(label for label, _ in shown.values())], rows=rows, note=note
    )


POINTS = {
    "modes": ("modes at the end", ".1f"),
    "first_all_modes": ("first iteration with all", ".0f"),
    "found_all_modes": ("runs that found all", ".2f"),
    "high_quality": ("high-quality samples", ".2f"),
    "d_loss": ("D loss", ".3f"),
    "diverged": ("runs that diverged", ".2f"),
}


CLASSES = {
    "minority_share": ("share of the minority class", ".3f"),
    "frechet": ("Frechet distance", ".0f"),
    "d_loss": ("D loss", ".3f"),
}


def features_of(results: Results, prefix: str) -> str:
    """The title of the features that the runs of a prefix were judged by, and the classifier's accuracy."""
    found = {
        (key.removeprefix("features/"), value)
        for name, experiment in results.experiments.items()
        if name.startswith(prefix)
        for run in experiment.runs
        for key, value in run.metrics.items()
        if key.startswith("features/")
    }
    return ", ".join(f"{title} ({accuracy:.1%} of test images right)" for title, accuracy in sorted(found))


def tables(results: Results) -> list[Table]:
    """Every table whose experiments were run."""
    high = "High quality: within three standard deviations of a centre."
    never = "A run that never finds all modes counts with its number of iterations."
    diverged = "Diverged: a loss that is not finite, or most samples ten times outside the data."
    made = [
        landscapes(results),
        variants(results),
        gaps(results),
        _trained(results, "gaussians5_", "Five Gaussians", POINTS, f"{never} {high}"),
        _trained(results, "gaussians25_", "25 Gaussians with gradient penalties", POINTS, f"{never} {high} {diverged}"),
        _trained(results, "gamma_sweep_", "25 Gaussians: how large should gamma be?", POINTS, f"{high} {diverged}"),
        _trained(
            results, "mnist57_", "MNIST 5 and 7, one fifth of the fives", CLASSES,
            f"Features and classes by {features_of(results, 'mnist57_')}; the distance is no FID.",
        ),
    ]  # fmt: skip
    return [table for table in made if table is not None]
