"""Numbers and files on the command lines of the search."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path


def finite(text: str) -> float:
    """Raises:
    argparse.ArgumentTypeError: not a number, or not a finite one: nothing is above nan, everything above -inf.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is no finite number")
    return value


def count(text: str) -> int:
    """Raises:
    argparse.ArgumentTypeError: no whole number from 1 on.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 on")
    return int(text)


def seed(text: str) -> int:
    """Raises:
    argparse.ArgumentTypeError: no whole number from 0 on.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 on")
    return int(text)


def new_file(text: str) -> Path:
    """A file that can be written, seen before the work that it is for.

    Raises:
        argparse.ArgumentTypeError: a folder, or in one that cannot be written.
    """
    path = Path(text)
    if not path.name or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {above} is a file: name another place")
    if not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: nothing may be written in {above}: name another place")
    return path
