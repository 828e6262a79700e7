"""Which modes of a mixture samples cover."""

import torch
from rpgan_landscape.modes import count_modes, first_covered

CENTRES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [-3.0, 0.0]])


def test_a_mode_needs_a_tenth_of_its_share_within_the_radius() -> None:
    samples = CENTRES[0].repeat(2500, 1)
    samples[:50] = CENTRES[1]  # just enough of 2500 for five modes
    samples[50:99] = CENTRES[2]  # one too few
    samples[100:200] = CENTRES[3] + torch.tensor([0.31, 0.0])  # outside the radius
    found = count_modes(samples, CENTRES, 0.002)
    assert found.covered == 2
    assert found.shares[1:] == [50 / 2500, 49 / 2500, 0.0, 0.0]
    assert abs(found.high_quality - 2400 / 2500) < 1e-12


def test_high_quality_is_three_standard_deviations() -> None:
    sigma = 0.002**0.5
    samples = torch.tensor([[2.99 * sigma, 0.0], [0.0, 3.01 * sigma], [1.0, 0.0], [float("nan"), 0.0]])
    found = count_modes(samples, CENTRES, 0.002)
    assert found.high_quality == 0.5
    assert sum(found.shares) == 0.75  # the sample that is no number belongs nowhere


def test_all_modes_have_to_stay_for_four_checks() -> None:
    assert first_covered([5, 5, 5, 4, 5, 5, 5, 5], 5) == 4
    assert first_covered([5, 5, 5, 4, 5, 5, 5], 5) is None
    assert first_covered([5, 5, 5, 5], 5) == 0
    assert first_covered([], 5) is None
