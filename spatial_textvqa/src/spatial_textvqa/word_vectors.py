"""Vectors of OCR tokens: fastText's, from a user's file, or hashed n-grams that need no file (section 7.4).

A word's vector is the mean over its character n-grams, so that misread and unknown words have one too. A token with
blanks has the mean over its parts; an empty one has zeros.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from shared.errors import UserError
from torch import Tensor

log = logging.getLogger(__name__)

MAGIC, VERSION = 793712314, 12
OFFSET, PRIME = 2166136261, 16777619  # FNV-1a, 32 bits
BUCKETS, MIN_N, MAX_N = 1 << 16, 3, 6


def fnv(gram: bytes) -> int:
    """FNV-1a as fastText has it: bytes are taken as signed, so that those above 127 are extended with ones."""
    value = OFFSET
    for byte in gram:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * PRIME) & 0xFFFFFFFF
    return value


def grams(word: str, min_n: int = MIN_N, max_n: int = MAX_N) -> list[str]:
    """Character n-grams of `<word>`."""
    marked = f"<{word}>" if word else ""
    return [marked[i : i + n] for i in range(len(marked)) for n in range(min_n, max_n + 1) if i + n <= len(marked)]


def uniform(counters: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Numbers in [-1, 1) by their counters (splitmix64): the same in every version of every library."""
    with np.errstate(over="ignore"):
        z = counters * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23)) - np.float32(1)


class Vectors:
    """Tokens to their vectors, each word's kept."""

    def __init__(self, dim: int) -> None:
        self.dim, self.known = dim, dict[str, NDArray[np.float32]]()

    def of(self, word: str) -> NDArray[np.float32]:
        """Vector of a word without blanks that is not yet known."""
        raise NotImplementedError

    def token(self, token: str) -> NDArray[np.float32]:
        parts = token.split()
        for part in parts:
            if part not in self.known:
                self.known[part] = self.of(part)
        if len(parts) == 1:
            return self.known[parts[0]]
        return np.mean([self.known[part] for part in parts], 0) if parts else np.zeros(self.dim, np.float32)

    def __call__(self, tokens: Sequence[str]) -> Float32[Tensor, "token dim"]:
        rows = [self.token(token) for token in tokens]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, self.dim)


class HashVectors(Vectors):
    """Mean over the n-grams 3..6 of "<word>" of fixed pseudo-random vectors, one for each of 2^16 hash buckets.

    Words that share n-grams are near each other; nothing else is meant by them.
    """

    def __init__(self, dim: int = 300) -> None:
        super().__init__(dim)

    def of(self, word: str) -> NDArray[np.float32]:
        buckets = np.array([fnv(gram.encode()) % BUCKETS for gram in grams(word)], np.uint64)
        counters = buckets[:, None] * np.uint64(self.dim) + np.arange(self.dim, dtype=np.uint64)
        return uniform(counters.astype(np.uint64)).mean(0)


class Header(NamedTuple):
    """What a fastText file says of itself: length of a vector, rows of the matrix, words, shortest and longest gram."""

    dim: int
    rows: int
    words: int
    min_n: int
    max_n: int


