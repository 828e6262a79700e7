"""Escape times, collapsed windows and their statistics, against loops and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rpgan_landscape.escape import collapsed, collapsed_windows, escape_times, quantile, summarise
from rpgan_landscape.population import Recipe, run


def trajectory(*parts: tuple[int, int, int]) -> torch.Tensor:
    """Counts of one GAN: so many iterations with so many fakes in either window."""
    return torch.cat([torch.tensor([[a, b]]).expand(length, 2) for length, a, b in parts])[None]


def test_an_escape_has_to_last() -> None:
    counts = trajectory((10, 0, 0), (49, 30, 30), (1, 30, 29), (20, 50, 50), (30, 31, 69), (5, 0, 0))
    assert escape_times(counts).tolist() == [60.0]
    assert escape_times(counts[:, :109]).tolist() == [math.inf]  # 49 iterations at the end
    assert escape_times(counts[:, :110]).tolist() == [60.0]
    assert escape_times(counts[:, :30]).tolist() == [math.inf]
    assert escape_times(trajectory((60, 29, 71))).tolist() == [math.inf]
    assert escape_times(trajectory((60, 15, 15)), n=50).tolist() == [0.0]


def test_windows_of_collapse() -> None:
    counts = trajectory((3, 90, 0), (2, 89, 11), (4, 0, 100), (1, 40, 40), (2, 95, 5))
    assert collapsed(counts).tolist() == [[True] * 3 + [False] * 2 + [True] * 4 + [False] + [True] * 2]
    d_loss = torch.arange(12.0)[None]
    found = collapsed_windows(counts, d_loss, shortest=3)
    assert [(w.gan, w.start, w.length, w.mean_d_loss, w.last_d_loss) for w in found] == [
        (0, 0, 3, 1.0, 2.0),
        (0, 5, 4, 6.5, 8.0),
    ]
    assert len(collapsed_windows(counts, d_loss, shortest=2)) == 3
    assert collapsed_windows(counts, d_loss) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=12), st.integers(1, 10))
def test_escape_by_a_loop(parts: list[tuple[int, bool]], lasting: int) -> None:
    counts = trajectory(*((k, 50, 50) if covered else (k, 100, 0) for k, covered in parts))
    flags = [bool((row >= 30).all()) for row in counts[0]]
    begins = [t for t in range(len(flags) - lasting + 1) if all(flags[t : t + lasting])]
    assert escape_times(counts, lasting=lasting).tolist() == [float(begins[0]) if begins else math.inf]
    stretches, length = [], 0
    for covered in [*flags, True]:
        if covered and length:
            stretches.append(length)
        length = 0 if covered else length + 1
    assert [w.length for w in collapsed_windows(counts, torch.zeros(1, len(flags)), shortest=1)] == stretches


def test_never_counts_in_a_median() -> None:
    times = torch.tensor([5.0, math.inf, 1.0, 3.0])
    assert quantile(times, 0.5) == 4.0
    assert quantile(times, 0.25) == 2.5
    assert quantile(times, 0.75) == math.inf
    assert quantile(torch.tensor([math.inf, math.inf]), 0.5) == math.inf
    assert quantile(torch.tensor([7.0]), 0.75) == 7.0


def test_the_row_of_the_table() -> None:
    counts = torch.cat(
        [
            trajectory((250, 100, 0), (50, 50, 50)),
            trajectory((100, 0, 0), (200, 50, 50)),
            trajectory((150, 95, 2), (150, 0, 0)),
        ]
    )
    row = summarise(counts)
    assert (row.seeds, row.successes, row.median) == (3, 2, 250.0)
    assert (row.lower, row.upper) == (175.0, math.inf)
    assert row.mean_collapsed == pytest.approx(400 / 3)
    assert (row.most_collapsed, row.long_collapsed) == (250, 1)


@pytest.mark.slow
def test_rs_covers_both_clusters() -> None:
    """Four RS runs of 1300 iterations with their windows (section 8: median escape 902 of 48 seeds)."""
    out = run(Recipe("rs"), [2, 3, 5, 6], 1300)
    row = summarise(out.counts)
    assert row.successes == 4
    assert 450 < row.median < 1200
    assert (out.d_loss[:, -1] - math.log(2)).abs().max() < 0.05
