"""Tables and figures of a tier, from results made by hand; what is not there is left out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from shared.claims.results import DataUsed, ExperimentResult, Results, RunResult
from shared.errors import UserError

from logsobolev_bounds import figures, tables

MODES = ("identity", "total", "within", "class_corrected")
KEYS = ("lsi", "lsi_euclid", "lsi_corrected", "hoeffding_clip", "seeger_clip", "seeger01", "certificate01")


FLAGS = ("certificate/", "valid/", "lambda", "ratio_alpha", "m")


def experiment(title: str, config: dict[str, Any], metrics: dict[str, float], **more: Any) -> ExperimentResult:
    """Three seeds; a metric is larger by 0.1 with every seed, a flag is not."""
    runs = []
    for seed in range(3):
        own = {k: v if k.startswith(FLAGS) else v + 0.1 * seed for k, v in metrics.items()}
        runs.append(
            RunResult(
                seed=seed, key=f"{title}{seed}", metrics=own, curves=more, wall_seconds=1, device="CPU",
                date="2026-01-02T03:04:05+00:00", commit="c0ffee", versions={},
            )
        )  # fmt: skip
    data = DataUsed(name="d", kind="embedded", fingerprint="f", detail="")
    return ExperimentResult(title=title, config=config, data=data, runs=runs, failed=[])


def results(**experiments: ExperimentResult) -> Results:
    return Results.model_construct(
        paper="logsobolev_bounds", tier="cpu", experiments=experiments, claims={}, tables=[], figures=[]
    )


def trained(
    title: str, sigma_p: float = 0.3, certified: bool = False, lam: float = 1.0, **more: float
) -> ExperimentResult:
    metrics = {
        "train/nll": 0.48, "test/nll": 0.47, "test/gibbs": 0.083, "test/ensemble": 0.058, "kl": 392.0, "ess/lsi": 1.2,
        "term/risk": 0.5, "term/KL_over_lambda": 0.3, "term/confidence_over_lambda": 0.01, "term/C_over_lambda": 0.2,
        "lambda_over_m/lsi": lam,
        **{f"bound/{key}": 1.0 + i for i, key in enumerate(KEYS)},
        **{f"certificate/{key}": 0.0 for key in KEYS},
        "certificate/certificate01": float(certified), **more,
    }  # fmt: skip
    return experiment(title, {"model": {"sigma_p": sigma_p}}, metrics)


def prior(title: str, modes: tuple[str, ...] = MODES, largest: float = 1.0) -> ExperimentResult:
    metrics: dict[str, float] = {"m": 1200.0, "ratio_alpha": min(1.0, largest)}
    curves: dict[str, list[float]] = {}
    for i, mode in enumerate(modes):
        metrics |= {
            f"C/{mode}": 1.0, f"v/{mode}": 1e-3, f"c/{mode}": 1e-5, f"rms/{mode}": 0.01 + i, f"ess/{mode}": 5.0,
            f"ratio_mean/{mode}": 0.05 + i, f"ratio_worst/{mode}": 0.2 + i, f"violated/{mode}": 0.2 * i,
        }  # fmt: skip
        curves |= {
            f"curve/C_{mode}": [1e-3 * j**2 for j in range(1, 21)], f"curve/ess_{mode}": [50.0] * 10 + [3.0] * 10,
            f"ratio/{mode}": [0.05 + i, 0.2 + i],
        }  # fmt: skip
    return experiment(
        title, {"prior": {"sigma_p": 0.1, "largest": largest}, "data": {"dataset": "digits"}}, metrics, **curves
    )


@pytest.fixture
def some() -> Results:
    return results(
        prior_d0_s1=prior("digits, depth 0"),
        prior_d1_s1=prior("digits, depth 1"),
        slope_s1=experiment(
            "slope", {"prior": {"sigma_p": 0.1}}, {"slope": -1.1},
            **{"curve/depth": [0.0, 1.0], "curve/grad_sq": [0.5, 0.2], "curve/predicted": [0.6, 0.2]},
        ),
        digits_linear=trained("linear", certified=False),
        digits_linear_heldout=trained("linear, held-out mean", certified=True),
        c5_s3=trained("wide", 0.3),
        c5_s1=trained("narrow", 0.1),
        simulate=experiment(
            "simulation", {"simulate": {}},
            {"identity_worst_z": 1.0, "violated/flat_classes/pooled": 0.36, "valid/flat_classes/pooled": 0.0,
             "violated/flat_classes/corrected": 0.0, "valid/flat_classes/corrected": 1.0},
        ),
    )  # fmt: skip


def test_a_bound_is_marked_only_where_every_seed_certifies(some: Results) -> None:
    table = tables.bounds(some)
    rows = {row[0]: dict(zip(table.columns, row)) for row in table.rows}
    assert list(rows) == ["linear", "linear, held-out mean", "wide", "narrow"]
    marked = [(name, column) for name, row in rows.items() for column, cell in row.items() if "✓" in cell]
    assert marked == [("linear, held-out mean", "0-1, inverted draws")]
    assert rows["linear"]["LSI total"] == "1.10 ± 0.10"
    assert rows["linear"]["KL"] == "392 ± 0"
    assert rows["linear"]["lambda / m"] == "1"
    assert rows["linear"]["ESS"] == "1.3 ± 0.1"
    assert "n/a" in table.note
    assert "estimate" in table.note
    some.experiments["digits_linear_heldout"].runs[1].metrics["certificate/certificate01"] = 0.0
    assert not any("✓" in cell for row in tables.bounds(some).rows for cell in row)


def test_a_bound_that_was_infinite_for_one_seed_is_shown_as_such(some: Results) -> None:
    del some.experiments["digits_linear"].runs[2].metrics["bound/lsi"]
    assert tables.bounds(some).rows[0][6] == "∞"
    alone = some.experiments["digits_linear"]
    del alone.runs[1:]
    assert tables.bounds(some).rows[0][6] == "1.00"


def test_ratios_fits_and_coverage(some: Results) -> None:
    some.experiments["prior_part"] = prior("two modes", ("identity", "total"))
    table = tables.inequality(some)
    assert table.columns[1:] == ["Euclidean norm", "total covariance", "within-class covariance", "class-corrected"]
    assert table.rows[0] == ["digits, depth 0", "0.15 (10 %)", "1.15 (30 %)", "2.15 (50 %)", "3.15 (70 %)"]
    assert table.rows[-1][3:] == ["–", "–"]
    some.experiments["prior_part"] = prior("short", largest=0.0408)
    assert tables.inequality(some).rows[-1][0] == "short (at alpha = 0.0408)"
    some.experiments["prior_part"] = prior("two modes", ("identity", "total"))
    assert tables.fits(some).rows[0][3:5] == ["0.110 ± 0.100", "5.1 ± 0.1"]
    assert tables.fits(some).rows[0][5:] == ["1.0e-01 ± 1.0e-01", "1.110 ± 0.100", "5.1 ± 0.1"]
    assert tables.simulations(some).rows == [
        ["flat classes/corrected", "yes", "0.1000 ± 0.1000"],
        ["flat classes/pooled", "no", "0.4600 ± 0.1000"],
    ]
    del some.experiments["prior_part"].runs[:]
    assert len(tables.fits(some).rows) == 2


def test_ranges_over_all_priors_of_a_kind() -> None:
    """By prior the means over seeds; the tightest single draw; what ends before alpha = 1 is not among them."""
    wide, lenet = prior("wide"), prior("lenet")
    for run in wide.runs:
        run.metrics |= {"violated/total": 0.9, "ratio_mean/identity": 0.5}
    lenet.config["prior"]["network"] = "lenet"
    lenet.config["data"] = {"dataset": "mnist", "scale": "standardised"}
    found = results(a=prior("narrow"), b=wide, c=lenet, d=prior("short", largest=0.04))
    table = tables.inequality_in_short(found)
    digits, total = table.rows[:2]
    assert digits == ["digits, linear models and MLPs", "2", "Euclidean norm", "10 to 10", "2 to 6.7", "2.5"]
    assert total[2:4] == ["total covariance", "30 to 90"]
    assert [row[0] for row in table.rows[4:]] == ["mnist, standardised, LeNet"] * 4
    assert tables.inequality_in_short(results()) is None


def test_a_fit_of_one_mode_only_leaves_the_others_open() -> None:
    table = tables.fits(results(euclid=prior("Euclidean only", ("identity",))))
    assert table.rows[0][5:] == ["–", "–", "–"]
    assert tables.inequality(results(euclid=prior("Euclidean only", ("identity",)))).rows[0][1:] == [
        "0.15 (10 %)", "–", "–", "–",
    ]  # fmt: skip


def test_tables_are_those_whose_experiments_are_there(some: Results) -> None:
    assert len(tables.tables(some)) == 5
    assert tables.tables(results()) == []
    assert [t.title for t in tables.tables(results(a=some.experiments["simulate"]))] == [
        "How often a bound lies below the true risk, delta = 0.05"
    ]
    for table in tables.tables(some):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_figures_are_drawn_where_their_experiments_are(some: Results, tmp_path: Path) -> None:
    drawn = figures.draw(some, tmp_path)
    names = ("fig1_complexity", "fig2_depth", "fig3_ratio", "fig4_terms", "fig5_bounds")
    assert [f.file for f in drawn] == [f"{name}.svg" for name in names]
    for figure in drawn:
        assert "<svg" in (tmp_path / figure.file).read_text()
        header, *rows = csv.reader((tmp_path / figure.file).with_suffix(".csv").read_text().splitlines())
        assert rows
        assert all(len(row) == len(header) for row in rows)
        assert figure.caption.rstrip().endswith(".")
        assert figure.alt
    points = dict(zip(("sigma_p", "risk", "KL", "C"), (tmp_path / "fig4_terms.csv").read_text().split()[1].split(",")))
    assert points == {"sigma_p": "0.1", "risk": "0.6", "KL": "0.51", "C": "0.3"}
    lam = [row.split(",") for row in (tmp_path / "fig1_complexity.csv").read_text().splitlines() if "identity" in row]
    assert (lam[-2][-4], lam[-2][-3], lam[-2][-1]) == ("1140", "0.361", "3")
    assert figures.draw(results(), tmp_path) == []
    del some.experiments["c5_s1"]
    assert figures.terms(some, tmp_path) is None  # one deviation makes no U


def test_the_terms_of_a_bound_are_stacked_at_one_lambda(some: Results, tmp_path: Path) -> None:
    some.experiments["c5_s1"] = trained("narrow", 0.1, lam=2.0)
    with pytest.raises(UserError, match=r"fig4 .* at one lambda, these are at lambda / m = 1, 2: give model.lambdas"):
        figures.terms(some, tmp_path)
    mixed = tables.bounds(some)
    assert [row[mixed.columns.index("lambda / m")] for row in mixed.rows] == ["1", "1", "1", "2"]
    some.experiments["c5_s1"].runs[0].metrics["lambda_over_m/lsi"] = 0.25  # where the grid is searched seed by seed
    assert [row[mixed.columns.index("lambda / m")] for row in tables.bounds(some).rows][-1] == "0.25, 2"


def test_a_narrower_lambda_and_a_single_mode_are_drawn(tmp_path: Path) -> None:
    assert figures.complexity(results(prior_d0_s1=prior("a", largest=0.04)), tmp_path) is not None
    assert figures.complexity(results(prior_d0_s1=prior("a", ("identity",))), tmp_path) is not None
    assert figures.ratios(results(prior_d1_s1=prior("a", ("total", "identity"))), tmp_path) is not None


def test_closed_forms_stand_beside_what_was_derived() -> None:
    metrics = {"closed/psi; alpha 1": 0.5, "derived/psi; alpha 1": 0.25, "error/psi; alpha 1": 0.5}
    runs = experiment("theory", {"theory": {}}, {**metrics, "theory_worst_error": 0.5})
    del runs.runs[1:]
    table = tables.theory(results(theory=runs))
    assert table is not None
    assert table.rows == [["psi", "alpha 1", "0.5", "0.25", "5e-01"]]
    assert tables.theory(results()) is None
