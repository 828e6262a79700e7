"""Tables in a terminal and in a pipe: names of rows stay readable, and no column is squeezed."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table as RichTable
from shared.claims.results import Results, Table
from shared.runs.terminal import column_widths, parts, show, show_paper_tables

NAMES = ["tokens that look like their objects", "full attention"]
HEADS = ["model", "all", "spatial", "on", "left", "right", "above", "attention to reference (x uniform)"]
WIDE = Table(
    title="Right answers (%)",
    columns=HEADS,
    rows=[[name, *[f"{10 * row + column}.5 ± 0.4" for column in range(7)]] for row, name in enumerate(NAMES)],
    note="Chance is 16.7 %.",
)


def results(*tables: Table) -> Results:
    return Results.model_validate(
        {
            "paper": "p",
            "tier": "quick",
            "created": "2026-01-02T03:04:05+00:00",
            "commit": "c0ffee",
            "dirty": False,
            "machine": "m",
            "versions": {},
            "wall_seconds": 1,
            "experiments": {},
            "tables": list(tables),
        }
    )


def printed(table: Table, width: int, terminal: bool) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show_paper_tables(console, results(table))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_in_a_pipe_a_row_is_a_line() -> None:
    lines = printed(WIDE, 80, terminal=False)
    assert lines[0] == WIDE.title
    assert lines[1].split("  ")[-1] == HEADS[-1]
    assert [line.split("  ")[0] for line in lines[2:4]] == NAMES
    assert lines[2].split("  ")[-1].strip() == "6.5 ± 0.4"
    assert lines[4:] == [WIDE.note, ""]


def test_in_a_terminal_a_wide_table_is_printed_in_parts() -> None:
    lines = printed(WIDE, 80, terminal=True)
    assert max(map(len, lines)) <= 80
    assert sum(WIDE.title in line for line in lines) == sum(str(WIDE.note) in line for line in lines) == 1
    tops = [line for line in lines if line.startswith("tokens that look like their")]  # 27 characters, unbroken
    assert len(tops) == 2
    cells = [cell.strip() for line in tops for cell in line.split("  ") if "±" in cell]
    assert cells == WIDE.rows[0][1:]  # every column once, in order, no number broken
    assert sum(line.startswith("full attention") for line in lines) == 2


def test_a_table_that_fits_a_terminal_stays_whole() -> None:
    lines = printed(WIDE, 140, terminal=True)
    assert sum(line.startswith("tokens that look like their") for line in lines) == 1
    assert WIDE.note in lines


def test_a_terminal_narrower_than_any_column_loses_none() -> None:
    lines = "\n".join(printed(WIDE, 12, terminal=True))
    assert lines.count("full") == 7  # a part for each column beside the first
    assert len(parts(column_widths(WIDE), 12)) == 7


def test_other_tables_are_fitted_to_a_terminal_only() -> None:
    table = RichTable("claim", "why", box=None)
    table.add_row("c", "a long reason " * 10)
    for terminal, expected in ((True, False), (False, True)):
        console = Console(file=io.StringIO(), width=60, force_terminal=terminal, color_system=None)
        show(console, table)
        assert isinstance(console.file, io.StringIO)
        assert (("a long reason " * 10).strip() in console.file.getvalue()) is expected
