"""What single claims cannot say: every bound with its kind, the inequality's ratio, coverage by simulation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import get_args

from shared.claims.results import ExperimentResult, Results, Table

from logsobolev_bounds.complexity import Mode

MODES: tuple[Mode, ...] = get_args(Mode)
MODE_TITLES = {
    "identity": "Euclidean norm", "total": "total covariance", "within": "within-class covariance",
    "class_corrected": "class-corrected",
}  # fmt: skip
BOUNDS = (
    ("LSI total", "lsi"), ("LSI Euclid", "lsi_euclid"), ("LSI class-corr.", "lsi_corrected"),
    ("clipped Hoeffding", "hoeffding_clip"), ("clipped kl-inv.", "seeger_clip"), ("0-1 kl-inv.", "seeger01"),
    ("0-1, inverted draws", "certificate01"),
)  # fmt: skip


def mean(experiment: ExperimentResult, metric: str) -> float:
    return statistics.fmean(run.metrics[metric] for run in experiment.runs)


def shown(experiment: ExperimentResult, metric: str, form: str = ".2f") -> str:
    values = [run.metrics[metric] for run in experiment.runs if metric in run.metrics]
    if len(values) < len(experiment.runs):
        return "∞"
    if len(values) == 1:
        return format(values[0], form)
    return f"{statistics.fmean(values):{form}} ± {statistics.stdev(values):{form}}"


def at_lambda(experiment: ExperimentResult) -> str:
    """lambda / m of the bound with the total covariance: one number, or those of the seeds."""
    return ", ".join(f"{each:g}" for each in sorted({run.metrics["lambda_over_m/lsi"] for run in experiment.runs}))


def _with(results: Results, metric: str) -> list[ExperimentResult]:
    return [e for e in results.experiments.values() if e.runs and metric in e.runs[0].metrics]


def bounds(results: Results) -> Table | None:
    """C4: every bound of every trained network; a cell says whether it is a certificate."""
    rows = []
    for e in _with(results, "bound/lsi"):
        cells = []
        for _, key in BOUNDS:
            certified = all(run.metrics.get(f"certificate/{key}", 0.0) for run in e.runs)
            cells.append(shown(e, f"bound/{key}") + (" ✓" if certified else ""))
        rows.append(
            [
                e.title, shown(e, "train/nll"), shown(e, "test/nll"), shown(e, "test/gibbs", ".3f"),
                shown(e, "test/ensemble", ".3f"), shown(e, "kl", ".0f"), *cells, at_lambda(e),
                shown(e, "ess/lsi", ".1f"),
            ]
        )  # fmt: skip
    if not rows:
        return None
    return Table(
        title="Every bound of every trained network",
        columns=[
            "network",
            "NLL train",
            "test",
            "0-1 Gibbs",
            "ensemble",
            "KL",
            *(title for title, _ in BOUNDS),
            "lambda / m",
            "ESS",
        ],
        rows=rows,
        note="✓: a certificate; every other value is an estimate: LSI values rest on the log-Sobolev inequality for "
        "data "
        "that are not Gaussian, and on an effective number of prior draws (ESS, of LSI total) that below 10 makes C "
        "too "
        "small; the others plug in a mean of posterior draws, or centre by the training set. lambda / m is that of LSI "
        "total: where several were allowed, the best of them, each at delta over their number. delta = 0.05. The "
        "papers' numbers are n/a. Mean ± standard deviation over seeds.",
    )


def inequality(results: Results) -> Table | None:
    """C3: psi over its bound at alpha = 1 or where the grid ends, by the covariance that was assumed."""
    rows = []
    for e in results.experiments.values():
        if not any(e.runs and f"ratio_mean/{mode}" in e.runs[0].metrics for mode in MODES):
            continue
        cells = []
        for mode in MODES:
            if f"ratio_mean/{mode}" in e.runs[0].metrics:
                share = 100 * mean(e, f"violated/{mode}")
                cells.append(f"{mean(e, f'ratio_mean/{mode}'):.2f} ({share:.0f} %)")
            else:
                cells.append("–")
        alpha = e.runs[0].metrics["ratio_alpha"]
        rows.append([e.title if alpha == 1 else f"{e.title} (at alpha = {alpha:g})", *cells])
    if not rows:
        return None
    return Table(
        title="Does the inequality hold on real images?",
        columns=["prior", *(MODE_TITLES[mode] for mode in MODES)],
        rows=rows,
        note="Mean over prior draws of psi / bound at alpha = 1 (or where a title says), and the share of draws above "
        "1, for which the bound is false on these images. Small ratios are loose bounds.",
    )


def _kind(experiment: ExperimentResult) -> str:
    """The data and the sort of network that a prior is of."""
    data = experiment.config["data"]
    scale = "" if data.get("scale", "unit") == "unit" else f", {data['scale']}"
    network = "LeNet" if experiment.config["prior"].get("network") == "lenet" else "linear models and MLPs"
    return f"{data['dataset']}{scale}, {network}"


def inequality_in_short(results: Results) -> Table | None:
    """C3 over all priors of a kind: the ranges that the README speaks of."""
    kinds: dict[str, list[ExperimentResult]] = {}
    for e in _with(results, "ratio_alpha"):
        if e.runs[0].metrics["ratio_alpha"] == 1:
            kinds.setdefault(_kind(e), []).append(e)
    rows = []
    for kind, found in kinds.items():
        for mode in MODES:
            own = [e for e in found if f"ratio_mean/{mode}" in e.runs[0].metrics]
            if not own:
                continue
            shares = [100 * mean(e, f"violated/{mode}") for e in own]
            means = [mean(e, f"ratio_mean/{mode}") for e in own]
            worst = max(run.metrics[f"ratio_worst/{mode}"] for e in own for run in e.runs)
            rows.append(
                [
                    kind, str(len(own)), MODE_TITLES[mode], f"{min(shares):.0f} to {max(shares):.0f}",
                    f"{1 / max(means):.2g} to {1 / min(means):.2g}", f"{1 / worst:.2g}",
                ]
            )  # fmt: skip
    if not rows:
        return None
    return Table(
        title="The inequality over all priors of a kind",
        columns=["kind", "priors", "covariance", "false for, % of the draws", "too large, mean", "too large, least"],
        rows=rows,
        note="At alpha = 1. From the prior with the least to the one with the most draws for which the bound is false; "
        "how many times too large it is: the inverse of a prior's mean of psi / bound, from the tightest prior to the "
        "loosest, and of the single draw where it is tightest (below 1: it is false there). Priors of a network that "
        "differ in sigma_p alone have the same normal draws, rescaled: they are not independent.",
    )


def fits(results: Results) -> Table | None:
    """C1: the sub-gamma fit."""
    rows = []
    for e in _with(results, "rms/identity"):
        forms = {"c/total": ".1e", "rms/total": ".3f", "ess/total": ".1f"}
        total = [shown(e, k, form) if "C/total" in e.runs[0].metrics else "–" for k, form in forms.items()]
        rows.append(
            [
                e.title, shown(e, "v/identity", ".2e"), shown(e, "c/identity", ".1e"), shown(e, "rms/identity", ".3f"),
                shown(e, "ess/identity", ".1f"), *total,
            ]
        )  # fmt: skip
    if not rows:
        return None
    columns = ["prior", "v, Euclid", "c", "RMS", "ESS at the end", "c, total cov.", "RMS", "ESS at the end"]
    return Table(
        title="Sub-gamma fits of C(lambda)",
        columns=columns,
        rows=rows,
        note="C = lambda^2 v / (2 (1 - c lambda)) on 20 lambdas up to m (or as the title says); RMS of the log "
        "residual. A negative c: C grows more slowly than the square of lambda. Where ESS < 10 at the end, C there is "
        "under-estimated, however well a curve fits it.",
    )


def simulations(results: Results) -> Table | None:
    """C6: how often bounds fail."""
    rows = []
    for e in _with(results, "identity_worst_z"):
        for name in sorted(e.runs[0].metrics):
            if name.startswith("violated/"):
                valid = e.runs[0].metrics[name.replace("violated/", "valid/")]
                rows.append(
                    [name.removeprefix("violated/").replace("_", " "), "yes" if valid else "no", shown(e, name, ".4f")]
                )
    if not rows:
        return None
    return Table(
        title="How often a bound lies below the true risk, delta = 0.05",
        columns=["setting", "its conditions hold", "share of replications"],
        rows=rows,
        note="Mean ± standard deviation over seeds of 2,000 replications each.",
    )


def theory(results: Results) -> Table | None:
    """Closed forms derived again."""
    rows = []
    for e in _with(results, "theory_worst_error"):
        for name in e.runs[0].metrics:
            if name.startswith("closed/"):
                what, at = name.removeprefix("closed/").split("; ")
                closed, derived, error = (
                    e.runs[0].metrics[name.replace("closed/", f"{kind}/")] for kind in ("closed", "derived", "error")
                )
                rows.append([what, at, f"{closed:.9g}", f"{derived:.9g}", f"{error:.0e}"])
    if not rows:
        return None
    return Table(
        title="Closed forms derived again",
        columns=["formula", "at", "closed form", "derived", "relative error"],
        rows=rows,
        note="By quadrature over a Gaussian input, or by the function that users call. psi: the exact exponent; T1: "
        "the log-Sobolev bound; T2: the bound with averages. Losses r²/2 and 3 + r of r ~ N(0, 1).",
    )


def ordered(tables: Sequence[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]


def tables(results: Results) -> list[Table]:
    """Every table whose experiments are there."""
    each = (bounds, inequality_in_short, inequality, fits, theory, simulations)
    return ordered([make(results) for make in each])
