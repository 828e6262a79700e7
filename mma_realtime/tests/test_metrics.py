"""Detection at a false-alarm probability, the area of its curve, and timing, against plain counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SearchError
from mma_realtime.metrics import PartialAUROC, TimingError, TPRAtFAP, threshold_at
from sklearn.metrics import roc_auc_score

SMALL = st.lists(st.integers(-5, 5), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(signal=SMALL, noise=SMALL, fap=st.sampled_from([0.01, 0.1, 0.25, 0.5]))
def test_no_more_noise_than_asked_lies_above(signal: list[int], noise: list[int], fap: float) -> None:
    s, n = np.array(signal, dtype=float), np.array(noise, dtype=float)
    allowed = [t for t in [-np.inf, *np.unique(n)] if (n > t).mean() <= fap]  # the lowest threshold that may be
    metric = TPRAtFAP(fap)
    metric.update(torch.tensor(np.r_[s, n]), torch.tensor([1.0] * len(s) + [0.0] * len(n)))
    assert float(metric.compute()) == pytest.approx((s > min(allowed)).mean())


def test_the_threshold_of_a_thousandth() -> None:
    noise = torch.arange(2000.0)
    assert float(threshold_at(noise, 1e-3)) == 1997  # two windows above
    assert float(threshold_at(noise[:500], 1e-3)) == 499


@settings(max_examples=60, deadline=None)
@given(signal=SMALL, noise=SMALL)
def test_the_whole_area_is_the_chance_that_a_signal_is_louder(signal: list[int], noise: list[int]) -> None:
    metric = PartialAUROC(1.0)
    values = torch.tensor([*signal, *noise], dtype=torch.float32)
    label = torch.tensor([1.0] * len(signal) + [0.0] * len(noise))
    metric.update(values, label)
    assert float(metric.compute()) == pytest.approx(roc_auc_score(label.numpy(), values.numpy()), abs=1e-9)


@pytest.mark.parametrize("max_fpr", [0.001, 0.0105, 0.1])
def test_the_area_up_to_a_rate_is_the_integral_of_the_curve(max_fpr: float) -> None:
    draw = np.random.default_rng(0)
    signal, noise = draw.normal(1.5, 1, 300), draw.normal(0, 1, 400)
    rates = (np.arange(20000) + 0.5) / 20000 * max_fpr
    ordered = np.sort(noise)[::-1]
    curve = [(signal > ordered[int(rate * 400)]).mean() for rate in rates]
    metric = PartialAUROC(max_fpr)
    for part in range(2):  # in two batches, signals and noise mixed
        s, n = signal[part::2], noise[part::2]
        metric.update(torch.tensor(np.r_[n, s]), torch.tensor([0.0] * len(n) + [1.0] * len(s)))
    assert float(metric.compute()) == pytest.approx(np.mean(curve), abs=2e-4)


def test_perfect_blind_and_nothing() -> None:
    for metric in (TPRAtFAP(0.1), PartialAUROC(0.1)):
        metric.update(torch.arange(100.0), (torch.arange(100) >= 50).float())
        assert float(metric.compute()) == pytest.approx(1)
        metric.reset()
        metric.update(-torch.arange(100.0), (torch.arange(100) >= 50).float())
        assert float(metric.compute()) == 0
        metric.reset()
        metric.update(torch.arange(10.0), torch.zeros(10))
        assert math.isnan(float(metric.compute()))
    with pytest.raises(SearchError, match="fap is 0"):
        TPRAtFAP(0)


def test_timing() -> None:
    metric = TimingError()
    true = torch.tensor([1187008882.43, 1126259462.40], dtype=torch.float64)
    metric.update(true + torch.tensor([0.1, -0.02], dtype=torch.float64), true)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == pytest.approx({"mean": 0.04, "rms": 0.06, "largest": 0.1}, abs=1e-6)
