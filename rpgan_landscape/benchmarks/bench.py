"""Every benchmark of this paper, one after another: populations, the exact landscape, the all-pairs loss.

    python rpgan_landscape/benchmarks/bench.py        # or: make bench-rpgan_landscape

Each writes a JSON file next to this one and says which targets it met; exit status 1 where one was missed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    missed = 0
    for name in ("bench_population", "bench_landscape", "bench_allpairs"):
        print(f"{name}:", flush=True)
        missed |= subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=False).returncode
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
