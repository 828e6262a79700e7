"""PHOC against the authors' bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from spatial_textvqa.phoc import BIGRAMS, SIZE, phoc

GOLDEN = Path(__file__).parent / "golden"


def test_every_bit_is_the_authors() -> None:
    words = json.loads((GOLDEN / "phoc_words.json").read_text())
    values = np.load(GOLDEN / "phoc.npz", allow_pickle=False)
    expected = np.unpackbits(values["packed"], axis=1)[:, :SIZE]
    ours = phoc(words).numpy()
    assert SIZE == 604
    assert np.array_equal(ours, expected)
    assert np.array_equal(ours.sum(1), values["sums"])


def test_the_bits_of_a_short_word() -> None:
    """`ab`: a in the left half, b in the right; on level 3 each has half or more of its width in one region only."""
    bits = set(phoc(["ab"])[0].nonzero()[:, 0].tolist())
    level = {2: {0 * 36 + 0, 1 * 36 + 1}, 3: {2 * 36 + 0, 4 * 36 + 1}}
    assert bits >= level[2] | level[3]
    assert not bits & {0 * 36 + 1, 1 * 36 + 0, 504, 554}
    assert phoc(["th"])[0, 504] == 1
    assert len(set(BIGRAMS)) == 50


@given(st.lists(st.text(max_size=12), max_size=5))
def test_a_word_does_not_depend_on_its_neighbours_nor_on_what_is_deleted(words: list[str]) -> None:
    together = phoc(words)
    assert together.shape == (len(words), 604)
    for row, word in zip(together, words):
        kept = "".join(c for c in word.lower() if c in "abcdefghijklmnopqrstuvwxyz0123456789")
        assert torch.equal(row, phoc([kept])[0])
        assert row.any() == bool(kept)
