"""All methods side by side (section 10): what a single claim cannot say.

`python -m diggan.tables --tier cpu > runs.csv`: one row for each run, by data, fraction, method, lambda and seed.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.claims.results import ExperimentResult, Results, Table, load_results
from shared.errors import UserError, one_line_errors

from diggan.features import score_name
from diggan.rivals import LECAM_START, WEIGHTS

# Prefix of the experiments of one data set and size -> what it is called, with the name of the data that were there.
GROUPS = {
    "digits_": "100 digits",
    "digits800_": "800 digits",
    "mnist500_": "500 {data} images",
    "mnist5000_": "5000 {data} images",
    "conv_": "100 digits, convolutional D with spectral norm",
    "cifar_": "5000 {data} images, BigGAN at ch 4",
    "c10_10_": "5000 {data} images, BigGAN at ch 64",
}
COLUMNS = ("C10 100 %", "C10 20 %", "C10 10 %", "C100 100 %", "C100 20 %", "C100 10 %")
# IS / FID of the table in the DiffAugment authors' paper (10k samples); DigGAN's own from a public index of results,
# best
# variant, not split by DiffAugment. What was not available to this project is n/a.
PUBLISHED: dict[str, tuple[str, ...]] = {
    "BigGAN": ("9.06 / 9.59", "8.41 / 21.58", "7.62 / 39.78", "10.92 / 12.87", "9.11 / 33.11", "5.94 / 66.71"),
    "+ DiffAugment": ("9.16 / 8.70", "8.65 / 14.04", "8.09 / 22.40", "10.66 / 12.00", "9.47 / 22.14", "8.38 / 33.70"),
    "+ CR": ("9.20 / 9.06", "8.43 / 20.62", "7.66 / 37.45", "10.95 / 11.26", "8.44 / 36.91", "7.91 / 47.16"),
    "+ CR + DiffAugment": (
        "9.17 / 8.49", "8.61 / 12.84", "8.49 / 18.70", "10.81 / 11.25", "9.12 / 20.28", "8.70 / 26.90",
    ),
    "DigGAN (index value)": ("9.28 / n/a", "8.89 / n/a", "8.32 / n/a", "11.45 / 11.63", "9.54 / n/a", "9.06 / n/a"),
    "+ DIG": ("n/a",) * 6,
    "+ DiffAugment + DIG": ("n/a",) * 6,
    "+ LeCam": ("n/a",) * 6,
}  # fmt: skip


BEST = "_best_"  # in the names of selections, which are other experiments' rows once more


def data_label(experiment: ExperimentResult) -> str:
    """`CIFAR-10 (JPEG copy)`, `CIFAR-10 (a copy)` or `CIFAR-10`, by the contents that the run found on disk."""
    name = re.split(r"[,:]", experiment.data.detail)[0]
    return f"{name})" if "(" in name and ")" not in name else name


def group_of(name: str, experiment: ExperimentResult) -> str:
    """`5000 CIFAR-10 (JPEG copy) images, BigGAN at ch 4`."""
    found = next((says for prefix, says in GROUPS.items() if name.startswith(prefix)), "")
    return found.format(data=data_label(experiment))


def caveat(experiment: ExperimentResult) -> str:
    """What a distance from one run is worth; empty where there are several."""
    if len(experiment.runs) > 1:
        return ""
    samples = (experiment.config.get("model") or {}).get("final_samples", 2000)
    return f"{iterations_of(experiment)} iterations, one seed, {samples} samples: no FID verdict"


def mean_and_spread(experiment: ExperimentResult, metric: str) -> tuple[float, float]:
    values = [run.metrics[metric] for run in experiment.runs]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def weight_of(experiment: ExperimentResult) -> float:
    model = experiment.config.get("model") or {}
    weight = model.get("weight")
    return float(WEIGHTS[model.get("regulariser", "none")] if weight is None else weight)


def iterations_of(experiment: ExperimentResult) -> int:
    """G iterations that were asked for."""
    trainer = experiment.config.get("trainer") or {}
    return int(experiment.config["data"].get("iterations", 250) * trainer.get("max_epochs", 1))


def delay(experiment: ExperimentResult) -> str:
    """For how long LeCam is none."""
    start = (experiment.config.get("model") or {}).get("lecam_start", LECAM_START)
    return f"its penalty starts after iteration {start} of {iterations_of(experiment)}"


def _shown(experiment: ExperimentResult, metric: str, form: str = ".1f") -> str:
    if any(metric not in run.metrics for run in experiment.runs):
        return "–"
    mean, spread = mean_and_spread(experiment, metric)
    return f"{mean:{form}} ± {spread:{form}}" if len(experiment.runs) > 1 else f"{mean:{form}}"


def extractor(experiments: Sequence[ExperimentResult]) -> tuple[str, float]:
    """What the features of these experiments are, and the classifier's accuracy (0: not known).

    Raises:
        UserError: they are not the same, so that the distances say nothing about each other.
    """
    runs = [run for experiment in experiments for run in experiment.runs]
    found = {
        n.removeprefix("features/"): v for run in runs for n, v in run.metrics.items() if n.startswith("features/")
    }
    if len(found) > 1:
        raise UserError(f"measured by {' and '.join(sorted(found))}: not comparable, run all of them on one machine")
    return next(iter(found.items()), ("?", 0.0))


def by_features(what: str, experiments: Sequence[ExperimentResult]) -> str:
    """`FID-local [a7163b09]`, by the hash of the classifier; `FID [...]` where the features are Inception's."""
    return score_name(what, extractor(experiments)[0])


