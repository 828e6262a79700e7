"""The README's example, run as it stands: a plain GAN loop with two lines more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return code


def gap_of(code: str) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (gap,) = re.findall(r"gap of the gradient norms: ([0-9.]+)\n", done.stdout)
    return float(gap)


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_is_short_and_its_penalty_acts() -> None:
    code = example()
    assert len(code.splitlines()) <= 60
    with_it = gap_of(code)
    without = gap_of(code.replace("loss = loss + reg(", "loss = loss + 0 * reg("))
    assert with_it < 0.5 * without
