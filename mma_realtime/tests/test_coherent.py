"""Slides of networks that look at two detectors together, against brute force: other strain, looked at again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mma_realtime.data.strain import Strain
from mma_realtime.errors import SearchError
from mma_realtime.models import build
from mma_realtime.search.coherent import coherent_slides, slid_statistics, slides_of
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.model_file import Recipe, SearchModel
from mma_realtime.search.scores import conditioner_for, score_strain
from mma_realtime.search.significance import time_slides

torch.set_num_threads(1)
FS, RATE, HOP, START = 2048, 1024, 1 / 16, 1_000_000_000.0
H1L1 = ("H1", "L1")


def strain(seconds: int = 20, gaps: tuple[tuple[int, int], ...] = ((0, 5), (1, 13))) -> Strain:
    """White noise; each gap is a detector and a second that it lacks."""
    values = np.random.default_rng(5).normal(size=(2, seconds * FS))
    valid = np.ones((2, seconds), bool)
    for row, second in gaps:
        valid[row, second] = False
        values[row, second * FS : (second + 1) * FS] = 0
    return Strain(H1L1, START, FS, values, valid, "white noise")


def pair(members: int = 2, combine: Any = "mean") -> SearchModel:
    torch.manual_seed(0)
    nets = [build("twin", channels=2) for _ in range(members)]
    with torch.no_grad():
        for net in nets:
            net.head[3].weight.mul_(300.0)  # statistics that differ from window to window
            net.head[3].bias.zero_()
    return SearchModel(Recipe("twin", {"channels": 2}, detectors=H1L1, combine=combine), nets)


def residual() -> SearchModel:
    """One that reads both detectors from its first layer on."""
    torch.manual_seed(2)
    size = {"widths": (8,), "blocks": (1,), "groups": 4, "input_length": 1024, "channels": 2, "outputs": 1}
    net = build("coherent_resnet", **size)
    with torch.no_grad():
        for p in list(net.parameters())[-2:]:
            p.mul_(100.0)
    return SearchModel(Recipe("coherent_resnet", size, detectors=H1L1), [net])


def fitted(model: SearchModel, of: Strain) -> Conditioner:
    return conditioner_for(model).fitted(of)


def windows(conditioner: Conditioner, of: Strain) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Every window of the whitened strain [detector, window, time], whether it is whole, and its end in GPS s."""
    parts = list(conditioner.whitened(of))
    x = np.concatenate([part.values for part in parts], axis=1).astype(np.float32)
    ok = np.concatenate([part.valid for part in parts], axis=1)
    begin, samples = parts[0].start, round(HOP * RATE)
    ends = np.arange(0, begin + x.shape[1] + 1, samples)
    ends = ends[ends >= begin + RATE]
    cut = [slice(end - RATE - begin, end - begin) for end in ends]
    whole = np.array([[row[at].all() for at in cut] for row in ok])
    return torch.from_numpy(np.stack([[row[at] for at in cut] for row in x])), whole, START + ends / RATE


@torch.no_grad()
def brute(
    model: SearchModel, of: Strain, step: float, threshold: float, on_source: tuple[float, ...] = ()
) -> tuple[list[float], list[float], float]:
    """Cluster maxima, livetimes and loudest window of all slides: the strain of the second detector is moved, and the
    networks look at every pair of windows again."""
    x, whole, ends = windows(fitted(model, of), of)
    for gps in on_source:
        whole[:, (ends >= gps - 0.5) & (ends <= gps + 1.5)] = False
    some = np.flatnonzero(whole.any(0))
    x, whole = x[:, some[0] : some[-1] + 1], whole[:, some[0] : some[-1] + 1]
    n, hops, apart = whole.shape[1], round(step / HOP), 32
    maxima, live, loudest = [], [], -math.inf
    shift = hops * math.ceil(apart / hops)
    while shift <= n - apart:
        both = torch.stack([x[0], x[1].roll(shift, 0)], 1)
        each = torch.stack([net.statistic(both) for net in model.members])
        series = (each.mean(0) if model.recipe.combine == "mean" else each.min(0).values).numpy()
        here = whole[0] & np.roll(whole[1], shift)
        live.append(here.sum() * HOP)
        last, largest = -math.inf, -math.inf
        for k in np.flatnonzero(here & (series > threshold)):
            if (k - last) * HOP >= 0.35 and largest > -math.inf:
                maxima.append(largest)
                largest = -math.inf
            last, largest = k, max(largest, float(series[k]))
        maxima += [largest] if largest > -math.inf else []
        loudest = max(loudest, float(series[here].max()))
        shift += hops
    return sorted(maxima), live, loudest


