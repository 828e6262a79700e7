"""For how many seeds does the penalty close the gap? The quick tier's 100 digits again, with many fresh seeds.

    python diggan/benchmarks/bench_seeds.py        # 20 seeds, two CPU-minutes; --seeds 200 201 ... for others

Recipes are those of `digits_plain` and `digits_dig_100` in `configs/tiers/quick.yaml`. Writes `seeds.json` next to this
file. No target is missed or met: the claim's verdict is that of the tier's own seeds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diggan.population import run_population
from shared.errors import one_line_errors
from shared.runs.plan import load_plan

ARMS = {"plain": "digits_plain", "dig": "digits_dig_100"}
# What the penalised run may keep of the other's: of the gap a quarter, of FID-local 70 %.
AT_MOST = {"tail/gap": 0.25, "tail/fid": 0.7}


def train(seeds: Sequence[int]) -> dict[str, dict[int, dict[str, Any]]]:
    """Results of both recipes by seed."""
    plan = {e.name: e.config for e in load_plan(Path(__file__).parents[1], "quick").experiments}
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        for arm, name in ARMS.items():
            config = plan[name]
            length = config["trainer"]["max_epochs"]
            out[arm] = run_population(config["model"], config["data"], length, seeds, Path(folder) / arm)
    return out


def compared(results: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, Any]:
    """Of each metric: every seed's value of both arms, their means, the ratios, and how many are small enough."""
    out: dict[str, Any] = {"seeds": list(results["plain"])}
    for metric, bound in AT_MOST.items():
        values = {arm: [float(result[metric]) for result in by_seed.values()] for arm, by_seed in results.items()}
        ratios = [dig / plain for dig, plain in zip(values["dig"], values["plain"])]
        out[metric] = {
            "at most": bound,
            "seeds within": sum(ratio <= bound for ratio in ratios),
            "median ratio": round(statistics.median(ratios), 4),
            **{f"{arm} mean": round(statistics.fmean(own), 4) for arm, own in values.items()},
            "ratios": [round(ratio, 4) for ratio in ratios],
            **{arm: [round(value, 4) for value in own] for arm, own in values.items()},
        }
    return out


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 120)))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    out = compared(train(args.seeds))
    for metric, bound in AT_MOST.items():
        found = out[metric]
        print(
            f"{metric}: {found['plain mean']:.4g} without, {found['dig mean']:.4g} with the penalty; at most {bound} "
            f"of it for {found['seeds within']} of {len(args.seeds)} seeds (ratios {min(found['ratios']):.3g} to "
            f"{max(found['ratios']):.3g}, median {found['median ratio']:.3g})"
        )
    record = {"date": datetime.date.today().isoformat(), "torch": torch.__version__, **out}
    Path(__file__).with_name("seeds.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    with one_line_errors():
        main()
