"""The exact landscape on one core: every loss at n = 6, one of each family at n = 7, and K2's counts.

    python rpgan_landscape/benchmarks/bench_landscape.py

Wall time and peak memory of a process of its own for each row, import included in the memory and not in the time.
Writes `landscape.json` next to this file; exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

LOSSES = ("js", "ls", "hinge", "rs", "rp_hinge", "rp_ls", "allpairs_logistic", "allpairs_hinge", "allpairs_ls")
SECONDS_6, SECONDS_7, GIB_7 = 10.0, 60.0, 2.0  # all losses at n = 6; each row at n = 7


def row(what: str, n: int) -> dict[str, float]:
    """Seconds and peak GiB of one analysis, here."""
    import torch
    from rpgan_landscape.kernels.enumerate_states import enumerate_states
    from rpgan_landscape.landscape import analyse

    torch.set_num_threads(1)
    start = time.perf_counter()
    if what == "counts":
        enumerate_states(n, "cpu")
    else:
        analyse(what, n)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def elsewhere(what: str, n: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--row", what, str(n)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", nargs=2, metavar=("WHAT", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(row(args.row[0], int(args.row[1]))))
        return 0
    rows, missed = [], list[str]()
    for what, n in [*((loss, 6) for loss in LOSSES), *((w, 7) for w in ("js", "rs", "allpairs_logistic", "counts"))]:
        found = elsewhere(what, n)
        rows.append({"what": what, "n": n, **found})
        print(
            f"{what:18} n = {n}  {(n + 1) ** n:>9,} states  {found['seconds']:7.2f} s  {found['gib']:5.2f} GiB",
            flush=True,
        )
        if n == 7 and (found["seconds"] > SECONDS_7 or found["gib"] > GIB_7):
            missed.append(f"{what} at n = 7")
    total = sum(r["seconds"] for r in rows if r["n"] == 6)
    print(f"all losses at n = 6: {total:.1f} s, target {SECONDS_6:.0f} s")
    if total > SECONDS_6:
        missed.append("all losses at n = 6")
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "rows": rows,
        "seconds_all_losses_6": total,
    }
    Path(__file__).with_name("landscape.json").write_text(json.dumps(document, indent=1) + "\n")
    print("all targets met" if not missed else "missed: " + ", ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
