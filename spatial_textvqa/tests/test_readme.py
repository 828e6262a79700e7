"""The README's numbers that stand beside the generated tables are those of the files that they came from."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

HERE = Path(__file__).resolve().parent.parent
BENCH: dict[str, Any] = json.loads((HERE / "benchmarks" / "bench.json").read_text())
RESULTS, QUICK = (json.loads((HERE / "results" / tier / "results.json").read_text()) for tier in ("cpu", "quick"))
README = " ".join((HERE / "README.md").read_text().split())


def percent(experiment: str, metric: str = "test/spatial") -> float:
    return 100 * fmean(run["metrics"][metric] for run in RESULTS["experiments"][experiment]["runs"])


def test_what_the_benchmarks_measured() -> None:
    receipts = BENCH["receipts"]
    for says in (
        f"built {BENCH['relations']['speedup']:.0f} times as fast",
        f"decoding is {BENCH['decoding']['speedup']:.1f} times",
        f"step takes {BENCH['step']['spatial_over_full']:.2f} times",
        f"peak at {BENCH['memory']['peak_gb']:.1f} GB",
        f"cuts {100 * receipts['lines_cut']:.1f} % of their text lines",
        f"{100 * receipts['answerable_test_questions']:.1f} % of the test questions are still among the tokens",
    ):
        assert says in README, says


def test_what_the_tiers_took() -> None:
    runs = {run["key"]: run for each in RESULTS["experiments"].values() for run in each["runs"]}
    training = sum(run["metrics"]["train/cpu_seconds"] for run in runs.values())
    took = f"{len(runs)} runs, {training / 60:.0f} CPU-minutes of training, {RESULTS['wall_seconds'] / 60:.0f} minutes"
    assert took in README
    words = {2: "two", 3: "three", 4: "four", 5: "five"}
    assert f"drawn scenes, {words[round(QUICK['wall_seconds'] / 60)]} minutes on two cores" in README


def test_what_was_found() -> None:
    for look in ("none", "object"):
        row = [f"c3_{look}", f"full_{look}", "full_tuned" + ("" if look == "none" else "_object")]
        assert " | ".join(f"{percent(name):.1f} %" for name in row) in README
    gap, left = (percent("c3_object") - percent(name) for name in ("full_object", "full_tuned_object"))
    cones = [percent(f"c{c}_none") for c in (1, 3, 5)]
    receipts = [percent(f"{name}_receipts", "test/accuracy") for name in ("c3", "full")]
    wide = min(run["metrics"]["test/spatial"] for run in RESULTS["experiments"]["c9_none"]["runs"])
    for says in (
        f"leaves {left:.1f} points of the {gap:.0f}",
        f"transposed relations {percent('c3_none', 'transposed/spatial'):.0f} % are right",
        f"another scene's graph {percent('c3_none', 'other_scene/spatial'):.0f} %",
        f"c = 1, 3, 5: {cones[0]:.0f}, {cones[1]:.0f}, {cones[2]:.0f} %; c = 9 fell to {100 * wide:.0f} %",
        f"helps little ({percent('full_bias_none'):.0f} %)",
        f"{receipts[0]:.1f} and {receipts[1]:.1f} % right",
    ):
        assert says in README, says
