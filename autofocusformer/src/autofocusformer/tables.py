"""Tables of a tier: parameters and multiply-adds, clusterings, what sampling allows, and what was trained."""

from __future__ import annotations

import statistics

from shared.claims.results import ExperimentResult, Results, Table

CURVES = ("snake", "hilbert", "peano", "hilbert-direct", "peano-direct", "scan-line", "k-means")


def _cell(experiment: ExperimentResult, metric: str, digits: int = 3) -> str:
    values = [run.metrics[metric] for run in experiment.runs if metric in run.metrics]
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 and digits else mean


def counted(results: Results) -> list[Table]:
    rows = [
        [e.title, f"{m['parameters']:,.0f}", f"{m['macs/modules']:.4f}", f"{m['macs/all']:.4f}",
         ", ".join(f"{m[f'points/{i}']:.0f}" for i in range(1, 5))]
        for name, e in results.experiments.items() if name.startswith("counts_") and e.runs
        for m in [e.runs[0].metrics]
    ]  # fmt: skip
    if not rows:
        return []
    columns = ["backbone", "parameters", "MACs, modules (G)", "MACs, all (G)", "tokens by stage"]
    note = "Of one image of 224 px (base384: 384 px) and 1000 classes; published figures count modules only."
    return [Table(title="Parameters and multiply-adds", columns=columns, rows=rows, note=note)]


def clustered(results: Results) -> list[Table]:
    rows, search = [], []
    for name, e in results.experiments.items():
        if not name.startswith("cluster_") or not e.runs:
            continue
        search.append([e.title, _cell(e, "search/ms", 2), _cell(e, "snake/ms", 2)])
        for curve in CURVES:
            low = min(run.metrics[f"{curve}/smallest"] for run in e.runs)
            high = max(run.metrics[f"{curve}/largest"] for run in e.runs)
            sizes, distance = f"{low:.0f} to {high:.0f}", _cell(e, f"{curve}/distance", 2)
            rows.append([f"{e.title}, {curve}", _cell(e, f"{curve}/ms", 2), sizes, distance])
    if not rows:
        return []
    columns = ["clustering", "ms, one core", "cluster sizes", "mean distance to the centre (cells)"]
    note = "k-means: 10 iterations of scikit-learn's; `snake` is the paper's. Mean ± standard deviation over seeds."
    found = Table(title="Clusterings of a square canvas, 8 points each", columns=columns, rows=rows, note=note)
    columns = ["points", "6 nearest clusters of every point, ms", "clustering, ms"]
    note = "On one core, process time; mean ± standard deviation over seeds."
    return [found, Table(title="Search for the nearest clusters", columns=columns, rows=search, note=note)]


def limited(results: Results) -> list[Table]:
    rows = []
    for name, e in results.experiments.items():
        if "limit_" not in name or not e.runs:
            continue
        cells = [_cell(e, f"{m}/{level}") for m in ("small", "large", "coverage") for level in (2, 3, 4)]
        cells += [_cell(e, f"objects/{what}") for what in ("pixels", "tokens")]
        rows.append([e.title, *cells])
    if not rows:
        return []
    shares = ("1/4", "1/16", "1/64")
    columns = ["images, mode", *(f"{m}, {r}" for m in ("small IoU", "large IoU", "coverage") for r in shares)]
    columns += ["objects, pixels", "objects, tokens"]
    note = (
        "Every pixel takes the true label of the nearest kept token; last columns: share of labelled pixels and of the "
        "canvas's tokens that are objects (small classes). Mean ± standard deviation over seeds."
    )
    return [Table(title="What sampling alone allows", columns=columns, rows=rows, note=note)]


def trained(results: Results) -> list[Table]:
    metrics = ("miou", "miou_small", "miou_large", "coverage/2", "coverage/3", "coverage/4", "budget/2")
    rows = [
        [e.title, *(_cell(e, f"test/{metric}") for metric in metrics), f"{e.runs[0].metrics['parameters']:,.0f}"]
        for e in results.experiments.values()
        if e.runs and "test/miou_small" in e.runs[0].metrics
    ]
    if not rows:
        return []
    columns = [
        "training",
        "mIoU",
        "small",
        "large",
        "coverage 2",
        "coverage 3",
        "coverage 4",
        "tokens kept",
        "parameters",
    ]
    note = "Coverage: kept object tokens over object tokens, for stages 2 to 4. Mean ± standard deviation over seeds."
    return [Table(title="Trained", columns=columns, rows=rows, note=note)]


def tables(results: Results) -> list[Table]:
    return [*counted(results), *clustered(results), *limited(results), *trained(results)]