def methods(results: Results, prefix: str) -> Table | None:
    """T1, A1 and A2 on one data set: a row for each method."""
    found = [(n, e) for n, e in results.experiments.items() if n.startswith(prefix) and e.runs and BEST not in n]
    found = [(n, e) for n, e in found if "tail/fid" in e.runs[0].metrics]
    if not found:
        return None
    rows = []
    for _, e in found:
        rows.append(
            [
                e.title, str(len(e.runs)), _shown(e, "tail/fid"), _shown(e, "best/fid"), _shown(e, "last/fid"),
                _shown(e, "tail/gap", ".3f"), _shown(e, "tail/overfitting", ".2f"), _shown(e, "is", ".2f"),
                _shown(e, "recall", ".2f"), _shown(e, "coverage", ".2f"), _shown(e, "leak", ".2f"),
            ]
        )  # fmt: skip
    arms = [e for _, e in found]
    columns = ["method", "seeds", f"{by_features('FID', arms)}, tail", "best", "last", "gap", "overfitting",
               by_features("IS", arms), "recall", "coverage", "leak"]  # fmt: skip
    title, accuracy = extractor(arms)
    features = title + (f", {100 * accuracy:.1f} % accurate" if accuracy else "")
    limits = caveat(found[0][1])
    leak = mean_and_spread(found[0][1], "leak_training")[0]
    return Table(
        title=f"{group_of(*found[0])}: every method{f' ({limits})' if limits else ''}",
        columns=columns,
        rows=rows,
        note=f"Features: {features}; compare numbers of the same features only. Tail: mean "
        f"of the "
        "last three looks; best: over all looks at the reference set, so optimistic. Gap: of mean gradient norms on "
        "training images and fakes. Overfitting: D's accuracy on training minus that on held-out images. Leak: share "
        f"of samples with an empty hole or border ({leak:.2f} of the training images). Mean ± standard deviation.",
    )


def rivals(results: Results, prefix: str) -> Table | None:
    """Every regulariser at its usual weight, and at the one of its own that validation images chose."""
    usual: dict[str, ExperimentResult] = {}
    tried: dict[str, list[ExperimentResult]] = {}
    for name, e in results.experiments.items():
        model = e.config.get("model") or {}
        kind = model.get("regulariser")
        if not name.startswith(prefix) or not e.runs or not kind or model.get("policy") or BEST in name:
            continue
        if model.get("variant", "official") != "official":
            continue
        if "tail/val_fid" not in e.runs[0].metrics:
            continue
        tried.setdefault(kind, []).append(e)
        if weight_of(e) == USUAL.get(kind, WEIGHTS[kind]):
            usual[kind] = e
    tried = {kind: arms for kind, arms in tried.items() if len(arms) > 1}
    if len(tried) < 2:
        return None
    chosen = {kind: min(arms, key=lambda e: mean_and_spread(e, "tail/val_fid")[0]) for kind, arms in tried.items()}
    rows = []
    for kind in sorted(chosen, key=lambda k: mean_and_spread(chosen[k], "tail/fid")[0]):
        best, own = chosen[kind], usual.get(kind)
        # A weight at the end of what was tried may not be the best there is.
        edge = " (edge)" if weight_of(best) in (f(weight_of(e) for e in tried[kind]) for f in (min, max)) else ""
        rows.append(
            [
                kind, str(len(tried[kind])), str(len(best.runs)), f"{weight_of(best):g}{edge}",
                _shown(best, "tail/fid"),
                _shown(best, "tail/gap", ".3f"), f"{weight_of(own):g}" if own else "–",
                _shown(own, "tail/fid") if own else "–",
            ]
        )  # fmt: skip
    fid = f"{by_features('FID', [e for arms in tried.values() for e in arms])}, tail"
    late = f" lecam: {delay(chosen['lecam'])}." if "lecam" in chosen else ""
    return Table(
        title=f"{GROUPS[prefix]}: regularisers at the best of the weights that were tried",
        columns=[
            "regulariser",
            "weights",
            "seeds",
            "chosen",
            fid,
            "gap",
            "usual weight",
            fid,
        ],
        rows=rows,
        note="The weight is chosen by FID-local against images that are neither trained on nor in the reference set "
        "(though "
        "the classifier behind the features has seen them), with as many weights for each; the number is against the "
        "reference set, and sorts the rows. Edge: the best of those tried is the least or the largest; a better may "
        "lie beyond. Usual: the literature's weight; for dig 100, the specification's for networks that are not "
        f"normalised.{late}",
    )


