"""`live --processes` under random kills: python benchmarks/kill_live.py --kills 20 --duration 600 --speed 4

Simulated strain with injections is replayed twice through the whole system: once left alone, once while processes of
its stages get SIGKILL at random. What is told must be the same: no superevent lost or doubled, versions 1, 2, ... each
once and in order, the first and the last as without kills. Prints JSON; ends with 1 where that
is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import NOTICES
from mma_realtime.bus.log import SqliteLog
from mma_realtime.data.challenge import generate
from mma_realtime.data.strain import write_npz
from mma_realtime.errors import BusError
from mma_realtime.evaluation.recovery import LOUDER
from mma_realtime.status.beats import STAGES, Beat

Told = dict[str, list[dict[str, Any]]]  # by superevent: its notices in the order of the bus, each version once
STUCK = 1200.0  # s, of one run
TRIES = 5


def started(folder: Path, strain: Path, *words: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "mma_realtime.live",
        "--replay",
        str(strain),
        "--state",
        str(folder),
        "--port",
        "0",
    ]
    return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen[str], seconds: float = STUCK) -> None:
    """Waits for a system's end; one that does not end is told to, and what it said last is shown."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            said, _ = process.communicate(timeout=60.0)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        raise SystemExit(f"the system did not end within {seconds:g} s: {said.strip().splitlines()[-1:]}") from None
    if process.returncode:
        raise SystemExit(f"the system failed by itself: {said.strip().splitlines()[-1:]}")


def mapped(folder: Path, strain: Path) -> None:
    """Starts the system again until all that can have a map has one: a run makes as many as it has time for.

    On a busy machine its strain may be over before the localiser has begun: only after `TRIES` such runs the rest is
    taken to have no map.
    """
    left, idle = None, 0
    while True:
        with Store(folder / "store.sqlite") as store:
            now = len(store.unlocated())
        idle = idle + 1 if now == left else 0
        if not now or idle == TRIES:
            return
        print(f"{folder.name}: {now} maps are left to make", file=sys.stderr, flush=True)
        left = now
        finished(started(folder, strain, "--speed", "0"))


def running(folder: Path) -> dict[str, int]:
    """Process of each stage whose last beat says that it works."""
    last: dict[str, Beat] = {}
    with contextlib.suppress(BusError), SqliteLog(folder / "bus.sqlite") as bus:
        bus.seek("killer", STAGES, max(bus.first(STAGES), bus.end(STAGES) - 200))
        last = {
            beat.stage: beat for record in bus.fetch(STAGES, "killer", 1000) for beat in [Beat.from_bytes(record.value)]
        }
    return {stage: beat.pid for stage, beat in last.items() if beat.state in ("running", "waiting")}


def told(folder: Path) -> tuple[Told, int]:
    """What a subscriber hears that drops what it knows, and how many it dropped."""
    out: Told = {}
    seen: Counter[tuple[str, str]] = Counter()
    with SqliteLog(folder / "bus.sqlite") as bus:
        while records := bus.fetch(NOTICES, "subscriber", 1000):
            for record in records:
                key = record.headers["superevent_id"], record.headers["version"]
                seen[key] += 1
                if seen[key] == 1:
                    notice = json.loads(record.value)
                    out.setdefault(key[0], []).append(notice["event"] | {"version": int(key[1])})
    return out, sum(seen.values()) - len(seen)


def measure(folder: Path, seed: int, duration: int, kills: int, speed: float, pause: float = 4.0) -> dict[str, Any]:
    """Args:
        folder: empty. seed: of strain and kills. duration: s of strain. speed: times real time.
        kills: at most so many; pause: s between two, on average.

    Returns:
        `kills` by stage, `superevents`, `notices`, `lost`, `doubled`, `unlike` (superevents whose first or last notice
        differs), `gaps` (of versions), `duplicates` that the subscriber dropped, `wall` (s).
    """
    made = generate(duration, seed)
    signals = made.foreground.values - made.background.values
    write_npz(replace(made.foreground, values=made.background.values + LOUDER * signals), folder / "strain.npz")
    alone, killed = folder / "alone", folder / "killed"
    print(f"{duration} s of strain, left alone", file=sys.stderr, flush=True)
    finished(started(alone, folder / "strain.npz", "--speed", "0"))
    rng, done, begin = random.Random(seed), Counter[str](), time.monotonic()
    process = started(killed, folder / "strain.npz", "--processes", "--speed", str(speed))
    gone: set[int] = set()
    while process.poll() is None and done.total() < kills:
        time.sleep(rng.uniform(0.0, 2 * pause))
        left = {stage: pid for stage, pid in running(killed).items() if pid not in gone}
        if left and process.poll() is None:
            stage = rng.choice(sorted(left))
            with contextlib.suppress(ProcessLookupError):
                os.kill(left[stage], signal.SIGKILL)
                done[stage] += 1
                print(f"killed: {stage} ({done.total()} of {kills})", file=sys.stderr, flush=True)
            gone.add(left[stage])
    finished(process)
    for state in (alone, killed):
        mapped(state, folder / "strain.npz")
    (before, _), (after, duplicates) = told(alone), told(killed)

    def ends(notices: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The first and the last without their numbers and maps: how many lie between depends on the clock."""
        return [{k: v for k, v in n.items() if k not in ("version", "skymap")} for n in (notices[0], notices[-1])]

    return {
        "kills": dict(done),
        "superevents": len(before),
        "notices": sum(map(len, after.values())),
        "lost": sorted(before.keys() - after.keys()),
        "doubled": sorted(after.keys() - before.keys()),
        "unlike": [id for id in before.keys() & after.keys() if ends(before[id]) != ends(after[id])],
        "without_map": [id for id, notices in after.items() if not notices[-1]["skymap"]],
        "gaps": [
            id for id, notices in after.items() if [n["version"] for n in notices] != list(range(1, len(notices) + 1))
        ],
        "duplicates": duplicates,
        "wall": time.monotonic() - begin,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--duration", type=int, default=600, help="s of strain")
    parser.add_argument("--speed", type=float, default=4.0, help="times real time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mma_realtime_") as folder:
        found = measure(Path(folder), args.seed, args.duration, args.kills, args.speed)
    print(json.dumps(found, indent=1))
    return int(any(found[name] for name in ("lost", "doubled", "unlike", "gaps")))


if __name__ == "__main__":
    sys.exit(main())
