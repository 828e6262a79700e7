"""The committed corpus of the fuzzer through every reader: whole inputs are read, damaged ones refused as declared."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mma_fuzz", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load()
TARGETS = fuzz.targets()


def test_every_reader_has_a_corpus_and_every_corpus_a_reader() -> None:
    assert {path.name for path in fuzz.CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_whole_inputs_are_read(name: str) -> None:
    for content in fuzz.seeds()[name]:
        assert fuzz.feed(TARGETS[name], content), name
    assert any(fuzz.feed(TARGETS[name], path.read_bytes()) for path in (fuzz.CORPUS / name).iterdir())


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_corpus_ends_in_no_other_error_than_the_declared(name: str) -> None:
    """Also cut and flipped: what a reader trusts, a damaged length or sign breaks."""
    for path in sorted((fuzz.CORPUS / name).iterdir()):
        content = path.read_bytes()
        fuzz.feed(TARGETS[name], content)
        for part in (3, 2):
            fuzz.feed(TARGETS[name], content[: len(content) // part])
            at = len(content) // part
            fuzz.feed(TARGETS[name], content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :] if content else b"")


def test_a_reader_that_raises_something_else_is_caught() -> None:
    target = fuzz.Target(lambda content: {}[content], (ValueError,))
    with pytest.raises(KeyError):
        fuzz.feed(target, b"x")
    assert not fuzz.feed(fuzz.Target(lambda content: int(content), (ValueError,)), b"x")
