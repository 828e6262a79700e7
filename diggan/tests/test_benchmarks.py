"""The benchmark over many seeds plays the quick tier's recipe, and counts what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.runs.plan import load_plan

HERE = Path(__file__).parent.parent


def test_many_seeds_play_the_recipe_of_the_quick_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE / "benchmarks"))
    import bench_seeds

    played = []

    def played_by(model, data, epochs, seeds, folder):
        played.append(({"model": model, "data": data}, epochs, folder.name))
        size = 1.0 if folder.name == "plain" else 0.25
        return {seed: {"tail/gap": size + 0.1 * (seed == 8), "tail/fid": 100 * size} for seed in seeds}

    monkeypatch.setattr(bench_seeds, "run_population", played_by)
    out = bench_seeds.compared(bench_seeds.train([7, 8]))
    plan = {e.name: e.config for e in load_plan(HERE, "quick").experiments}
    for (sections, epochs, arm), name in zip(played, ("digits_plain", "digits_dig_100"), strict=True):
        assert sections == {key: plan[name][key] for key in ("model", "data")}
        assert (epochs, arm) == (8, {"digits_plain": "plain", "digits_dig_100": "dig"}[name])
    assert out["tail/gap"]["seeds within"] == 1  # 0.25 / 1, but 0.35 / 1.1
    assert out["tail/gap"]["ratios"] == [0.25, 0.3182]
    assert (out["tail/fid"]["seeds within"], out["tail/fid"]["dig mean"]) == (2, 25.0)
