"""The pictures of section 11: fig1 to fig5, each with its points as CSV beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from shared.claims.results import ExperimentResult, Results
from shared.errors import UserError
from shared.figures import COLOURS, Figure, finish, use_house_style
from shared.runs.store import write_atomic

from logsobolev_bounds.tables import BOUNDS, MODE_TITLES, MODES, mean

COLOUR = {"identity": "ours", "total": "orange", "within": "vermillion", "class_corrected": "green"}
LINES = ["-", "--", "-.", ":", (0, (1, 1)), (0, (5, 1))]


def _found(results: Results, prefix: str, metric: str) -> list[tuple[str, ExperimentResult]]:
    return [
        (n, e) for n, e in results.experiments.items()
        if n.startswith(prefix) and e.runs and (metric in e.runs[0].metrics or metric in e.runs[0].curves)
    ]  # fmt: skip


def _points(folder: Path, name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """What a figure shows, as `name`.csv."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(columns)
    out.writerows([f"{cell:.8g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_atomic(folder / f"{name}.csv", text.getvalue())


def complexity(results: Results, folder: Path) -> Figure | None:
    """fig1: C(lambda) with its sub-gamma fit."""
    found = [(n, e) for n, e in _found(results, "prior_d", "curve/C_identity") if "_d0_" in n or "_d2_" in n]
    if not found:
        return None
    points: list[tuple[object, ...]] = []
    figure, all_axes = plt.subplots(1, 2, figsize=(7, 2.9), sharey=True)
    for axes, mode in zip(all_axes, ("identity", "total")):
        for i, (_, e) in enumerate(found):
            run = e.runs[0]
            if f"curve/C_{mode}" not in run.curves:
                continue
            m, largest = run.metrics["m"], float(e.config["prior"].get("largest", 1.0))
            lam = m * largest * np.arange(1, 21) / 20
            c = np.array(run.curves[f"curve/C_{mode}"])
            trusted = np.array(run.curves[f"curve/ess_{mode}"]) >= 10
            colour = plt.colormaps["viridis"](i / max(1, len(found)))
            axes.plot(lam[trusted], c[trusted], "o", markersize=3, color=colour)
            axes.plot(lam[~trusted], c[~trusted], "o", markersize=3, color=colour, fillstyle="none")
            fit = np.full(len(lam), np.nan)
            if f"v/{mode}" in run.metrics:
                v, scale = run.metrics[f"v/{mode}"], run.metrics[f"c/{mode}"]
                label = e.title.replace("digits, ", "")
                fit = lam**2 * v / (2 * (1 - scale * lam))
                axes.plot(lam, fit, "-", color=colour, linewidth=0.9, label=label)
            ess = run.curves[f"curve/ess_{mode}"]
            points += [(e.title, mode, *map(float, row)) for row in zip(lam, c, fit, ess)]
        axes.set(xscale="log", yscale="log", xlabel="lambda", title=MODE_TITLES[mode])
    _points(folder, "fig1_complexity", ("prior", "covariance", "lambda", "C", "fit", "ess"), points)
    all_axes[0].set_ylabel("C(lambda)")
    all_axes[1].legend(*all_axes[0].get_legend_handles_labels(), frameon=False, fontsize=6, loc="center left",
                       bbox_to_anchor=(1, 0.5))  # fmt: skip
    return finish(
        figure, folder, "fig1_complexity.svg",
        "Complexity of the prior against lambda on the digits, with sub-gamma fits (lines). Open circles: an effective "
        "sample size below 10, so C is under-estimated there.",
        "Complexity against lambda with sub-gamma fits for several priors",
    )  # fmt: skip


def depth(results: Results, folder: Path) -> Figure | None:
    """fig2: the gradient norm against depth, and what section 3.10 predicts."""
    found = _found(results, "slope_s", "curve/grad_sq")
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(4.4, 3.0))
    names = ["ours", "ours_variant", "orange", "green", "vermillion", "purple"]
    points: list[tuple[object, ...]] = []
    for i, (_, e) in enumerate(found):
        x = np.array(e.runs[0].curves["curve/depth"])
        rows = np.array([run.curves["curve/grad_sq"] for run in e.runs])
        colour = COLOURS[names[i % len(names)]]
        measured = np.exp(np.log(rows).mean(0))
        sigma_p, predicted = float(e.config["prior"]["sigma_p"]), e.runs[0].curves["curve/predicted"]
        points += [(sigma_p, int(a), float(b), float(p)) for a, b, p in zip(x, measured, predicted)]
        axes.plot(x, measured, "o", color=colour, markersize=4)
        axes.plot(x, e.runs[0].curves["curve/predicted"], color=colour, linestyle=LINES[i % len(LINES)], linewidth=1,
                  label=f"sigma_p = {e.config['prior']['sigma_p']}")  # fmt: skip
    _points(folder, "fig2_depth", ("sigma_p", "hidden_layers", "grad_sq", "predicted"), points)
    axes.set(yscale="log", xlabel="hidden layers", ylabel="E |grad_x loss|²")
    axes.legend(frameon=False, fontsize=7)
    return finish(
        figure, folder, "fig2_depth.svg",
        "The input gradient at the prior vanishes or explodes geometrically with depth; the critical deviation at 64 "
        "units is "
        "0.177. Lines: the closed form of section 3.10, good while logits stay small (mean over seeds).",
        "Squared gradient norm against depth for several prior deviations, with predictions",
    )  # fmt: skip


def ratios(results: Results, folder: Path) -> Figure | None:
    """fig3: psi over its bound for every draw, by covariance."""
    for name in ("mnist_prior_d1_s1", "prior_d1_s1"):
        e = results.experiments.get(name)
        if e is not None and e.runs and "ratio/total" in e.runs[0].curves:
            break
    else:
        return None
    figure, axes = plt.subplots(figsize=(5.2, 2.9))
    bins = np.geomspace(0.02, 4, 45).tolist()
    points: list[tuple[object, ...]] = []
    for mode in MODES:
        values = [value for run in e.runs for value in run.curves.get(f"ratio/{mode}", [])]
        if not values:
            continue
        points += [(mode, value) for value in values]
        axes.hist(values, bins, color=COLOURS[COLOUR[mode]], alpha=0.6, label=MODE_TITLES[mode])
    _points(folder, "fig3_ratio", ("covariance", "psi_over_bound"), points)
    axes.axvline(1, color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate("it fails →", (1, 0.97), xycoords=("data", "axes fraction"), xytext=(4, -4),
                  textcoords="offset points", fontsize=7, va="top")  # fmt: skip
    axes.set(xscale="log", xlabel="psi / bound at alpha = 1", ylabel="prior draws")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return finish(
        figure, folder, "fig3_ratio.svg",
        f"{e.title}: the exact log-MGF over its log-Sobolev bound, draw by draw, for four assumed covariances. Only "
        f"left of the "
        "line is the bound one; far left it is loose.",
        "Histogram over prior draws of the ratio of the log-MGF to its bound for four covariance modes",
    )  # fmt: skip


def terms(results: Results, folder: Path) -> Figure | None:
    """fig4: the bound's terms against the prior's deviation."""
    found = _found(results, "c5_s", "term/risk")
    if len(found) < 2:
        return None
    lambdas = sorted({run.metrics["lambda_over_m/lsi"] for _, e in found for run in e.runs})
    if len(lambdas) > 1:  # terms over different lambdas do not make one curve
        shown = ", ".join(f"{each:g}" for each in lambdas)
        raise UserError(
            f"fig4 stacks terms at one lambda, these are at lambda / m = {shown}: give model.lambdas of c5_* "
            "the same single value"
        )
    found.sort(key=lambda pair: pair[1].config["model"]["sigma_p"])
    x = np.array([e.config["model"]["sigma_p"] for _, e in found])
    parts = {
        "empirical risk": [mean(e, "term/risk") for _, e in found],
        "KL / lambda": [mean(e, "term/KL_over_lambda") + mean(e, "term/confidence_over_lambda") for _, e in found],
        "C / lambda": [mean(e, "term/C_over_lambda") for _, e in found],
    }
    columns = ("sigma_p", "empirical_risk", "KL_and_confidence_over_lambda", "C_over_lambda")
    _points(folder, "fig4_terms", columns, [tuple(map(float, row)) for row in zip(x, *parts.values())])
    figure, axes = plt.subplots(figsize=(4.6, 3.0))
    colours = [COLOURS[c] for c in ("baseline", "ours_variant", "orange")]
    axes.stackplot(x, *parts.values(), labels=list(parts), colors=colours, alpha=0.8)
    axes.plot(x, np.sum(list(parts.values()), 0), "o-", color=COLOURS["ours"], label="bound")
    axes.axhline(np.log(10), color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate("a uniform guess: ln 10", (x[0], np.log(10)), xytext=(2, 3), textcoords="offset points", fontsize=7)
    axes.set(xlabel="sigma_p", ylabel="bound on the true NLL (nats)", ylim=(0, None))
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return finish(
        figure, folder, "fig4_terms.svg",
        f"A narrow prior cannot fit, a wide one is complex: the bound at lambda = {lambdas[0]:g} m (total covariance, "
        "an estimate) is U-shaped in the prior's deviation (mean over seeds).",
        "Stacked terms of the bound against the prior's standard deviation",
    )  # fmt: skip


def bars(results: Results, folder: Path) -> Figure | None:
    """fig5: all bounds side by side."""
    found = [
        (n, e)
        for n, e in _found(results, "", "bound/lsi")
        if n in ("digits_linear", "digits_mlp1", "digits_mlp2", "mnist_linear")
    ]
    if not found:
        return None
    nll = [(title, key) for title, key in BOUNDS if "0-1" not in title]
    figure, axes = plt.subplots(figsize=(6.4, 2.9))
    width = 0.8 / len(nll)
    names = ["orange", "ours", "green", "baseline", "baseline_2"]
    for i, (title, key) in enumerate(nll):
        values = [mean(e, f"bound/{key}") for _, e in found]
        axes.bar(np.arange(len(found)) + i * width, values, width * 0.9, color=COLOURS[names[i % 5]], label=title)
    rows = [(e.title, title, mean(e, f"bound/{key}")) for _, e in found for title, key in nll]
    rows += [(e.title, "test NLL", mean(e, "test/nll")) for _, e in found]
    _points(folder, "fig5_bounds", ("network", "bound", "value"), rows)
    axes.plot(np.arange(len(found)) + 0.4 - width / 2, [mean(e, "test/nll") for _, e in found], "k_", markersize=24,
              label="test NLL")  # fmt: skip
    axes.axhline(np.log(10), color=COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1)
    axes.set_xticks(
        np.arange(len(found)) + 0.4 - width / 2, [e.title.replace(", ", "\n") for _, e in found], fontsize=7
    )
    axes.set(ylabel="bound on the true NLL (nats)")
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return finish(
        figure, folder, "fig5_bounds.svg",
        "Bounds on the NLL of trained networks; the dashed line is a uniform guess among ten classes, the black ones "
        "the NLL "
        "on test examples. All of them are estimates: see the table for why.",
        "Bars of bound values for trained networks",
    )  # fmt: skip


def draw(results: Results, folder: Path) -> list[Figure]:
    """Every figure whose experiments are there."""
    use_house_style()
    makers = (complexity, depth, ratios, terms, bars)
    return [figure for figure in (make(results, folder) for make in makers) if figure is not None]