class FastText(Vectors):
    """Vectors from a fastText `.bin` file, read by gensim when the first word is asked for that the cache has not.

    Args:
        path: the model file.
        cache: an `.npz` file that keeps the vectors of the words in use, by `save`; made where there is none. With it
            the next run does not need the matrix, which takes several GB of memory for the public files.

    Raises:
        UserError: no such file; not a fastText file of version 12, damaged, or quantised; gensim is not installed.
    """

    def __init__(self, path: str | Path, cache: str | Path | None = None) -> None:
        self.path, self.cache = Path(path), None if cache is None else Path(cache)
        self.header, digest = read_header(self.path)
        super().__init__(self.header.dim)
        about = self.path.stat()  # header and dictionary stay the same when a model is trained on
        self.source = f"{digest}-{about.st_size}-{about.st_mtime_ns}"
        self.model: Any = None
        if self.cache is not None and self.cache.exists():
            self.known |= self.cached(self.cache)

    @property
    def memory(self) -> int:
        """Bytes that the matrix takes."""
        return 4 * self.header.rows * self.header.dim

    def cached(self, path: Path) -> dict[str, NDArray[np.float32]]:
        try:
            with np.load(path, allow_pickle=False) as file:
                source, words, vectors = str(file["source"]), file["words"], file["vectors"]
        except Exception as error:  # a damaged archive fails in many ways
            raise UserError(f"{path} is no cache of word vectors ({type(error).__name__}): delete it") from None
        if source != self.source or vectors.shape[1:] != (self.dim,):
            raise UserError(
                f"{path} holds the vectors of another file than {self.path} is now: delete it, or name another"
            )
        return dict(zip(words.tolist(), vectors))

    def of(self, word: str) -> NDArray[np.float32]:
        if self.model is None:
            self.model = self.load()
        if word not in self.model.key_to_index and not self.model.bucket:  # a model without subwords
            return np.zeros(self.dim, np.float32)
        return np.asarray(self.model.get_vector(word), np.float32)

    def load(self) -> Any:
        try:
            from gensim.models.fasttext import load_facebook_vectors
        except ModuleNotFoundError:
            extra = "`pip install papers-spatial-textvqa[fasttext]`"
            raise UserError(f"fastText files are read by gensim: {extra}, or use the hashed vectors") from None
        log.info("%s: the matrix takes %.1f GB of memory", self.path, self.memory / 1e9)
        try:
            return load_facebook_vectors(str(self.path))
        except MemoryError:
            need = f"{self.memory / 1e9:.1f} GB"
            raise UserError(f"{self.path} needs {need} of memory: fill a cache on a larger machine") from None

    def save(self) -> None:
        """Keep the vectors of all words asked for so far in the cache, and let the matrix go."""
        if self.cache is None:
            raise UserError("no cache to save the word vectors in: name one")
        if self.model is None:  # nothing was asked for that the cache has not
            return
        words = sorted(self.known)
        part = self.cache.with_name(self.cache.name + ".part")
        try:
            with part.open("wb") as file:
                vectors = np.stack([self.known[word] for word in words])
                np.savez_compressed(file, source=self.source, words=np.array(words, dtype=np.str_), vectors=vectors)
            part.replace(self.cache)
        except OSError as error:
            log.warning("%s: the vectors of the words in use are not kept (%s)", self.cache, error.strerror)
        self.model = None


def read_header(path: Path) -> tuple[Header, str]:
    """The header, and a digest of it and of the dictionary. Reads everything up to the matrix.

    Raises:
        UserError: no such file; another format; cut off; quantised.
    """
    if not path.is_file():
        raise UserError(f"no fastText file at {path}: give the .bin file (the .vec text has no n-grams)")
    with path.open("rb") as file:
        try:
            return parse_header(file, path)
        except (struct.error, EOFError):
            raise UserError(f"{path} is cut off at byte {file.tell()}: get the file again") from None


def parse_header(file: BinaryIO, path: Path) -> tuple[Header, str]:
    """Little endian: magic, version; 12 numbers and t; the dictionary; pruned buckets; whether quantised; the shape."""
    digest = hashlib.sha256()

    def read(layout: str) -> tuple[Any, ...]:
        data = file.read(struct.calcsize(layout))
        digest.update(data)
        return struct.unpack(layout, data)

    magic, version = read("<2i")
    if magic != MAGIC:
        raise UserError(f"{path} is no fastText model (its first number is {magic}, not {MAGIC}): give the .bin file")
    if version != VERSION:
        raise UserError(f"{path} is of fastText's version {version}: version {VERSION} is read")
    numbers = read("<12i")
    read("<d")
    size, words, _labels = read("<3i")
    _tokens, pruned = read("<2q")
    for _ in range(size):
        skip_text(file, digest)
        read("<qb")
    for _ in range(max(pruned, 0)):
        read("<2i")
    if read("<b")[0]:
        raise UserError(f"{path} is quantised: give the full model, of which it was made")
    rows, dim = read("<2q")
    if dim != numbers[0] or rows < words or path.stat().st_size < file.tell() + 4 * rows * dim:
        raise UserError(f"{path} is damaged or cut off: a matrix of {rows} x {dim} does not fit, get the file again")
    return Header(dim, rows, words, numbers[9], numbers[10]), digest.hexdigest()[:16]


def skip_text(file: BinaryIO, digest: Any) -> None:
    """A word of the dictionary, up to its zero byte."""
    while byte := file.read(1):
        digest.update(byte)
        if byte == b"\0":
            return
    raise EOFError
