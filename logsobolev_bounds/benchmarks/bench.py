"""Every benchmark of this paper, one after another: tilted moments, quadratic rows, ghost norms, C of a prior.

    python logsobolev_bounds/benchmarks/bench.py        # or: make bench-logsobolev_bounds

Each writes a JSON file next to this one and says which targets it met; exit status 1 where one was missed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    missed = 0
    for name in ("bench_tilted", "bench_rows", "bench_ghost", "bench_prior"):
        print(f"{name}:", flush=True)
        missed |= subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=False).returncode
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
