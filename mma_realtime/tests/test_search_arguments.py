"""Numbers and files on the command lines: what cannot be meant ends in one line, before the work."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from mma_realtime.challenge import main as challenge
from mma_realtime.search.arguments import count, finite, new_file, seed
from mma_realtime.slides import main as slides
from mma_realtime.stream import main as stream


def test_numbers() -> None:
    assert (finite("-1e3"), count("7"), seed("0")) == (-1000.0, 7, 0)
    for read, text in ((finite, "nan"), (finite, "x"), (count, "0"), (count, "-5"), (count, "1.5"), (seed, "-1")):
        with pytest.raises(ArgumentTypeError, match=f"{text} is no "):
            read(text)


def test_a_file_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert new_file("new.json") == Path("new.json")
    assert new_file("deep/new/one.json") == Path("deep/new/one.json")
    assert new_file(str(tmp_path / "file")) == tmp_path / "file"
    for text, why in ((".", "is a folder"), (str(tmp_path), "is a folder"), ("file/x.json", "file is a file")):
        with pytest.raises(ArgumentTypeError, match=why):
            new_file(text)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ArgumentTypeError, match=r"x\.json: nothing may be written in .*: name another place"):
        new_file("x.json")


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (slides, ["x.npz", "--max-slides", "0"], "0 is no whole number from 1 on"),
        (slides, ["x.npz", "--json", "."], ". is a folder"),
        (stream, ["--replay", "x.npz", "--state", "."], ". is a folder"),
        (stream, ["--replay", "x.npz", "--json", "."], ". is a folder"),
        (challenge, ["--out", "set", "--seed", "-1"], "-1 is no whole number from 0 on"),
    ],
)
def test_commands_take_them(
    command: object, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command(words)  # type: ignore[operator]
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
