"""`python -m rpgan_landscape.analyse --loss js --n 5`: the table of section 3 of the specification, by enumeration.

--loss js hinge rs allpairs     registered losses, one row each
--loss-fn my_module:my_h        a loss of one's own: a concave h, or an object with `family` and its functions
--json out.json                 everything found, histograms too (one object; a list for several losses)
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from shared.errors import one_line_errors
from shared.runs.store import write_atomic

from rpgan_landscape.landscape import Game, Landscape, LandscapeError, analyse
from rpgan_landscape.landscape.games import FUNCTIONS, TOLERANCE, resolve
from rpgan_landscape.landscape.values import xi_attained


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of a page of usage before it."""
        raise LandscapeError(message)


def load_function(name: str, family: str | None) -> Any:
    """The loss that `module:function` names; a bare function h is a game of `family` (with h1 = h2 = h if separable).

    Raises:
        LandscapeError: not of that form, the module or the name in it is missing or fails, or `family` contradicts it.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise LandscapeError(f"--loss-fn {name}: write module:function, as in my_module:my_h")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise LandscapeError(f"--loss-fn {name}: no module named {error.name!r} on the Python path") from None
    except AttributeError:
        raise LandscapeError(f"--loss-fn {name}: module {module} has no {attribute!r}") from None
    except Exception as error:
        text = " ".join(str(error).split())
        raise LandscapeError(f"--loss-fn {name}: importing it failed with {type(error).__name__}: {text}") from error
    if hasattr(found, "family"):
        if family not in (None, found.family):
            raise LandscapeError(
                f"--family {family}: {name} says of itself that it is {found.family}; leave --family out"
            )
        return dataclasses.replace(resolve(found), name=name)
    own = family or "rp"
    return resolve(Game(own, **dict.fromkeys(FUNCTIONS[own], found), name=name))  # type: ignore[arg-type]


def reading(loss: Any, found: Landscape) -> str:
    """What the counts say, with the reason, in one sentence."""
    game = resolve(loss)
    if game.family == "rp":
        ends = "every state has" if not found.unreach_all else f"{found.unreach_all:,} states lack"
        return f"pairs fixed once: {ends} a path to the global minimum on which g never rises"
    if game.family == "allpairs":
        fixed = analyse(Game("rp", h=game.h, sup_h=game.sup_h), found.n)
        return (
            f"what a pairing redrawn at random minimises in expectation: {found.strict_bad:,} bad strict minima; "
            f"the same h with pairs fixed once has {fixed.strict_bad:,}"
        )
    xi = [xi_attained(game, m)[0] for m in range(found.n + 1)]
    ties = [m for m in range(1, found.n + 1) if xi[m] >= xi[m - 1] + game.sup_h2 - 2 * found.n * TOLERANCE]
    if ties:
        return (
            f"strict minima need xi(m) < xi(m - 1) + sup h2 for every m >= 1, "
            f"which fails at m = {ties[0]}: a fake that leaves a crowd of {ties[0]} costs nothing"
        )
    return "xi(m) < xi(m - 1) + sup h2 for every m >= 1: leaving a real point always costs, so every collapse is strict"


def counts(found: Sequence[Landscape]) -> Table:
    """The table of section 3, a row for each loss."""
    table = Table(box=None, pad_edge=False)
    table.add_column("loss")
    for name in ("strict minima", "of them bad", "not reachable", "of them fully on data", "global minimum"):
        table.add_column(name, justify="right")
    for it in found:
        numbers = (it.strict, it.strict_bad, it.unreach_all, it.unreach_full)
        table.add_row(it.loss, *(f"{number:,}" for number in numbers), f"{it.global_minimum:.6f}")
    return table


def barriers(found: Sequence[Landscape]) -> Table:
    """The rise of g between a state and a global minimum, a row for each occupancy of the real points."""
    table = Table(box=None, pad_edge=False)
    table.add_column("occupancy")
    for it in found:
        table.add_column(it.loss, justify="right")
    for key in found[0].escape_barrier_by_occupancy:
        rises = (it.escape_barrier_by_occupancy[key] for it in found)
        table.add_row(key, *(" / ".join(f"{rise:.6f}" for rise in each) for each in rises))
    return table


def main(argv: list[str] | None = None) -> int:
    """The command; 2 for input that is wrong, with one line that says how to mend it."""
    parser = _Parser(prog="python -m rpgan_landscape.analyse", description="The exact landscape of a GAN loss.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--loss", nargs="+", metavar="NAME", help="registered losses")
    which.add_argument("--loss-fn", metavar="MODULE:NAME", help="a concave h of your own, or an object with `family`")
    parser.add_argument("--family", choices=list(FUNCTIONS), help="of a bare function (default: rp)")
    parser.add_argument("--n", type=int, required=True, help="real points, and fakes: 1 to 8")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything found")
    with one_line_errors():
        options = parser.parse_args(argv)
        if options.family and not options.loss_fn:
            raise LandscapeError("--family belongs to --loss-fn: a registered loss has its own")
        if options.json is not None and (options.json.is_dir() or not options.json.absolute().parent.is_dir()):
            raise LandscapeError(f"--json {options.json}: name a file in a folder that exists")
        losses = [load_function(options.loss_fn, options.family)] if options.loss_fn else options.loss
        games = [resolve(loss) for loss in losses]
        found = [analyse(game, options.n) for game in games]
        if options.json is not None:
            written = [dataclasses.asdict(it) for it in found]
            try:
                write_atomic(options.json, json.dumps(written[0] if len(written) == 1 else written, indent=1) + "\n")
            except PermissionError as error:
                raise LandscapeError(f"--json {options.json}: {error.strerror}; choose another place") from None
        console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
        console.print(
            f"n = {options.n}: {found[0].states:,} states, {options.n**options.n:,} with every fake on the data\n"
        )
        console.print(counts(found))
        console.print("\nescape barrier: the rise of g on the lowest path to a global minimum")
        console.print(barriers(found))
        console.print()
        for game, it in zip(games, found):
            console.print(f"{it.loss}: {reading(game, it)}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