@pytest.mark.parametrize(("combine", "on_source"), [("mean", ()), ("min", (START + 9.3,)), ("resnet", ())])
def test_slides_equal_a_new_look_at_moved_strain(combine: str, on_source: tuple[float, ...]) -> None:
    model, of = residual() if combine == "resnet" else pair(combine=combine), strain()
    middle = float(np.median(score_strain(model, of, fitted(model, of)).values))
    found = coherent_slides(model, of, fitted(model, of), on_source=on_source, threshold=middle)
    maxima, live, loudest = brute(model, of, 2.0, middle, on_source)
    assert len(live) > 5
    assert len(maxima) > 2 * len(live)
    assert np.ptp(maxima) > 0.1
    assert found.n_slides == len(live)
    np.testing.assert_allclose(found.statistics, maxima, atol=1e-5, rtol=1e-5)
    assert found.loudest == pytest.approx(loudest, abs=1e-5)
    assert found.livetime_s == pytest.approx(sum(live))
    assert len(set(live)) > 1  # the gaps meet in one of them
    assert found.independent_livetime_s == found.livetime_s
    assert (found.step, found.threshold) == (2.0, middle)


def test_correlated_slides_say_how_much_is_independent() -> None:
    model, of = pair(1), strain(gaps=())
    own = fitted(model, of)
    apart = coherent_slides(model, of, own)
    close = coherent_slides(model, of, own, step=1.0, correlated=True)
    maxima, live, _ = brute(model, of, 1.0, 0.0)
    np.testing.assert_allclose(close.statistics, maxima, atol=1e-5, rtol=1e-5)
    assert close.livetime_s == pytest.approx(sum(live))
    assert close.correlated
    assert close.livetime_s > 1.8 * apart.livetime_s
    assert close.independent_livetime_s == pytest.approx(sum(live[::2]))
    few = coherent_slides(model, of, own, max_slides=2)
    assert (few.n_slides, few.livetime_s) == (2, pytest.approx(2 * apart.livetime_s / apart.n_slides, rel=0.01))


@pytest.mark.parametrize("hop", [HOP, 5 / 32])  # the second does not divide where the whitened strain begins
def test_without_a_shift_windows_have_their_scores(hop: float) -> None:
    for model in (pair(), residual()):
        of = strain()
        own = fitted(model, of)
        scores = score_strain(model, of, own, hop)
        statistic, valid, first = slid_statistics(model, of, own, hop)
        skipped = round((first - scores.gps_start) / hop)
        assert first == pytest.approx(scores.times[skipped], abs=1e-9)
        here = scores.valid[0, skipped : skipped + valid.shape[1]]
        np.testing.assert_array_equal(valid.all(0), here)
        assert here.sum() == scores.valid.sum()
        assert 0 < here.sum() < len(here)
        with torch.no_grad():
            found = statistic(0).numpy()[here]
        np.testing.assert_allclose(found, scores.values[scores.valid], atol=1e-5, rtol=1e-4)
        assert np.std(found) > 0.01


def test_scores_of_each_detector_are_slid_as_they_are() -> None:
    torch.manual_seed(1)
    of = strain()
    for single in (-math.inf, 0.0):
        recipe = Recipe("deepfilter_shallow", single_threshold=single)
        model = SearchModel(recipe, [build("deepfilter_shallow")])
        with torch.no_grad():
            model.members[0].head[-1].weight.mul_(300.0)
        own = fitted(model, of)
        scores = score_strain(model, of, own)
        scores = replace(scores, values=scores.values - np.median(scores.values))
        settings: dict[str, Any] = {"step": 0.5, "on_source": (START + 9.3,), "threshold": 0.1, "correlated": True}
        expected = time_slides(scores, **settings, single_threshold=single)
        found = slides_of(model, of, own, scores, **settings)
        np.testing.assert_array_equal(found.statistics, expected.statistics)
        assert len(found.statistics) > 50
        assert replace(found, statistics=expected.statistics) == expected


def test_what_cannot_be_slid() -> None:
    model, of = pair(1), strain(gaps=())
    own = fitted(model, of)
    with pytest.raises(SearchError, match=r"a slide step of 0\.5 s is shorter than the window and 1 s \(2 s\)"):
        coherent_slides(model, of, own, step=0.5)
    with pytest.raises(SearchError, match="whole number of score hops"):
        coherent_slides(model, of, own, step=2.03)
    with pytest.raises(SearchError, match=r"no window has a score"):
        coherent_slides(model, replace(of, valid=np.zeros_like(of.valid)), own)
    short = of.slice(START, START + 5)
    with pytest.raises(SearchError, match=r"hold no slide: at least 4 s are needed"):
        coherent_slides(model, short, own)
    with pytest.raises(SearchError, match="trained on H1 and L1 together"):
        coherent_slides(model, replace(of, detectors=("H1", "V1")), own)
    with pytest.raises(SearchError, match="trained with band"):
        coherent_slides(model, of, Conditioner(FS, RATE, (30.0, 400.0)).fitted(of))
    apart = np.zeros((2, 20), bool)  # never valid at one time, in no slide
    apart[0, 2:5], apart[1, 2:5] = True, True
    lone = replace(of, valid=apart)
    with pytest.raises(SearchError, match=r"hold no slide|never overlap|no window"):
        coherent_slides(model, lone, own)


def test_progress_is_told() -> None:
    model, of, told = pair(1), strain(gaps=()), []
    own = fitted(model, of)
    found = coherent_slides(model, of, own, progress=lambda done, total: told.append((done, total)))
    assert told == [(k + 1, found.n_slides) for k in range(found.n_slides)]
