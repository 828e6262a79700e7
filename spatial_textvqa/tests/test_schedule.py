"""The learning rate by iteration, against the paper's recipe."""

import json
from pathlib import Path

import pytest
from spatial_textvqa.schedule import factor

GOLDEN = json.loads((Path(__file__).parent / "golden/schedule_and_parameters.json").read_text())


def test_the_papers_recipe() -> None:
    rate = factor(36_000)
    for iteration, expected in GOLDEN["lr_by_iteration"].items():
        assert 1e-4 * rate(int(iteration)) == pytest.approx(expected, rel=1e-9)


def test_drops_below_one_are_parts_of_the_run() -> None:
    rate = factor(1000, warmup=200, warmup_from=0.0, drops=[0.7])
    assert [rate(i) for i in (0, 100, 200, 699)] == [0, 0.5, 1, 1]
    assert rate(700) == pytest.approx(0.1)


def test_without_a_warm_up_the_first_step_is_whole() -> None:
    assert factor(10, warmup=0, drops=[])(0) == 1
