"""What single claims cannot say: losses against their floors, samples against the ideal sampler, digits at any size."""

from __future__ import annotations

import statistics

from shared.claims.results import ExperimentResult, Results, Table

LOOKS = {
    "same": "as in training",
    "spread": "spread context",
    "finer": "4 times finer grid, same N_c",
    "finer_spread": "4 times finer grid, spread context",
    "all_context": "all pairs as context",
    "redrawn": "context redrawn at every step",
    "eta1": "eta 1",
    "steps_20": "20 steps",
}


def shown(experiment: ExperimentResult, metric: str, form: str = ".2f") -> str:
    """Mean and standard deviation over seeds; a dash where a run has none."""
    values = [run.metrics[metric] for run in experiment.runs if metric in run.metrics]
    if not values or len(values) < len(experiment.runs):
        return "–"
    if len(values) == 1:
        return format(values[0], form)
    return f"{statistics.fmean(values):{form}} ± {statistics.stdev(values):{form}}"


def having(results: Results, metric: str) -> list[tuple[str, ExperimentResult]]:
    return [(n, e) for n, e in results.experiments.items() if e.runs and metric in e.runs[0].metrics]


def losses(results: Results) -> Table | None:
    """How far every trained network is from the optimum (section 6)."""
    rows = [
        [
            e.title, shown(e, "test/own_only", ".3f"), shown(e, "test/loss", ".3f"),
            shown(e, "test/bayes_floor", ".3f"), shown(e, "test/context_efficiency", ".3f"),
            shown(e, "w2_sq/same"), shown(e, "ideal_w2_sq/same"),
            shown(e, "w2_sq_true/same", ".3f"), shown(e, "grain/same", ".3f"), shown(e, "ideal_grain/same", ".3f"),
        ]
        for _, e in having(results, "test/context_efficiency")
    ]  # fmt: skip
    if not rows:
        return None
    return Table(
        title="Trained networks and the mathematical optimum",
        columns=[
            "fields", "own-only floor", "loss", "Bayes floor", "context efficiency", "W2²", "W2² ideal", "W2² true",
            "grain", "grain ideal",
        ],
        rows=rows,
        note="Loss and floors: mean squared error of the noise over all t, with the same random contexts, averaged "
        "weights. Context efficiency: 0 = the context is not used, 1 = no network can be better (of the Earth, whose "
        "fields are not Gaussian, the best linear one). W2²: between the coefficients' Gaussians of 512 samples and "
        "the truth; ideal: what the best denoiser gives with the same context and steps; true: 512 true samples. "
        "Grain: mean square off the band. DDIM, 50 steps, eta 0. Mean ± standard deviation over seeds.",
    )  # fmt: skip


def looks(results: Results) -> Table | None:
    """The same trained networks, sampled otherwise."""
    found = having(results, "w2_sq/redrawn")
    if not found:
        return None
    rows = []
    for _, e in found:
        for name, title in LOOKS.items():
            if f"w2_sq/{name}" in e.runs[0].metrics:
                rows.append(
                    [
                        title, shown(e, f"w2_sq/{name}"), shown(e, f"ideal_w2_sq/{name}"), shown(e, f"variance/{name}"),
                        shown(e, f"grain/{name}", ".3f"), *(shown(e, f"r_{l}/{name}") for l in (1, 2, 3)),
                    ]
                )  # fmt: skip
    return Table(
        title="One trained network, sampled in other ways",
        columns=["circle, N_c = 16 in training", "W2²", "W2² ideal", "variance", "grain", "r_1", "r_2", "r_3"],
        rows=rows,
        note="r_m: variance of mode m over the true one. Ideal: the best denoiser with the same context; of a redrawn "
        "context there is none. Mean ± standard deviation over seeds.",
    )


def oracle(results: Results) -> Table | None:
    """The context-rate law of section 6."""
    if "oracle" not in results.experiments or not results.experiments["oracle"].runs:
        return None
    run = results.experiments["oracle"].runs[0]
    rows = []
    for count in run.curves["curve/counts"]:
        name = f"c{count:.0f}"
        ratios = " ".join(f"{run.metrics[f'r_{l}/{name}']:.2f}".lstrip("0") for l in range(1, 6))
        rows.append(
            [
                f"{count:.0f}", f"{run.metrics[f'floor/{name}']:.4f}", f"{run.metrics[f'error/{name}']:.3f}", ratios,
                f"{round(run.metrics[f'grain/{name}'], 4) + 0.0:.4f}",
            ]
        )  # fmt: skip
    return Table(
        title="The exact law: a perfect network with N_c context pairs",
        columns=["N_c", "Bayes floor", "relative error of the samples' covariance", "r_1 ... r_5", "grain"],
        rows=rows,
        note="Gaussian fields on the sphere, l = 1 to 5 (35 degrees of freedom), 100 Fibonacci points, ancestral "
        "sampling with T = 1000, cosine schedule. Closed form, no training and no randomness.",
    )


def digits(results: Results) -> Table | None:
    """FD_small at the trained and at another resolution, beside what needs no model."""
    found = having(results, "fd_small/gaussian")
    if not found:
        return None
    first = found[0][1]
    asked = ("same", "x2", "x2_regular")
    looks_there = [name for name in asked if any(f"fd_small/{name}" in e.runs[0].metrics for _, e in found)]
    rows = [
        [title, shown(first, f"fd_small/{name}", ".1f"), *("–" for _ in looks_there[1:])]
        for name, title in (
            ("train", "training digits"), ("gaussian", "Gaussian fit"), ("pixels", "independent pixels"),
            ("noise", "noise"),
        )
    ]  # fmt: skip
    for _, e in found:
        rows.append([e.title, *(shown(e, f"fd_small/{name}", ".1f") for name in looks_there)])
    titles = {"same": "8 x 8", "x2": "16 x 16, random context", "x2_regular": "16 x 16, regular context"}
    return Table(
        title="Digits at 8 x 8 and at a resolution that was not trained",
        columns=["images", *(titles[name] for name in looks_there)],
        rows=rows,
        note="FD_small: Frechet distance in the features of a small classifier trained on the spot, 500 samples "
        "against the 500 test digits; 16 x 16 samples (25 steps, not 50) are averaged "
        "back to 8 x 8. Never to be compared with an FID.",
    )


def completions(results: Results) -> Table | None:
    """Conditional completion against the exact posterior (section 9.3)."""
    found = having(results, "completion/rmse")
    if not found:
        return None
    keys = ("rmse", "prior_rmse", "z_mean", "z_std", "z_within_90")
    rows = [
        [f"{e.title}{how}", *(shown(e, f"{name}/{key}") for key in keys)]
        for _, e in found
        for name, how in (("completion", ""), ("completion_repaint", ", each step four times"))
    ]
    return Table(
        title="Completing a field from observed pairs",
        columns=["fields", "RMSE to the posterior mean", "of guessing 0", "z mean", "z deviation", "within 90 %"],
        rows=rows,
        note="z: sample minus posterior mean, over the posterior's deviation; 0, 1 and .90 where completions have the "
        "right law. Averages over four test fields of 128 completions each, from three observed pairs.",
    )


def tables(results: Results) -> list[Table]:
    made = (losses(results), looks(results), completions(results), digits(results), oracle(results))
    return [table for table in made if table is not None]
