"""The README's example, run as it stands."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_example_is_short_and_runs() -> None:
    code = example()
    assert sum(1 for line in code.splitlines() if line.strip()) <= 20
    said = io.StringIO()
    names: dict[str, object] = {"__name__": "example"}
    with contextlib.redirect_stdout(said):
        exec(compile(code, str(README), "exec"), names)
    assert said.getvalue() == "torch.Size([2, 11, 90, 130]) [256, 64, 16, 4]\n"
    assert all(parameter.grad is not None for parameter in names["model"].head.parameters())  # type: ignore[attr-defined]


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README.read_text(encoding="utf-8")
