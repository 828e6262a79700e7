"""Question words as BERT's word pieces: lower-cased, accents stripped, cut to T ids (section 4.1)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool, Int64
from shared.errors import UserError
from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class WordPiece:
    """Ids of a vocabulary file with one piece on each line.

    Raises:
        UserError: no such file, a piece that comes twice, one of the special pieces missing, or [PAD] not first.
    """

    def __init__(self, vocabulary: str | Path) -> None:
        from tokenizers import BertWordPieceTokenizer

        path = Path(vocabulary)
        if not path.is_file():
            raise UserError(f"no WordPiece vocabulary at {path}: give BERT's vocab.txt")
        try:
            pieces = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text: give BERT's vocab.txt") from None
        missing = [piece for piece in SPECIAL if piece not in pieces]
        if missing:
            raise UserError(f"{path} lacks {', '.join(missing)}: give BERT's vocab.txt, one piece on each line")
        seen: dict[str, int] = {}
        for line, piece in enumerate(pieces):
            if piece in seen:
                raise UserError(f"{path}, line {line + 1}: {piece!r} stands in line {seen[piece] + 1} already")
            seen[piece] = line
        if seen["[PAD]"] != 0:
            raise UserError(f"{path}: [PAD] is number {seen['[PAD]']}, and padding is 0: put it into the first line")
        self.size = len(pieces)
        self.tokenizer = BertWordPieceTokenizer(vocab=seen, lowercase=True)

    def ids(self, question: str) -> list[int]:
        """[CLS] ... [SEP]."""
        return list(self.tokenizer.encode(question).ids)

    def __call__(self, question: str, length: int = 20) -> tuple[Int64[Tensor, " t"], Bool[Tensor, " t"]]:
        """Ids cut to `length` and padded with 0, and which of them are real. An over-long question loses its [SEP]."""
        ids = self.ids(question)[:length]
        mask = torch.arange(length) < len(ids)
        return torch.tensor(ids + [0] * (length - len(ids))), mask
