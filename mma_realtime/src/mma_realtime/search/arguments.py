"""Numbers on the command lines of the search."""

from __future__ import annotations

import argparse
import math


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
