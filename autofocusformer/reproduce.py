"""Run the experiments that the claims need: `python reproduce.py --tier quick`; see `--help`."""

from __future__ import annotations

import sys
from pathlib import Path

from shared.errors import one_line_errors
from shared.runs.reproduce import main

if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main("autofocusformer", Path(__file__).resolve().parent, sys.argv[1:]))
