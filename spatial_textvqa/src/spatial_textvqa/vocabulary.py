"""The fixed vocabulary of answers, and what a decoded sequence says (section 4.4).

Index space of an answer: 0..V-1 are fixed words, V+k is OCR token k of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from shared.errors import UserError

PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = (PAD, START, END, UNKNOWN)
Part = tuple[str, Literal["OCR", "VOCAB"], int]  # word, where it came from, OCR token or vocabulary index


class Vocabulary:
    """The classifier's rows, in order.

    Args:
        words: all of them, `<pad>` first; `<s>`, `</s>` and `<unk>` anywhere behind it.

    Raises:
        UserError: `<pad>` is not first, a special word is missing, or a word comes twice.
    """

    pad = 0

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        if not self.words or self.words[0] != PAD:
            raise UserError(f"vocabulary: the first word has to be {PAD}, found {self.words[:1]}")
        self._index = {word: i for i, word in enumerate(self.words)}
        if len(self._index) < len(self.words):
            twice = next(word for i, word in enumerate(self.words) if self._index[word] != i)
            raise UserError(f"vocabulary: {twice!r} comes twice")
        for word in SPECIAL:
            if word not in self._index:
                raise UserError(f"vocabulary: {word} is missing")
        self.start, self.end, self.unknown = (self._index[word] for word in (START, END, UNKNOWN))

    def __len__(self) -> int:
        return len(self.words)

    def index(self, word: str) -> int | None:
        """Row of a word, or None where it is not among the fixed ones."""
        return self._index.get(word)

    @classmethod
    def of(cls, words: Iterable[str]) -> Vocabulary:
        """The special words, then these."""
        return cls([*SPECIAL, *words])

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """One word a line, in the classifier's order.

        Raises:
            UserError: no such file, or not a vocabulary.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise UserError(f"{path}: no such vocabulary file") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: expected UTF-8 text with one word a line") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}: expected a file with one word a line") from None
        try:
            return cls([line.strip() for line in lines if line.strip()])
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def parts(self, indices: Sequence[int], ocr_tokens: Sequence[str]) -> list[Part]:
        """The words up to the first `</s>`, each with its source; special words and slots without a token give none."""
        found: list[Part] = []
        for index in map(int, indices):
            if index == self.end:
                break
            if index >= len(self.words):
                token = index - len(self.words)
                if token < len(ocr_tokens):
                    found.append((ocr_tokens[token], "OCR", token))
            elif index not in (self.pad, self.start):
                found.append((self.words[index], "VOCAB", index))
        return found

    def text(self, indices: Sequence[int], ocr_tokens: Sequence[str]) -> tuple[str, list[Part]]:
        """The answer as text, and its words with their sources.

        Args:
            indices: (S,) decoded, without the `<s>` that decoding starts from.
            ocr_tokens: of the image; a padded slot gives no word.
        """
        parts = self.parts(indices, ocr_tokens)
        return " ".join(word for word, _, _ in parts).replace(" 's", "'s"), parts
