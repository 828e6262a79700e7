"""The multiply-adds are the published ones and what they leave out; settings that make no network are one line."""

from dataclasses import replace
from typing import Any

import pytest
from autofocusformer.macs import count_macs, points_by_stage
from autofocusformer.variants import VARIANTS
from shared.errors import UserError

# GMACs at 1000 classes: module-only, with attention and merging
TABLE = {
    ("mini", 224, 0.25): (1.0738, 1.1570),
    ("mini", 224, 0.2): (0.7313, 0.7935),
    ("tiny", 224, 0.25): (4.0160, 4.2282),
    ("tiny", 224, 0.2): (2.7339, 2.8930),
    ("small", 224, 0.25): (8.1434, 8.4507),
    ("small", 224, 0.2): (5.6834, 5.9192),
    ("base", 224, 0.25): (14.4607, 14.8703),
    ("base384", 384, 0.25): (42.4953, 46.1050),
}


@pytest.mark.parametrize(("name", "size", "rate"), TABLE)
def test_the_table_of_multiply_adds(name: str, size: int, rate: float) -> None:
    counted = count_macs(replace(VARIANTS[name], rate=rate), size, size, 1000)
    assert (round(counted.modules / 1e9, 4), round(counted.all / 1e9, 4)) == TABLE[name, size, rate]


def test_the_points_of_each_stage() -> None:
    assert points_by_stage(VARIANTS["mini"], (56, 56)) == [3136, 784, 196, 49]
    assert points_by_stage(replace(VARIANTS["mini"], rate=0.2), (56, 56)) == [3136, 627, 125, 25]
    assert points_by_stage(replace(VARIANTS["mini"], sampling="grid"), (48, 64)) == [3072, 768, 192, 48]


def test_lists_from_a_file_are_tuples() -> None:
    assert replace(VARIANTS["nano"], widths=[16, 32, 48, 64]) == VARIANTS["nano"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"widths": (16, 32, 48)}, r"widths is \[16, 32, 48\]: four whole numbers"),
        ({"cluster": (8, 8, 8, 0)}, "cluster is"),
        ({"heads": (3, 2, 3, 4)}, "16 cannot be shared among 3 heads"),
        ({"widths": (15, 32, 48, 64), "heads": (3, 2, 3, 4)}, "needs an even one"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"merge_bias_init": "ones"}, "merge_bias_init is 'ones'"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"alpha": -4.0}, "alpha is -4.0"),
        ({"sampling": "best"}, "unknown sampling"),
    ],
)
def test_bad_settings_are_one_line(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        replace(VARIANTS["nano"], **change)