USUAL = {"dig": 100.0}


def published(results: Results) -> Table:
    """The paper's main table as far as it came to us: IS / FID. Ours has no column here: it is no FID."""
    return Table(
        title="CIFAR, BigGAN at ch 64, as published: IS / FID",
        columns=["method", *COLUMNS],
        rows=[[method, *cells] for method, cells in PUBLISHED.items()],
        note="Baselines as listed in the DiffAugment authors' table, DigGAN as listed in a public index (best variant, "
        "with or without DiffAugment); n/a: not available to us. Ours would need Inception weights and the original "
        "files, which are not here: FID-local is never put beside these.",
    )


def costs(results: Results) -> Table | None:
    """C1: what the penalty costs."""
    rows, where = [], set()
    for name, e in results.experiments.items():
        if name.startswith("cost_") and e.runs:
            where |= {"One thread" if run.device == "cpu" else run.device for run in e.runs}
            ms = [_shown(e, f"{n}_ms", ".0f") for n in ("d_plain", "d_dig", "d_separate", "g_plain", "g_dig")]
            ratios = [_shown(e, n, ".2f") for n in ("d_ratio", "d_ratio_separate", "g_ratio")]
            rows.append([e.title, *ms, *ratios])
    if not rows:
        return None
    return Table(
        title="What the penalty costs",
        columns=[
            "setting",
            "D ms",
            "with DIG",
            "separate pass",
            "G it. ms",
            "with DIG",
            "D ratio",
            "separate",
            "G it. ratio",
        ],
        rows=rows,
        note="One update of D, and a whole G iteration with four of them, the first penalised. Separate: the penalty "
        f"with a forward pass of its own, as the formula is usually written. {' and '.join(sorted(where))}.",
    )


def games(results: Results) -> Table | None:
    """B1: games on points."""
    rows = []
    for name, e in results.experiments.items():
        if name.startswith("toy_") and e.runs:
            full = [run.metrics["ever_all_modes"] for run in e.runs]
            now = [run.metrics["all_modes"] for run in e.runs]
            rows.append(
                [
                    e.title, f"{int(sum(full))}/{len(full)}", f"{int(sum(now))}/{len(now)}", _shown(e, "modes", ".2f"),
                    _shown(e, "first_covered", ".0f"), _shown(e, "tail/gap", ".3f"),
                    f"{mean_and_spread(e, 'epochs')[0]:.0f}",
                ]
            )  # fmt: skip
    if not rows:
        return None
    return Table(
        title="Games on points (ours): does the penalty help out of a bad attractor?",
        columns=["game", "ever all modes", "at the end", "modes", "first covered", "gap", "epochs"],
        rows=rows,
        note="A run that never covers all modes counts with its length in `first covered`. Mean ± standard deviation.",
    )


def tables(results: Results) -> list[Table]:
    """Every table whose experiments are there."""
    found = [methods(results, prefix) for prefix in GROUPS]
    found += [rivals(results, prefix) for prefix in ("digits_", "conv_")]
    found += [costs(results), games(results)]
    return [*(table for table in found if table is not None), published(results)]


TRAINING_IMAGES = {"digits": 897, "mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}
MEASURED = ("tail/fid", "best/fid", "last/fid", "tail/gap", "tail/overfitting", "is", "recall", "coverage")


def runs(results: Results) -> list[dict[str, Any]]:
    """A row for each training run, selections left out; `fraction` is empty where nobody knows of how many."""
    rows = []
    for name, e in results.experiments.items():
        model, data = e.config.get("model") or {}, e.config.get("data") or {}
        if not data or BEST in name:
            continue
        total, count = TRAINING_IMAGES.get(data["dataset"]), data.get("num_samples")
        fraction = data.get("fraction", 1.0 if count is None else count / total if total else "")
        method = " ".join(filter(None, (model.get("regulariser", "none"), model.get("variant"), model.get("policy"))))
        for run in e.runs:
            key = {"data": data_label(e), "fraction": fraction, "method": method, "lambda": weight_of(e)}
            features = {"seed": run.seed, "network": model.get("network", "mlp64"), "features": extractor([e])[0]}
            rows.append({**key, **features, **{n: run.metrics.get(n, "") for n in MEASURED}})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diggan.tables", description="One row for each run, as CSV.")
    parser.add_argument("--tier", default="quick", help="quick (default), cpu, gpu or paper")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the paper's folder")
    args = parser.parse_args(argv)
    found = runs(load_results(args.root / "results" / args.tier / "results.json"))
    writer = csv.DictWriter(sys.stdout, found[0] if found else ["data"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
