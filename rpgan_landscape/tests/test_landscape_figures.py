"""Lipschitz critics against exact references, and the pictures: what they show, and that a page can hold them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rpgan_landscape.landscape import GAMES, Game, LandscapeError, value
from rpgan_landscape.landscape.games import logistic
from rpgan_landscape.landscape.inner import terms
from rpgan_landscape.landscape.lipschitz import lipschitz_values
from scipy.optimize import linprog
from shared.figures import use_house_style
from shared.report.svg import inline

from rpgan_landscape import landscape_figures as figures

X = np.array([0.25, 0.75])
SVG = "{http://www.w3.org/2000/svg}"


def fakes(count: int) -> np.ndarray:
    """Random pairs, and the corners where fakes and reals coincide."""
    draw = np.random.default_rng(0).random((count, 2))
    return np.concatenate([draw, [[0.25, 0.75], [0.75, 0.25], [0.25, 0.25], [0.25, 0.4]]])


@pytest.mark.parametrize("loss", ["w", "rp_w"])
def test_lipschitz_wasserstein(loss: str) -> None:
    Y = fakes(20)
    assert lipschitz_values(loss, Y, X, 7.0) == pytest.approx([value(loss, y, X, lipschitz=7) for y in Y], abs=1e-12)


@pytest.mark.parametrize("loss", ["hinge", "rp_hinge", "allpairs_hinge"])
def test_lipschitz_hinge_by_linear_programming(loss: str) -> None:
    Y, lipschitz = fakes(12), 10.0
    parts = terms(GAMES[loss], (2, 2))
    w, A = np.concatenate([w for _, w, _ in parts]), np.concatenate([A for _, _, A in parts])
    eye, pairs = np.eye(len(w)), [(i, j) for i in range(4) for j in range(4) if i != j]
    apart = np.array([np.eye(4)[i] - np.eye(4)[j] for i, j in pairs])
    best = []
    for y in Y:
        at = np.append(X, y)
        room = [lipschitz * abs(at[i] - at[j]) for i, j in pairs]
        rows = np.block([[-A, -eye], [apart, np.zeros((len(pairs), len(w)))]])
        limits = [(None, None)] * 4 + [(0, None)] * len(w)
        found = linprog(np.append(np.zeros(4), w), A_ub=rows, b_ub=[-1.0] * len(w) + room, bounds=limits)
        best.append(-found.fun)
    short = np.array(best) - lipschitz_values(loss, Y, X, lipschitz)
    assert short.min() > -1e-9
    assert short.max() < 0.02


@pytest.mark.parametrize("loss", ["js", "ls", "rs", "rp_ls", "allpairs_logistic", "allpairs_ls"])
def test_lipschitz_values_rise_to_those_of_all_critics(loss: str) -> None:
    Y = np.array([[0.25, 0.75], [0.25, 0.25], [0.25, 0.5], [0.1, 0.5]])
    exact = np.array([value(loss, y, X) for y in Y])
    short = [exact - lipschitz_values(loss, Y, X, lipschitz) for lipschitz in (2.0, 20.0, 200.0)]
    assert all((s > -1e-12).all() for s in short)
    assert (short[1] <= short[0] + 1e-12).all()
    assert (short[2] <= short[1] + 1e-12).all()
    assert short[2].max() < 1e-3
    assert short[0][2:].min() > 1e-2  # at 2 the bound holds the critic back


def test_lipschitz_critics_of_other_losses() -> None:
    with pytest.raises(LandscapeError, match="registered losses only"):
        lipschitz_values(Game("rp", h=lambda t: logistic(t)), fakes(1), X, 1.0)
    with pytest.raises(LandscapeError, match="are needed, not"):
        lipschitz_values("js", X, X, 1.0)


def test_every_picture_goes_into_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "pair_landscapes", lambda folder, draw=figures.pair_landscapes: draw(folder, points=5))
    drawn = figures.draw(tmp_path)
    assert [figure.file for figure in drawn] == [
        "pair_landscapes.svg", "barrier_trees.svg", "value_histograms.svg", "descent.svg",
    ]  # fmt: skip
    for figure in drawn:
        markup, width = inline(tmp_path / figure.file, "a", figure.alt)
        assert markup.startswith("<svg ")
        assert 400 < width < 750
    texts = ElementTree.parse(tmp_path / "barrier_trees.svg").iter(f"{SVG}text")
    labels = [text.text for text in texts if text.text and "bad" in text.text]
    assert labels == [
        f"{good} good, {bad} bad" for good, bads in ((6, (21, 0, 0, 21)), (24, (232, 0, 0, 232))) for bad in bads
    ]


def test_marks_of_the_pair_landscapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rings for every loss with states; two crosses for those with strict bad minima."""
    marks: list[tuple[str, bool]] = []
    current = ""
    draw = figures._all_critics

    def watched(ax: object, loss: str) -> None:
        nonlocal current
        current = loss
        draw(ax, loss)  # type: ignore[arg-type]
        current = "key"

    monkeypatch.setattr(figures, "_all_critics", watched)
    monkeypatch.setattr(figures, "_mark", lambda ax, at, good: marks.append((current, good)))
    use_house_style()
    figures.pair_landscapes(tmp_path, points=5)
    finite = [loss for row in figures.ROWS[:3] for loss in row if loss is not None]
    crosses = {"js", "ls", "allpairs_logistic", "allpairs_ls", "allpairs_hinge"}
    expected = [(loss, good) for loss in finite for good in (True, False) if good or loss in crosses for _ in range(2)]
    assert sorted(marks) == sorted([*expected, ("key", True), ("key", False)])


def test_the_animation_follows_the_path(tmp_path: Path) -> None:
    figures.descent(tmp_path, (0, 0, 1))
    root = ElementTree.parse(tmp_path / "descent.svg").getroot()
    stations = []
    for circle in root.iter(f"{SVG}circle"):
        across, down = circle.iter(f"{SVG}animate")
        assert across.get("keyTimes") == down.get("keyTimes")
        times = [float(t) for t in (across.get("keyTimes") or "").split(";")]
        assert times == sorted(times)
        assert (times[0], times[-1]) == (0, 1)
        points = [list(map(float, (it.get("values") or "").split(";"))) for it in (across, down)]
        assert len(times) == len(points[0]) == len(points[1])
        assert points[0][-1] == float(circle.get("cx") or "nan")
        stations.append(points)
    # two dots on the curves, then the three fakes: x1 keeps its own, two leave and arrive on x2 and x3
    assert len(stations) == 5
    (_, rs), (_, js), (first, _), (second, _), (third, _) = stations
    assert all(b >= a for a, b in pairwise(rs))  # further down the page: RS never rises
    assert any(b < a for a, b in pairwise(js))
    assert len(set(first)) == 1
    ticks = sorted(float(text.get("x") or 0) for text in root.iter(f"{SVG}text") if (text.text or "").startswith("x"))
    assert (first[-1], second[-1], third[-1]) == pytest.approx(ticks, abs=0.1)
    assert second[0] == first[0]
