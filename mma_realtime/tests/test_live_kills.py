"""Random kills of the whole system's processes, few and small; `benchmarks/kill_live.py` is for twenty.

The strain has one signal, half-way: every superevent more is a sky map more, on both sides and after every kill.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "kill_live", Path(__file__).parents[1] / "benchmarks" / "kill_live.py"
)  # fmt: skip
assert spec is not None
assert spec.loader is not None
kill_live = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kill_live)


@pytest.mark.slow
def test_killed_stages_tell_what_undisturbed_ones_tell(tmp_path: Path) -> None:
    found = kill_live.measure(tmp_path, seed=0, duration=70, kills=4, speed=4.0, pause=1.5)
    assert sum(found["kills"].values()) >= 2
    assert found["superevents"] >= 1
    assert (found["lost"], found["doubled"], found["unlike"], found["gaps"]) == ([], [], [], [])


def test_a_system_that_does_not_end_is_ended_and_its_last_words_are_shown() -> None:
    code = "import time; print('stuck here', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with pytest.raises(SystemExit, match=r"did not end within 1 s: \['stuck here'\]"):
        kill_live.finished(process, 1.0)
    assert process.returncode is not None
