"""The table of recommendations: its evidence is the claims' own, and what was not measured says so."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from mma_realtime.coverage import HEADLINES, NOT_RUN, RECOMMENDATIONS, coverage, evidence, main, results_of, tables
from rich.console import Console
from shared.claims.ledger import load_ledger
from shared.errors import UserError

HERE = Path(__file__).resolve().parent.parent
CLAIMS = load_ledger(HERE / "claims.yaml").claims


def with_outcome(tmp_path: Path, claim: str, verdict: str, mean: float) -> Path:
    """Results of the cpu tier in which only this claim was measured."""
    content = json.loads((HERE / "results" / "cpu" / "results.json").read_text())
    measured = {"mean": mean, "sd": 0.0, "n": 1, "values": [mean]}
    content["claims"] = {claim: {"verdict": verdict, "why": "by hand", "ours": {"ours": measured}}}
    (tmp_path / "results" / "cpu").mkdir(parents=True)
    (tmp_path / "results" / "cpu" / "results.json").write_text(json.dumps(content))
    return tmp_path


def test_the_rows_are_those_of_the_specification_and_every_one_has_a_claim_that_could_speak_for_it() -> None:
    assert [row.group for row in RECOMMENDATIONS] == ["i", "i", "i", "ii", "ii", "iii", "iii", "iv", "v"]
    for row in RECOMMENDATIONS:
        for prefix in row.claims:
            assert any(claim.id.startswith(prefix) for claim in CLAIMS), prefix


def test_without_results_every_row_was_not_run(tmp_path: Path) -> None:
    assert [evidence(row, CLAIMS, results_of(tmp_path)) for row in RECOMMENDATIONS] == [NOT_RUN] * 9


@pytest.mark.parametrize("verdict", ["trend reproduced", "not reproduced"])
def test_a_row_fills_in_when_a_claim_of_it_has_a_result(tmp_path: Path, verdict: str) -> None:
    found = results_of(with_outcome(tmp_path, "e9.filter", verdict, 6123.0))
    [big] = [row for row in RECOMMENDATIONS if row.group == "iv"]
    told = evidence(big, CLAIMS, found)
    assert told.startswith(f"E9 (cpu): 1 {verdict}; ")
    assert "6123" in told
    assert evidence(RECOMMENDATIONS[1], CLAIMS, found) == NOT_RUN


def test_a_verdict_of_not_run_is_no_evidence(tmp_path: Path) -> None:
    found = results_of(with_outcome(tmp_path, "e9.filter", "not run", 6123.0))
    assert [evidence(row, CLAIMS, found) for row in RECOMMENDATIONS] == [NOT_RUN] * 9


def test_a_table_is_of_the_tier_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for tier in ("quick", "cpu"):
        assert main(HERE, ["--table", "E1", "--tier", tier]) == 0
        assert f"({tier} tier)" in capsys.readouterr().out
    assert main(HERE, ["--table", "E2"]) == 0
    told = capsys.readouterr().out
    assert "E2. Median relative error of the chirp mass (cpu tier)" in told
    assert "loudest" in told
    with pytest.raises(UserError, match="E9: NOT RUN: the quick tier has not a table of it"):
        main(HERE, ["--table", "E9", "--tier", "quick"])


def test_the_command_prints_the_table_and_leaves_other_arguments_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(HERE, ["--tier", "quick"]) is None
    assert main(HERE, ["--coverage"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("E1 ", "E9 ", "E10 "))  # what the committed results measured


def test_a_line_says_its_headline_and_not_its_first_claim() -> None:
    assert set(HEADLINES) <= {claim.id for claim in CLAIMS}
    told = evidence(RECOMMENDATIONS[0], CLAIMS, results_of(HERE)).splitlines()
    assert "share found at SNR 8, one false alarm in 1,000 windows: 0." in told[0]
    assert "distance over the matched filter's" in told[3]
    for row in RECOMMENDATIONS:  # each experiment of a row has one of its own
        for experiment in {prefix.split(".")[0] for prefix in row.claims}:
            mine = [c.id for c in CLAIMS if c.id.startswith(row.claims) and c.id.split(".")[0] == experiment]
            assert set(mine) & set(HEADLINES), (row.says, experiment)


def test_nothing_is_cut_where_there_is_little_room() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(coverage(HERE))
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_tables_of_one_experiment() -> None:
    assert all(str(table.title).startswith("E1.") for table in tables(HERE, "E1"))
    with pytest.raises(UserError, match="--table E11: use one of E1, "):
        tables(HERE, "E11")


def test_an_experiment_without_a_table_was_not_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="E7: NOT RUN"):
        tables(tmp_path, "E7")
