"""Template banks: that they cover what they say, by matches computed another way."""

from __future__ import annotations

import pytest
import torch
from mma_realtime.errors import SearchError
from mma_realtime.gw.psd import NoiseCurve, design_curve
from mma_realtime.gw.waveforms import chirp_mass, chirp_time
from mma_realtime.search.bank import (
    Bank,
    aligned,
    best_matches,
    cover,
    coverage,
    draw_masses,
    exact_match,
    matches,
    quadrature,
    template_bank,
)

CURVE = design_curve("aLIGOZeroDetHighPower")
RANGE, Q_MAX, F_LOW, F_HIGH = (15.0, 40.0), 2.5, 20.0, 512.0


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Small products: threads that wait for each other cost ten times more on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return template_bank(RANGE, Q_MAX, CURVE, F_LOW, F_HIGH)


def grid(lightest: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    m = torch.tensor(lightest, dtype=torch.float64)
    f, weight = quadrature(float(chirp_time(m, m, F_LOW)), F_LOW, F_HIGH)
    return f, weight, CURVE.asd(f.clamp(max=F_HIGH))


def uniform_masses(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Not as the bank draws its candidates."""
    generator = torch.Generator().manual_seed(seed)
    m = RANGE[0] + (RANGE[1] - RANGE[0]) * torch.rand(4 * n, 2, generator=generator, dtype=torch.float64)
    m1, m2 = m.amax(1), m.amin(1)
    kept = (m1 <= Q_MAX * m2).nonzero()[:n, 0]
    kept = kept[chirp_mass(m1[kept], m2[kept]).argsort()]
    return m1[kept], m2[kept]


def test_the_product_of_aligned_waveforms_is_the_match_at_the_best_time_and_phase() -> None:
    f, weight, asd = grid(15.0)
    for m1, m2, other1, other2 in ((30.0, 24.0, 31.0, 23.5), (16.0, 15.0, 16.4, 14.8), (40.0, 16.0, 38.0, 16.6)):
        pair = torch.tensor([m1, other1]).double(), torch.tensor([m2, other2]).double()
        waves = aligned(*pair, f, weight, asd)
        exact = exact_match(*pair, CURVE, F_LOW, F_HIGH)
        assert 0.9 < exact < 0.9995  # neighbours, not the same
        assert float(matches(waves[:1], waves[1:])) == pytest.approx(exact, abs=4e-3)


def test_a_bank_covers_its_range(bank: Bank) -> None:
    """By FFT, against the two templates that the products say are nearest, for systems drawn evenly in both masses."""
    f, weight, asd = grid(15.0)
    m1, m2 = uniform_masses(12, seed=3)
    table = matches(aligned(m1, m2, f, weight, asd), aligned(bank.m1, bank.m2, f, weight, asd))
    for a, b, row in zip(m1, m2, table, strict=True):
        best = max(
            exact_match(torch.stack([a, bank.m1[j]]), torch.stack([b, bank.m2[j]]), CURVE, F_LOW, F_HIGH)
            for j in row.argsort(descending=True)[:2]
        )
        assert best >= 0.965, (float(a), float(b))


def test_a_bank_leaves_no_hole(bank: Bank) -> None:
    f, weight, asd = grid(15.0)
    templates = aligned(bank.m1, bank.m2, f, weight, asd)
    m1, m2 = uniform_masses(2000, seed=4)
    corners = torch.tensor([[15.0, 15.0], [37.5, 15.0], [40.0, 16.0], [40.0, 40.0]]).double()
    m1, m2 = torch.cat([m1, corners[:, 0]]), torch.cat([m2, corners[:, 1]])
    order = chirp_mass(m1, m2).argsort()
    m1, m2 = m1[order], m2[order]
    best = best_matches(templates, chirp_mass(bank.m1, bank.m2), aligned(m1, m2, f, weight, asd), chirp_mass(m1, m2))
    assert (best < 0.97).mean() <= 2e-3
    assert best.min() > 0.95


def test_a_bank_is_no_larger_than_it_needs(bank: Bank) -> None:
    """As many templates again as a covering by every candidate would be no bank; a looser match needs fewer."""
    assert 20 <= len(bank) <= 120
    loose = template_bank((30.0, 40.0), 1.3, CURVE, F_LOW, F_HIGH, minimal_match=0.85)
    assert len(loose) < len(template_bank((30.0, 40.0), 1.3, CURVE, F_LOW, F_HIGH, minimal_match=0.99))


def test_a_bank_stays_in_its_range_and_in_order(bank: Bank) -> None:
    assert bool((bank.m2 >= RANGE[0]).all() and (bank.m1 <= RANGE[1]).all())
    assert float((bank.m1 / bank.m2).max()) <= Q_MAX * (1 + 1e-6)
    assert bool((chirp_mass(bank.m1, bank.m2).diff() >= 0).all())


def test_a_bank_is_the_same_from_the_same_seed() -> None:
    a, b, other = (template_bank((30.0, 40.0), 1.3, CURVE, F_LOW, 256.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a.m1, b.m1)
    assert torch.equal(a.m2, b.m2)
    assert a.m1[0] != other.m1[0]


def test_masses_are_drawn_in_range_up_to_its_corners() -> None:
    m1, m2 = draw_masses(4000, (5.0, 75.0), 10.0, torch.Generator().manual_seed(0))
    assert float(m2.min()) >= 5
    assert float(m1.max()) <= 75
    assert bool((m1 >= m2).all())
    assert float((m1 / m2).max()) <= 10 * (1 + 1e-6)
    for corner in ((5.0, 5.0), (75.0, 75.0), (50.0, 5.0)):
        assert (
            float(torch.hypot(m1.log() - torch.tensor(corner[0]).log(), m2.log() - torch.tensor(corner[1]).log()).min())
            < 0.1
        )


def test_a_cover_has_all_columns_and_takes_the_largest_first() -> None:
    table = torch.eye(5, dtype=torch.bool).numpy()
    table[2] = table[:, 2] = True
    assert cover(table) == [2]
    table = torch.eye(4, dtype=torch.bool).numpy()
    assert sorted(cover(table)) == [0, 1, 2, 3]


def test_coverage_of_blocks_is_that_of_all_pairs() -> None:
    f, weight, asd = grid(15.0)
    m1, m2 = uniform_masses(520, seed=5)
    waves = aligned(m1, m2, f, weight, asd)
    assert (coverage(waves, chirp_mass(m1, m2), 0.97) == (matches(waves, waves) >= 0.97).numpy()).mean() > 1 - 1e-5


@pytest.mark.parametrize(("f_low", "f_high"), [(5.0, 512.0), (20.0, 4000.0)])
def test_a_bank_outside_of_the_noise_curve_is_refused(f_low: float, f_high: float) -> None:
    with pytest.raises(SearchError, match=r"bank lies outside the noise curve.*aLIGOZeroDetHighPower covers 10 to"):
        template_bank(RANGE, Q_MAX, CURVE, f_low, f_high)


def test_a_bank_outside_of_a_short_curve_is_refused() -> None:
    short = NoiseCurve("short", torch.tensor([30.0, 300.0]).double(), torch.tensor([-23.0, -23.0]).double())
    with pytest.raises(SearchError, match="choose a band inside the curve"):
        template_bank(RANGE, Q_MAX, short, 20.0, 250.0)


@pytest.mark.parametrize(
    "settings", [((0.0, 5.0), 2.0, 20.0, 512.0), ((9.0, 5.0), 2.0, 20.0, 512.0), ((5.0, 9.0), 1.0, 20.0, 512.0)]
)
def test_ranges_without_a_system_are_refused(settings: tuple[tuple[float, float], float, float, float]) -> None:
    m_range, q_max, f_low, f_high = settings
    with pytest.raises(SearchError, match="have to ascend"):
        template_bank(m_range, q_max, CURVE, f_low, f_high)


def test_masses_that_are_no_bank_are_refused() -> None:
    with pytest.raises(SearchError, match="m1 >= m2 > 0"):
        Bank(torch.tensor([10.0]).double(), torch.tensor([20.0]).double(), 20.0, 512.0)
    with pytest.raises(SearchError, match="two lists of one length"):
        Bank(torch.tensor([10.0]).double(), torch.tensor([9.0, 8.0]).double(), 20.0, 512.0)
