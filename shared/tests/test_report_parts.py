"""The parts of the report: figures inlined, the evidence file, how numbers and times are written."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from shared.errors import UserError
from shared.figures import COLOURS, GRID, INK
from shared.report import kernels, text
from shared.report.svg import inline
from test_report import EVIDENCE, draw


def test_inlined_figures_keep_their_references_apart(tmp_path: Path) -> None:
    draw(tmp_path / "a.svg")
    one, width = inline(tmp_path / "a.svg", "one", 'a "b" <c>')
    two, _ = inline(tmp_path / "a.svg", "two", "d")
    assert width == 672  # 7 inches of 96 pixels
    assert 'aria-label="a &quot;b&quot; &lt;c>"' in one
    ids = [set(re.findall(r'\bid="([^"]+)', part)) for part in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for part, own_ids in zip((one, two), ids):
        references = set(re.findall(r'href="#([^"]+)', part)) | set(re.findall(r"url\(#([^)]+)", part))
        assert references
        assert references <= own_ids
        assert "<style" not in part  # matplotlib's rule for `*` would restyle the page
        assert INK not in part
        assert GRID not in part
        assert COLOURS["ours"] in part
        assert "var(--ink)" in part


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("<script>1</script>", "holds <script>; a figure only draws"),
        ('<g onclick="x()"/>', "holds onclick=...; a figure only draws"),
        (
            '<image href="https://example.org/a.png"/>',
            "loads https://example.org/a.png; a figure must stand on its own",
        ),
        ("<g>", "not an SVG file"),
    ],
)
def test_inline_refuses_what_runs_or_loads(inside: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{inside}</svg>')
    with pytest.raises(UserError) as caught:
        inline(path, "x", "y")
    assert message in str(caught.value)
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g/></svg>')
    assert inline(path, "x", "y")[1] == 12
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>')
    with pytest.raises(UserError, match="has no viewBox"):
        inline(path, "x", "y")


def test_figures_are_the_same_bytes_with_text_as_text(tmp_path: Path) -> None:
    draw(tmp_path / "a.svg")
    draw(tmp_path / "b.svg")
    source = (tmp_path / "a.svg").read_text()
    assert source == (tmp_path / "b.svg").read_text()
    assert ">test error (%)</text>" in source
    assert ">paper</text>" in source
    assert "<dc:date>" not in source
    assert "font-family: system-ui" in source
    assert "DejaVu" not in source


def test_evidence_file_errors_and_escapes(tmp_path: Path) -> None:
    path = tmp_path / "gpu-evidence.md"
    assert kernels.read_evidence(path) == []
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match=r"no table with the columns kernel \| shapes"):
        kernels.read_evidence(path)
    path.write_text(EVIDENCE + "| a | b |\n")
    with pytest.raises(UserError, match=r"line 6: 2 cells, the table has 9 columns"):
        kernels.read_evidence(path)
    path.write_text(EVIDENCE + "|  | x | x | x | x | x | x | x | x |\n")
    with pytest.raises(UserError, match=r"line 6: the row names no kernel"):
        kernels.read_evidence(path)
    path.write_text(EVIDENCE + "\nWords.\n\n| another | table |\n|---|---|\n| 1 | 2 |\n")
    assert [row.kernel for row in kernels.read_evidence(path)] == ["alpha/scan"]
    assert kernels.cells(r"| a \| b | c |") == ["a | b", "c"]


@pytest.mark.parametrize(
    ("value", "places", "written"),
    [
        (2.25333, 3, "2.253"), (-0.5, 1, "−0.5"), (-0.0001, 2, "0.00"), (0.0, None, "0"),
        (12345.6, None, "1.235e+04"), (2.0, None, "2"),
    ],
)  # fmt: skip
def test_numbers(value: float, places: int | None, written: str) -> None:
    assert text.number(value, places) == written


@pytest.mark.parametrize(
    ("spread", "places"),
    [(0.055, 3), (0.12, 2), (1.5, 1), (12.0, 0), (340.0, 0), (0.0, None), (6.9e-5, 6), (1e-9, None)],
)
def test_decimals_show_two_digits_of_the_spread(spread: float, places: int | None) -> None:
    assert text.decimals(spread) == places


@pytest.mark.parametrize(
    ("seconds", "written"), [(3.4, "3 s"), (59.4, "59 s"), (71, "1 min"), (3600, "1 h 00 min"), (5400, "1 h 30 min")]
)
def test_durations(seconds: float, written: str) -> None:
    assert text.duration(seconds) == written


def test_the_terminal_shows_what_the_tier_tests_and_counts_the_rest() -> None:
    from rich.console import Console
    from shared.claims.results import ClaimOutcome, Results
    from shared.runs.terminal import verdict_table

    claims = {
        "a": ClaimOutcome(verdict="trend reproduced", why="it holds", ours={}),
        "b": ClaimOutcome(verdict="not run", why="the cpu tier does not test it", ours={}),
        "c": ClaimOutcome(verdict="not run", why="x failed: no data", ours={}),
    }
    results = Results.model_construct(paper="toy", tier="cpu", claims=claims)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(verdict_table(results))
    lines = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert [line[0] for line in lines] == ["toy,", "claim", "a", "c", "1"]
    assert lines[-1][1:] == ["more", "not", "run", "the", "cpu", "tier", "does", "not", "test", "it"]
