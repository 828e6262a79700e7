"""Pyramidal histogram of characters: 604 bits that say which character stands where in a word (section 4.2).

Levels 2, 3, 4, 5 cut the word into as many regions; a region has a character where at least half of the character's
width lies in it. 14 regions x 36 characters, then 2 regions (level 2) x the 50 most frequent pairs of letters.
The arithmetic is IEEE float32 in the published order: ties, as with three letters on two regions, hang on its rounding.
A table of region bits for each length and a scatter; no kernel pays here, the words come from the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

ALPHABET = b"abcdefghijklmnopqrstuvwxyz0123456789"
LEVELS = (2, 3, 4, 5)
PAIRS = (
    "th he in er an re es on st nt en at ed nd to or ea ti ar te ng al it as is ha et se ou of "
    "le sa ve ro ra ri hi ne me de co ta ec si ll so na li la el"
)
BIGRAMS = [PAIRS[i : i + 2] for i in range(0, len(PAIRS), 3)]
REGIONS = sum(LEVELS)
UNIGRAM_SLOTS = REGIONS * len(ALPHABET)
SIZE = UNIGRAM_SLOTS + LEVELS[0] * len(BIGRAMS)

OTHERS = bytes(sorted(set(range(256)) - set(ALPHABET)))
INDEX = np.full(256, -1)
INDEX[list(ALPHABET)] = np.arange(len(ALPHABET))
PAIR = np.full((len(ALPHABET), len(ALPHABET)), -1)
for number, pair in enumerate(BIGRAMS):
    PAIR[tuple(INDEX[[ord(letter) for letter in pair]])] = number


def occupied(n: int, width: int, levels: Sequence[int]) -> NDArray[np.bool_]:
    """For the windows [k/n, (k + width)/n] of a word of n characters: in which regions at least half of each lies."""
    one = np.float32(1)
    k = np.arange(n - width + 1, dtype=np.float32)[:, None]
    start, stop = k / np.float32(n), (k + np.float32(width)) / np.float32(n)
    region = np.concatenate([np.arange(level, dtype=np.float32) for level in levels])
    level = np.concatenate([np.full(level, level, dtype=np.float32) for level in levels])
    left, right = region / level, (region + one) / level
    overlap = np.minimum(stop, right) - np.maximum(start, left)
    return overlap / (stop - start) >= np.float32(0.5)


@lru_cache(maxsize=512)
def tables(n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Region bits of the characters, and of the pairs: one row for each character, the last pair's is empty."""
    pairs = np.zeros((n, LEVELS[0]), dtype=bool)
    pairs[: n - 1] = occupied(n, 2, LEVELS[:1]) if n > 1 else False
    return occupied(n, 1, LEVELS), pairs


def phoc(words: Sequence[str]) -> Float32[Tensor, "word 604"]:
    """One row of 0 and 1 for each word; characters outside [a-z0-9] are deleted first, an empty word is all zeros."""
    clean = [word.lower().encode("ascii", "ignore").translate(None, OTHERS) for word in words]
    out = np.zeros((len(words), SIZE), dtype=np.float32)
    lengths = np.array([len(word) for word in clean], dtype=np.int64)
    if not lengths.sum():
        return torch.from_numpy(out)
    bits, pair_bits = (np.concatenate(part) for part in zip(*(tables(len(word)) for word in clean if word)))
    character = INDEX[np.frombuffer(b"".join(clean), dtype=np.uint8)]
    word = np.repeat(np.arange(len(words)), lengths)

    at, region = bits.nonzero()
    out[word[at], region * len(ALPHABET) + character[at]] = 1
    at, region = pair_bits.nonzero()
    pair = PAIR[character[at], character[at + 1]]
    known = pair >= 0
    out[word[at[known]], UNIGRAM_SLOTS + region[known] * len(BIGRAMS) + pair[known]] = 1
    return torch.from_numpy(out)
