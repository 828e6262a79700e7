"""Predicted plateaus against the paper's numbers, the exact landscape values and a numerical critic."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from rpgan_landscape.diagnose import diagnose, separable_plateau
from rpgan_landscape.losses import named_loss
from scipy.optimize import linprog, minimize, minimize_scalar

H = {
    "logistic": lambda t: np.logaddexp(0, -t),
    "hinge": lambda t: np.maximum(0, 1 - t),
    "ls": lambda t: (1 - t) ** 2,
}


def plateaus(name: str, modes: int, n: int = 100, **options: bool) -> list[float]:
    return [p.d_loss for p in diagnose(name, 0.5, n, modes, **options).plateaus]


def test_the_numbers_of_the_two_clusters() -> None:
    assert plateaus("js", 2) == pytest.approx([0.477386, 0.693147], abs=1e-6)
    assert plateaus("rs", 2) == pytest.approx([0.346574, 0.693147], abs=1e-6)
    assert plateaus("sep_logistic", 2) == pytest.approx([2 * 0.477386, 2 * math.log(2)], abs=2e-6)
    assert plateaus("js", 2, halve_separable=False) == plateaus("sep_logistic", 2)
    assert plateaus("sep_logistic", 2, halve_separable=True) == plateaus("js", 2)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 25])
def test_all_fakes_on_one_of_k_modes(k: int) -> None:
    """Section 11: JS 1/2 [1/k log(1 + k) + log((1 + k)/k)]; RS: a k-th of the pairs; all modes: the minimum of g."""
    js = (math.log(1 + k) / k + math.log((1 + k) / k)) / 2
    assert plateaus("js", k)[0] == pytest.approx(js, rel=1e-14)
    assert plateaus("rs", k)[0] == pytest.approx(math.log(2) / k, rel=1e-14)
    for name, minimum in {"js": math.log(2), "ls": 0.25, "hinge": 1.0, "rs": math.log(2), "rp_hinge": 1.0, "rp_ls": 1.0,
                          "allpairs_logistic": math.log(2)}.items():  # fmt: skip
        assert plateaus(name, k)[-1] == pytest.approx(minimum, rel=1e-12)
        assert len(plateaus(name, k)) == k


def test_points_that_are_modes() -> None:
    """n points of one mode each: the exact landscape, with the barriers of section 3."""
    two = diagnose("js", 0.4774, 2, 2).plateaus
    assert [p.barrier for p in two] == [pytest.approx(0.130812, abs=1e-6), 0.0]
    three = diagnose("js", 0.4774, 3, 3).plateaus
    assert three[0].barrier == pytest.approx(0.056633, abs=1e-6)
    xi = [0.0] + [m * math.log(m) - (m + 1) * math.log(m + 1) for m in (1, 2, 3)]
    assert three[0].d_loss == pytest.approx(-xi[3] / 6)
    assert diagnose("hinge", 1.0, 3, 3).plateaus[0].barrier == pytest.approx(0, abs=1e-15)  # result B1
    assert [p.barrier for p in diagnose("rs", 0.3, 3, 3).plateaus] == [0.0, 0.0, 0.0]  # claim C2
    assert [p.barrier for p in diagnose("allpairs_ls", 0.3, 3, 3).plateaus] == [None, None, 0.0]


@pytest.mark.parametrize("name", ["js", "ls", "hinge", "sep_logistic", "sep_ls", "sep_hinge"])
def test_separable_plateaus_of_any_masses(name: str) -> None:
    """Against a critic found numerically, mode by mode; some modes without fakes, some fakes outside."""
    loss, draw = named_loss(name), np.random.default_rng(0)
    p, q = draw.dirichlet(np.ones(4)), draw.dirichlet(np.ones(5))[:4]
    q[1] = 0
    h = H[loss.kind]
    fakes = (lambda t: t**2) if loss.kind == "ls" else (lambda t: h(-t))
    best = [minimize_scalar(lambda t, a=a, b=b: a * h(t) + b * fakes(t), (-1, 1), tol=1e-12).fun for a, b in zip(p, q)]
    expected = sum(best) / (2 if loss.halve_separable else 1)
    assert separable_plateau(loss, p, q) == pytest.approx(expected, abs=1e-7)


def test_js_masses_formula() -> None:
    """Section 11: -(1/2) sum_k [p log(p/(p+q)) + q log(q/(p+q))]."""
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.6, 0.4, 0.0])
    terms = [a * math.log(a / (a + b)) + (b * math.log(b / (a + b)) if b else 0) for a, b in zip(p, q)]
    assert separable_plateau(named_loss("js"), p, q) == pytest.approx(-sum(terms) / 2, rel=1e-14)
    low = diagnose("js", 0.5, 10, [0.2, 0.8]).plateaus
    assert [level.modes for level in low] == [(0,), (1,), (0, 1)]
    assert low[1].d_loss == pytest.approx(-(0.8 * math.log(0.8 / 1.8) + math.log(1 / 1.8)) / 2)
    assert [p.d_loss for p in diagnose("js", 0.5, 10, (20, 80)).plateaus] == pytest.approx([p.d_loss for p in low])


@pytest.mark.parametrize("name", ["rp_logistic", "rp_hinge", "rp_ls", "allpairs_logistic"])
def test_relativistic_plateaus_of_unequal_masses(name: str) -> None:
    """Against the best critic on modes, with partners drawn at random: min_t sum_uv p_u q_v h(t_u - t_v)."""
    p = np.array([0.15, 0.25, 0.6])
    kind = named_loss(name).kind
    for level in diagnose(name, 0.5, 20, p.tolist()).plateaus:
        chosen = list(level.modes)
        q = np.zeros(3)
        q[chosen] = p[chosen] / p[chosen].sum()
        weight = np.outer(p, q)
        if kind == "hinge":  # z_uv >= 1 - t_u + t_v, z >= 0
            u, v = (x.ravel() for x in np.indices((3, 3)))
            rows = np.hstack([np.eye(3)[v] - np.eye(3)[u], -np.eye(9)])
            cost, bounds = np.append(np.zeros(3), weight.ravel()), [(-9, 9)] * 3 + [(0, None)] * 9
            best = linprog(cost, rows, -np.ones(9), bounds=bounds).fun
        else:
            start = np.where(q > 0, 0.3 * p, 30.0 if kind == "logistic" else 1.0)
            best = minimize(lambda t, w=weight: (w * H[kind](t[:, None] - t)).sum(), start, tol=1e-12).fun
        assert level.d_loss == pytest.approx(best, abs=1e-7)


def test_the_first_fake_leaves_where_it_is_cheapest() -> None:
    level = next(x for x in diagnose("js", 0.5, 50, [0.2, 0.3, 0.5]).plateaus if x.modes == (0, 2))
    p, q = np.array([0.2, 0.3, 0.5]), np.array([2 / 7, 0, 5 / 7])
    rises = [level.d_loss - separable_plateau(named_loss("js"), p, q - np.eye(3)[k] / 50) for k in (0, 2)]
    assert rises[0] != pytest.approx(rises[1], rel=1e-4)
    assert level.barrier == pytest.approx(min(rises), rel=1e-12)


def test_a_thousand_modes() -> None:
    assert len(diagnose("js", 0.6, 60_000, 1000).plateaus) == 1000


def test_what_a_plateau_matches() -> None:
    collapsed = diagnose("js", 0.4903, 100, 2)  # the highest mean of a measured window
    assert [p.modes for p in collapsed.matches] == [(0,)]
    assert str(collapsed) == "D loss 0.4903 fits fakes on 1 of 2 modes (0.4774); all 2 modes covered: 0.6931"
    assert [p.modes for p in diagnose("js", 0.69, 100, 2).matches] == [(0, 1)]
    assert diagnose("js", 0.58, 100, 2).matches == ()
    assert "on no plateau of js: D is still moving" in str(diagnose("js", 0.58, 100, 2))
    close = diagnose("rs", 0.67, 1000, 25, tolerance=0.05)
    assert [len(p.modes) for p in close.matches] == [24, 25, 23]
    assert "24 of 25 modes (0.6654) or all 25 modes (0.6931) or 23 of 25 modes" in str(close)
    assert "modes [1] of 2" in str(diagnose("rs", 0.55, 10, [0.2, 0.8]))


def test_json() -> None:
    document = json.loads(json.dumps(asdict(diagnose("rs", 0.35, 100, 2))))
    assert document["masses"] == [0.5, 0.5]
    assert document["matches"] == [{"modes": [0], "d_loss": pytest.approx(0.346574, abs=1e-6), "barrier": 0.0}]


def test_bad_arguments() -> None:
    for arguments, message in {
        ("gan", 0.5, 4, 2): "unknown loss 'gan': use one of",
        ("sep_w", 0.5, 4, 2): "no plateau that could be predicted",
        ("ra_logistic", 0.5, 4, 2): "no plateau that could be predicted",
        ("js", math.nan, 4, 2): "the D loss is nan: training has diverged",
        ("js", 0.5, 0, 1): "n is 0",
        ("js", 0.5, 4, 5): "5 modes and n = 4 points",
        ("js", 0.5, 4, 0): "0 modes and n = 4 points",
        ("js", 0.5, 4, (0.5, 0.0)): "every mode needs a positive mass",
        ("js", 0.5, 99, tuple(range(1, 14))): "13 modes of unequal mass",
    }.items():
        with pytest.raises(ValueError, match=message):
            diagnose(*arguments)  # type: ignore[arg-type]
