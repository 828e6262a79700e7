"""Tables and figures of a tier, from results made by hand; what is not there is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shared.claims.results import DataUsed, ExperimentResult, Results, RunResult
from shared.errors import UserError

from diggan import figures, tables

LOOKS = 5


def experiment(
    title: str, model: dict[str, Any] | None = None, fid: float = 100.0, detail: str = "", seeds: int = 3, **more: Any
) -> ExperimentResult:
    runs = []
    for seed in range(seeds):
        metrics = {
            "tail/fid": fid + seed, "best/fid": fid - 10, "last/fid": fid + 5, "tail/gap": 0.1, "tail/overfitting": 0.2,
            "tail/val_fid": fid + seed, "is": 5.0, "recall": 0.5, "coverage": 0.6, "leak": 0.0, "leak_training": 0.01,
            "features/digits-cnn-12345678": 0.974, **more,
        }  # fmt: skip
        names = ("fid", "gap", "norm_real", "norm_fake", "norm_held_out", "accuracy_real", "accuracy_held_out")
        curves = {f"curve/{n}": [fid + i + seed for i in range(LOOKS)] for n in names}
        curves |= {"samples/shape": [4.0, 1.0, 2.0, 2.0]}
        curves |= {f"samples/{part}": [float(i) for i in range(16)] for part in ("pixels", "nearest")}
        runs.append(
            RunResult(
                seed=seed, key=f"{title}{seed}", metrics=metrics, curves=curves, wall_seconds=1, device="CPU",
                date="2026-01-02T03:04:05+00:00", commit="c0ffee", versions={},
            )
        )  # fmt: skip
    config = {"model": model or {}, "data": {"dataset": "digits", "iterations": 250}}
    data = DataUsed(name="d", kind="embedded", fingerprint="f", detail=detail)
    return ExperimentResult(title=title, config=config, data=data, runs=runs, failed=[])


def results(**experiments: ExperimentResult) -> Results:
    return Results.model_construct(
        paper="diggan", tier="cpu", experiments=experiments, claims={}, tables=[], figures=[]
    )


def dig(weight: float, **more: Any) -> dict[str, Any]:
    return {"regulariser": "dig", "weight": weight, **more}


@pytest.fixture
def some() -> Results:
    return results(
        digits_plain=experiment("no penalty", fid=200),
        digits_dig_10=experiment("DIG, 10", dig(10.0), 150),
        digits_dig_100=experiment("DIG, 100", dig(100.0), 90),
        digits_pair_100=experiment("DIG, pair, 100", dig(100.0, variant="pair"), 95),
        digits_r1_1=experiment("R1, 1", {"regulariser": "r1", "weight": 1.0}, 50),
        digits_r1_10=experiment("R1, 10", {"regulariser": "r1", "weight": 10.0}, 40, **{"tail/val_fid": 45.0}),
        digits_da=experiment("DiffAugment", {"policy": "cutout"}, 210),
    )


def test_every_method_has_a_row_and_the_features_are_named(some: Results) -> None:
    table = tables.methods(some, "digits_")
    assert [row[0] for row in table.rows] == [e.title for e in some.experiments.values()]
    assert table.rows[2][2] == "91.0 ± 1.0"
    assert "digits-cnn-12345678, 97.4 % accurate" in table.note
    assert table.columns[2] == "FID-local [12345678], tail"
    assert "IS-local [12345678]" in table.columns
    assert "no FID verdict" not in table.title + table.note
    assert tables.methods(some, "mnist500_") is None


COPY = "CIFAR-10 (JPEG copy): 50,000 training and 10,000 test images"


@pytest.mark.parametrize(
    ("detail", "says"),
    [
        (COPY, "5000 CIFAR-10 (JPEG copy) images"),
        ("CIFAR-10, the original files (checksums verified): 50,000 training", "5000 CIFAR-10 images"),
        ("CIFAR-10 (a copy: not the original files byte for byte, read from x): 1", "5000 CIFAR-10 (a copy) images"),
    ],
)
def test_a_copy_of_the_data_is_called_one_wherever_it_is_shown(detail: str, says: str, tmp_path: Path) -> None:
    found = results(
        cifar_plain=experiment("no penalty", detail=detail), cifar_dig=experiment("DIG", dig(1e4), detail=detail)
    )
    assert tables.methods(found, "cifar_").title.startswith(f"{says}, BigGAN at ch 4")
    for figure in figures.draw(found, tmp_path):
        if figure.file != "samples.svg":
            assert figure.caption.startswith(f"{says}, BigGAN at ch 4"), figure.caption
        assert says in (tmp_path / figure.file).read_text() or "gap" in figure.file


def test_one_seed_gives_no_verdict_and_says_so(tmp_path: Path) -> None:
    model = {"final_samples": 500}
    found = results(
        cifar_plain=experiment("no penalty", model, detail=COPY, seeds=1),
        cifar_dig=experiment("DIG", {**model, **dig(1e4)}, detail=COPY, seeds=1),
    )
    for each in found.experiments.values():
        each.config["data"]["iterations"], each.config["trainer"] = 50, {"max_epochs": 6}
    says = "300 iterations, one seed, 500 samples: no FID verdict"
    assert says in tables.methods(found, "cifar_").title
    captions = {figure.file: figure.caption for figure in figures.draw(found, tmp_path)}
    assert says in captions["gap_cifar.svg"]


def test_published_distances_are_called_fid_and_others_are_not(some: Results) -> None:
    for each in some.experiments.values():
        for run in each.runs:
            run.metrics["features/inception-87654321"] = run.metrics.pop("features/digits-cnn-12345678")
    assert tables.methods(some, "digits_").columns[2] == "FID [87654321], tail"
    for run in some.experiments["digits_da"].runs:
        run.metrics["features/digits-cnn-12345678"] = run.metrics.pop("features/inception-87654321")
    with pytest.raises(UserError, match="measured by digits-cnn-12345678 and inception-87654321: not comparable"):
        tables.methods(some, "digits_")


def test_weights_are_chosen_on_validation_images_not_on_the_reference(some: Results) -> None:
    """R1 at 10 is the better on the reference set, R1 at 1 on validation images."""
    for run in some.experiments["digits_r1_1"].runs:
        run.metrics["tail/val_fid"] = 20.0
    table = tables.rivals(some, "digits_")
    assert [row[:3] for row in table.rows] == [["r1", "2", "3"], ["dig", "2", "3"]]
    assert table.rows[0][3:5] == ["1 (edge)", "51.0 ± 1.0"]
    assert table.rows[0][6:] == ["10", "41.0 ± 1.0"]


def test_lecam_s_late_start_is_said_beside_its_number(some: Results) -> None:
    assert "lecam" not in tables.rivals(some, "digits_").note
    for weight in (0.3, 3.0):
        model = {"regulariser": "lecam", "weight": weight}
        some.experiments[f"digits_lecam_{weight}"] = found = experiment("LeCam", model, 300 + weight)
        found.config["trainer"] = {"max_epochs": 8}
    table = tables.rivals(some, "digits_")
    assert "lecam: its penalty starts after iteration 1000 of 2000." in table.note
    assert table.rows[-1][3] == "0.3 (edge)"
    found.config["model"]["lecam_start"] = 100
    some.experiments.pop("digits_lecam_0.3")
    some.experiments["digits_lecam_30"] = experiment("LeCam", {"regulariser": "lecam", "weight": 30.0}, 500)
    assert "after iteration 100 of 2000" in tables.rivals(some, "digits_").note


def test_cells_that_are_not_available_are_so(some: Results) -> None:
    some.experiments["c10_10_plain"] = experiment("BigGAN", fid=30)
    rows = {row[0]: row[1:] for row in tables.published(some).rows}
    assert set(rows["+ DIG"]) == {"n/a"}
    assert rows["BigGAN"][2] == "7.62 / 39.78"  # FID-local stands in a table of its own
    assert tables.methods(some, "c10_10_").rows[0][2] == "31.0 ± 1.0"


def test_every_run_has_a_row_by_its_key(some: Results, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tables.runs(some)
    assert len(rows) == 3 * len(some.experiments)
    keys = {(r["data"], r["fraction"], r["method"], r["lambda"], r["seed"]) for r in rows}
    assert len(keys) == len(rows)
    some.experiments["digits_plain"].config["data"]["num_samples"] = 100
    assert tables.runs(some)[0]["fraction"] == pytest.approx(100 / 897)
    assert tables.main(["--tier", "quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("data,fraction,method,lambda,seed,")
    assert len(lines) > 40
    with pytest.raises(UserError, match="no such file"):
        tables.main(["--tier", "huge"])


def test_costs_and_games() -> None:
    cost = experiment(
        "ch 8", d_plain_ms=10.0, d_dig_ms=21.0, d_separate_ms=30.0, g_plain_ms=50.0, g_dig_ms=60.0, d_ratio=2.1,
        d_ratio_separate=3.0, g_ratio=1.2,
    )  # fmt: skip
    game = experiment("ring", ever_all_modes=1.0, all_modes=0.0, modes=4.0, first_covered=500.0, epochs=1000.0)
    found = results(cost_ch8=cost, toy_ring=game)
    assert tables.costs(found).rows[0][1:3] == ["10 ± 0", "21 ± 0"]
    assert tables.costs(found).note.endswith("usually written. CPU.")
    for run in cost.runs:
        run.device = "cpu"
    assert tables.costs(found).note.endswith("One thread.")
    assert tables.games(found).rows[0][:4] == ["ring", "3/3", "0/3", "4.00 ± 0.00"]
    assert len(tables.tables(found)) == 3


def test_figures_are_drawn_where_their_experiments_are(some: Results, tmp_path: Path) -> None:
    drawn = figures.draw(some, tmp_path)
    names = ("norms", "gap", "memorised", "weights")
    assert [f.file for f in drawn] == [*(f"{name}_digits.svg" for name in names), "samples.svg"]
    for figure in drawn:
        assert "<svg" in (tmp_path / figure.file).read_text()
        assert figure.caption.rstrip().endswith((".", ")"))
    assert figures.draw(results(), tmp_path) == []
