"""Every benchmark of this paper, one after another.

    python mma_realtime/benchmarks/bench.py        # or: make bench-mma_realtime

Each writes a JSON file next to this one and says which targets it met; exit status 1 where one was missed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    missed = 0
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"{path.stem}:", flush=True)
        missed |= subprocess.run([sys.executable, str(path)], check=False).returncode
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
