"""Closed forms derived a second time: they agree, a wrong one does not, and what the quick tier stores is all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from logsobolev_bounds.experiment import data_fingerprint, run
from shared.errors import UserError

from logsobolev_bounds import solved, theory


def test_every_closed_form_is_met() -> None:
    cases = solved.solved_cases()
    assert len({(case.what, case.at) for case in cases}) == len(cases) == 26
    for case in cases:
        assert case.closed > 0
        assert case.error <= 1e-9, case  # quadrature ends at 10 deviations, where e^{-4 r} has 1e-10 of its mean


@pytest.mark.parametrize(
    ("name", "formulas"),
    [
        ("on_average", {"T2, quadratic loss"}),
        ("comonotone", {"co-monotone, affine loss"}),
        ("class_corrected", {"class-corrected, flat classes"}),
        ("herbst", {"Herbst's identity, 50 losses"}),
        ("c_lipschitz", {"C, linear models"}),
    ],
)
def test_a_formula_that_is_wrong_by_a_thousandth_shows(
    name: str, formulas: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(solved, name)
    monkeypatch.setattr(solved, name, lambda *args: 1.001 * right(*args))
    assert {case.what for case in solved.solved_cases() if case.error > 1e-7} == formulas


def test_the_bounds_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < solved.least_slack() < 0.1
    right = theory.logistic_1d
    monkeypatch.setattr(theory, "logistic_1d", lambda *at: right(*at)._replace(lsi=0.9 * right(*at).psi))
    assert solved.least_slack() < 0


def test_what_the_quick_tier_stores(tmp_path: Path) -> None:
    found = run({"theory": {}}, 0, tmp_path)
    errors = [value for name, value in found.items() if name.startswith("error/")]
    assert found["theory_worst_error"] == max(errors)
    assert len(errors) == 26
    assert found["theory_least_slack"] == solved.least_slack()
    assert data_fingerprint({"theory": {}})[1] == "recipe"
    with pytest.raises(UserError, match=r"unknown key 'theory\.x'"):
        run({"theory": {"x": 1}}, 0, tmp_path)
