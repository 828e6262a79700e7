"""Run the experiments that the claims need: `python reproduce.py --tier quick`; see `--help`.

`--coverage` prints what the papers recommend and what was measured for it, `--table E1` the tables of one experiment.
"""

from __future__ import annotations

import sys
from pathlib import Path

from shared.errors import one_line_errors
from shared.runs.reproduce import main

if __name__ == "__main__":
    with one_line_errors():
        root = Path(__file__).resolve().parent
        if any(word.split("=")[0] in ("--coverage", "--table") for word in sys.argv[1:]):
            from mma_realtime.coverage import main as show

            sys.exit(show(root, sys.argv[1:]))
        status = main("mma_realtime", root, sys.argv[1:])
        from mma_realtime.publish import publish  # late: `main` says what to do where the package is not installed

        if publish(root, "cpu"):  # E9 and E10 searched with another one: again, all else is in the store
            status = main("mma_realtime", root, sys.argv[1:])
        sys.exit(status)
