"""E8: the pair's rates against closed forms, and what the stated places allow at most."""

from __future__ import annotations

import math

import pytest
import torch
from mma_realtime.crossmatch.external import spot
from mma_realtime.crossmatch.joint import RATE_GRB, overlap
from mma_realtime.evaluation.joint import BURST, HOST, gw170817_like, skymap_of


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_rates_are_those_of_the_map_and_the_window() -> None:
    found = gw170817_like(seed=3)
    assert BURST.sigma is not None
    places = overlap(skymap_of(3, 12.0), spot(176.8, -39.8, BURST.sigma))
    assert found["joint/overlap"] == pytest.approx(places)
    assert found["joint/gain"] == pytest.approx(places)
    assert found["joint/time_gain"] == pytest.approx(1 / (6 * RATE_GRB))
    assert found["joint/whole_gain"] == pytest.approx(places / (6 * RATE_GRB))
    assert found["joint/temporal_far/year"] == pytest.approx(6 * RATE_GRB / (365 * 86400))
    assert found["joint/spatiotemporal_far/millennium"] == pytest.approx(1e-3 * found["joint/spatiotemporal_far/year"])
    assert found["joint/host_level"] < 0.9
    assert found["joint/combined_area90"] < found["joint/area90"]


def test_a_loud_signal_gains_what_the_burst_says_of_the_host() -> None:
    ra, dec, host_ra, host_dec = map(math.radians, (176.8, -39.8, *HOST))
    apart = math.acos(math.sin(dec) * math.sin(host_dec) + math.cos(dec) * math.cos(host_dec) * math.cos(ra - host_ra))
    squared = math.radians(11.6) ** 2 + math.radians(3.7) ** 2
    # 4 pi times the density of exp((cos d - 1) / s^2) at the host: what an ever smaller map there gains.
    most = 2 * math.exp((math.cos(apart) - 1) / squared) / squared
    assert most == pytest.approx(6.58, abs=0.01)
    assert gw170817_like(seed=0, network_snr=100.0)["joint/gain"] == pytest.approx(most, rel=0.05)
