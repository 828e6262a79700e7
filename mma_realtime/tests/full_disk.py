"""A search and its relay on a disk that runs full and is given space again: python full_disk.py DISK STRAIN COPY

DISK is a small file system with nothing on it. Both stages run as threads of this process on a store and a bus there;
once the first notice is out, a file takes all the space that is left, and is deleted when neither stage gets on. What
they left is copied to COPY; how far they came before, and what was said, is printed as JSON. By itself it is no test.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mma_realtime.bus.base import NOTICES
from mma_realtime.live import stages, system
from mma_realtime.live.system import Settings, prepare

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
STILL = 1.5  # s without anything new
SPEED = 10.0  # times real time: strain is left when the disk is full


def until(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def free(disk: Path) -> int:
    """Bytes."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(path: Path) -> None:
    """A file of all the space that is left on its disk."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def main(disk: Path, strain: Path, copy: Path) -> dict[str, Any]:
    model = inputs.template_model(threshold=2.0, time_offset=0.0)
    system.report.load_model = lambda path: model  # type: ignore[attr-defined]
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    made = prepare(disk / "state", Settings(replay=(str(strain),), speed=SPEED))
    stop, failed = threading.Event(), list[str]()

    def stage(name: str) -> None:
        try:
            stages.run(name, made, stop)
        except Exception as error:
            failed.append(repr(error))

    streaming, relaying = (threading.Thread(target=stage, args=(name,)) for name in ("stream", "relay"))
    (stretch,) = made.feed.stretches
    with made.store() as store, made.bus() as bus:

        def done() -> tuple[int, int]:
            """Samples searched, notices sent."""
            return (store.state(stretch.name) or (0,))[0], bus.end(NOTICES)

        last, since = done(), time.monotonic()

        def stuck() -> bool:
            nonlocal last, since
            if failed:
                return True
            if (now := done()) != last:
                last, since = now, time.monotonic()
            return time.monotonic() - since > STILL

        for thread in (streaming, relaying):
            thread.start()
        until(lambda: failed or bus.end(NOTICES))
        fill(disk / "ballast")
        until(stuck)
        left, at = free(disk), time.monotonic()
        (disk / "ballast").unlink()
        streaming.join(120)
        until(lambda: failed or not store.waiting(1))
        stop.set()
        relaying.join(120)
    shutil.copytree(disk / "state", copy)
    alive = [thread.name for thread in (streaming, relaying) if thread.is_alive()]
    return {"searched": last[0], "sent": last[1], "free": left, "said": said, "failed": failed, "alive": alive,
            "recovered_s": time.monotonic() - at}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:]))))
