"""What `reproduce.py` prints: the plan, the paper's own tables, and the verdict on every claim.

Into a file or a pipe every table is as wide as it wants to be, one line a row. In a terminal a paper's table that is
too wide is printed in parts, some columns each, and every part begins with the names of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from shared.claims.results import Results
    from shared.claims.results import Table as PaperTable

MARKS = {"reproduced": "green", "trend reproduced": "cyan", "not reproduced": "red", "not run": "bright_black"}
WORDS = 28  # characters: a cell longer than this may be broken between words
HEAD = 14  # characters: a head longer than this may be
GAP = 2  # blanks between two columns


def show(console: Console, table: Table) -> None:
    """Print a table: fitted to a terminal, at its natural width anywhere else."""
    if not console.is_terminal:
        natural = table.__rich_measure__(console, console.options.update(width=10_000)).maximum
        console = Console(file=console.file, width=max(natural, console.width), no_color=console.no_color)
    console.print(table)


def show_paper_tables(console: Console, results: Results) -> None:
    for each in results.tables:
        widths = column_widths(each) if console.is_terminal else {}
        groups = parts(widths, console.width) if widths else [list(range(len(each.columns)))]
        for group in groups:
            show(console, rich_table(each, group, widths, first=group is groups[0], last=group is groups[-1]))
            console.print()


def column_widths(table: PaperTable) -> dict[int, int]:
    """Characters that each column wants: long cells and heads are broken, but only between words."""
    out = {}
    for number, column in enumerate(table.columns):
        cells = [row[number] for row in table.rows]
        longest = max(len(word) for text in (column, *cells) for word in [*text.split(), ""])
        out[number] = max(longest, min(HEAD, len(column)), min(WORDS, max(len(cell) for cell in cells)))
    return out


def parts(widths: Mapping[int, int], room: int) -> list[list[int]]:
    """The columns of each part: the first, and then as many as fit into `room` characters (one at the least)."""
    first, *others = widths
    out: list[list[int]] = []
    left = 0
    for column in others:
        if not out or widths[column] + GAP > left:
            out.append([first])
            left = room - widths[first]
        out[-1].append(column)
        left -= widths[column] + GAP
    return out


def rich_table(table: PaperTable, columns: list[int], widths: Mapping[int, int], first: bool, last: bool) -> Table:
    """Some columns of a paper's table, with the title on the first part and the note under the last."""
    out = Table(
        title=table.title if first else None,
        caption=table.note if last else None,
        title_justify="left",
        caption_justify="left",
        box=None,
        padding=(0, GAP, 0, 0),
        pad_edge=False,
    )
    for number in columns:
        out.add_column(
            table.columns[number],
            overflow="fold",
            justify="right" if number else "left",
            width=widths.get(number),
        )
    for row in table.rows:
        out.add_row(*(row[number] for number in columns))
    return out


def verdict_table(results: Results) -> Table:
    table = Table(title=f"{results.paper}, tier {results.tier}", title_justify="left", box=None, pad_edge=False)
    for column in ("claim", "verdict", "why"):
        table.add_column(column, overflow="fold")
    untested = f"the {results.tier} tier does not test it"
    shown = {name: outcome for name, outcome in results.claims.items() if outcome.why != untested}
    for name, outcome in shown.items():
        colour = MARKS.get(outcome.verdict, "")
        table.add_row(name, f"[{colour}]{outcome.verdict}[/]" if colour else outcome.verdict, outcome.why)
    if others := len(results.claims) - len(shown):
        table.add_row(f"{others} more", "not run", untested)
    return table


def plan_table(rows: list[tuple[str, int, int, str]]) -> Table:
    """Of every experiment: its name, how many seeds, how many of them are to run, and its data."""
    table = Table(box=None, pad_edge=False)
    for column in ("experiment", "seeds", "to run", "data"):
        table.add_column(column, overflow="fold")
    for name, seeds, to_run, data in rows:
        table.add_row(name, str(seeds), str(to_run), data)
    return table


def estimates_table(found: Mapping[str, Mapping[str, float]]) -> Table | None:
    """What the runs of a dry run said of the whole: metrics named `plan/...`; None where there are none."""
    columns = sorted({name for metrics in found.values() for name in metrics if name.startswith("plan/")}, reverse=True)
    if not columns:
        return None
    table = Table(box=None, pad_edge=False)
    for column in ("experiment", *(name.removeprefix("plan/") for name in columns)):
        table.add_column(column, overflow="fold", justify="left" if column == "experiment" else "right")
    for experiment, metrics in found.items():
        cells = [
            f"{metrics[name]:,.{0 if metrics[name] >= 100 else 2}f}" if name in metrics else "–" for name in columns
        ]
        table.add_row(experiment, *cells)
    return table
