"""Samples become batches: question ids, features, boxes, the graph, and the targets to train on.

The graph of an image is computed once, for all questions about it, and kept as one byte a pair. What an encoder is made
of is plain values (`Encoding`), which a checkpoint keeps: it reads any question as the run that trained it did.
"""

from __future__ import annotations

import logging
import string
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from shared.errors import UserError
from torch import Tensor

from spatial_textvqa.answers import Targets, targets
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.phoc import phoc
from spatial_textvqa.spatial_graph import check_boxes, permute_labels, relations
from spatial_textvqa.vocabulary import Vocabulary
from spatial_textvqa.word_vectors import FastText, HashVectors

log = logging.getLogger(__name__)

PAD_WORD, UNKNOWN_WORD = "<pad>", "<unk>"
ROOM = 1024  # spellings that the tables of word vectors have room for at first
GRAPHS_KEPT = 30_000  # images; 22.5 kB each at full size
LOST = {
    "objects": "more objects than max_objects keeps",
    "tokens": "more tokens than max_ocr keeps",
    "questions": "a question longer than question_length",
    "fewer": "fewer feature rows than OCR tokens",
    "more": "more feature rows than OCR tokens",
}
Batch = dict[str, Any]


@dataclass(frozen=True)
class Encoding:
    """How samples are read.

    Args:
        question: `words` (a sentence in a small vocabulary of its own), `content` (only those of its words that are in
            that vocabulary), or `bert` (WordPiece).
        question_words: the small vocabulary, `<pad>` and `<unk>` first.
        wordpiece: BERT's vocabulary file, for `bert`.
        question_length: T; a longer question is cut.
        max_objects, max_ocr: entities of an image; more are cut, and counted.
        feature_width: of the appearance; a sample without features has zeros.
        word_vectors: `hash`, or a fastText `.bin`.
        steps: S; multi_target: see `answers.targets`.
        threshold, mode: of the graph, see `spatial_graph.relations`.
        on_bad_box: `error`, or `clip`.
        relations: `spatial`, or `random`: the labels of each graph dealt anew over its pairs (a control).
        boxes: False: the network is not told where things are, but by the graph (a control).
    """

    question: str = "bert"
    question_words: tuple[str, ...] = ()
    wordpiece: str = ""
    question_length: int = 20
    max_objects: int = 100
    max_ocr: int = 50
    feature_width: int = 2048
    word_vectors: str = "hash"
    steps: int = 12
    multi_target: bool = True
    threshold: float = 0.5
    mode: str = "official"
    on_bad_box: str = "error"
    relations: str = "spatial"
    boxes: bool = True

    def __post_init__(self) -> None:
        if self.question not in ("words", "content", "bert"):
            raise UserError(f"question is {self.question!r}: choose words, content or bert")
        if self.question != "bert" and tuple(self.question_words[:2]) != (PAD_WORD, UNKNOWN_WORD):
            raise UserError(f"question_words: {PAD_WORD} and {UNKNOWN_WORD} come first")
        for name in ("question_length", "feature_width", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it has to be at least 1")
        for name in ("max_objects", "max_ocr"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}: it cannot be negative")
        if self.max_objects + self.max_ocr < 1:
            raise UserError("max_objects and max_ocr are 0: an image needs room for at least one entity")
        if self.relations not in ("spatial", "random"):
            raise UserError(f"relations is {self.relations!r}: choose spatial or random")
        if not self.threshold > 0:
            raise UserError(f"threshold is {self.threshold}: it has to be > 0")

    def plain(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Encoding:
        names = {f.name for f in fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items() if k in names}
        return cls(**values)


class Words:
    """Word vectors and PHOC of OCR tokens, computed once for each spelling; row 0 is no word.

    Rows behind the last spelling are zero, too.
    """

    def __init__(self, word_vectors: str = "hash") -> None:
        self.vectors: HashVectors | FastText = HashVectors()
        if word_vectors != "hash":
            self.vectors = FastText(word_vectors, f"{word_vectors}.words.npz")
        self.row: dict[str, int] = {}
        # Tables with room to grow: a table copied for each new spelling would cost the square of their number.
        self.fasttext, self.phoc = torch.zeros(ROOM, self.vectors.dim), torch.zeros(ROOM, 604)

    def prepare(self, tokens: Iterable[str]) -> None:
        """Look up all words of a data set now, once: no process that reads samples then needs fastText's matrix."""
        if isinstance(self.vectors, FastText):
            self.vectors(list(tokens))
            self.vectors.save()

    def rows(self, tokens: Sequence[str]) -> Int64[Tensor, " n"]:
        """Where the tokens stand in `fasttext` and `phoc`."""
        new = [token for token in dict.fromkeys(tokens) if token not in self.row]
        if new:
            start = len(self.row) + 1
            end = start + len(new)
            if end > len(self.fasttext):
                more = max(end, 2 * len(self.fasttext)) - len(self.fasttext)
                self.fasttext, self.phoc = (
                    torch.cat([table, table.new_zeros(more, table.shape[1])]) for table in (self.fasttext, self.phoc)
                )
            self.fasttext[start:end] = torch.as_tensor(self.vectors(new))
            self.phoc[start:end] = torch.as_tensor(phoc(new))
            self.row |= {token: start + i for i, token in enumerate(new)}
        return torch.tensor([self.row[token] for token in tokens], dtype=torch.long)


class Encoder:
    """Samples to batches.

    Raises:
        UserError: settings that do not go together, a file that is missing.
    """

    def __init__(self, encoding: Encoding, vocabulary: Vocabulary) -> None:
        self.encoding, self.vocabulary = encoding, vocabulary
        self.words = Words(encoding.word_vectors)
        self.question_row = {word: i for i, word in enumerate(encoding.question_words)}
        self.graphs: dict[str, UInt8[np.ndarray, "n n"]] = {}
        self.lost: Counter[str] = Counter()  # samples of which something was cut, by what it was
        self.wordpiece: Any = None
        if encoding.question == "bert":
            from spatial_textvqa.wordpiece import WordPiece

            if not encoding.wordpiece:
                raise UserError("question is bert: give BERT's vocabulary file as data.wordpiece")
            self.wordpiece = WordPiece(Path(encoding.wordpiece))

    # Questions ---------------------------------------------------------------------------------------------------

    def question(self, text: str, sample_id: str = "") -> tuple[Int64[Tensor, " t"], Bool[Tensor, " t"]]:
        """(ids, mask), padded to T.

        Raises:
            UserError: not one word of the question is known.
        """
        length = self.encoding.question_length
        if self.wordpiece is not None:
            pieces = self.wordpiece.ids(text)
            self.lost["questions"] += len(pieces) > length
            pieces = pieces[:length]  # a plain cut: an over-long question loses its [SEP]
            mask = torch.arange(length) < len(pieces)
            return torch.tensor(pieces + [0] * (length - len(pieces))), mask
        words = [word.strip(string.punctuation) for word in text.lower().split()]
        known = [word for word in words if word in self.question_row]
        if not known:
            where = f"sample {sample_id}: " if sample_id else ""
            words_known = ", ".join(self.encoding.question_words[2:])
            raise UserError(f"{where}no word of the question {text!r} is known to this model; it knows {words_known}")
        kept = known if self.encoding.question == "content" else [word for word in words if word]
        self.lost["questions"] += len(kept) > length
        found = [self.question_row.get(word, 1) for word in kept[:length]]
        ids = torch.tensor(found + [0] * (length - len(found)))
        return ids, ids > 0

    # Images ------------------------------------------------------------------------------------------------------

    def image(self, sample: Sample) -> dict[str, Tensor]:
        """Everything of a sample but its question and answers, padded to `max_objects` and `max_ocr`."""
        e = self.encoding
        self.lost["objects"] += len(sample.obj_boxes) > e.max_objects
        self.lost["tokens"] += len(sample.ocr_tokens) > e.max_ocr
        if sample.mismatch:
            self.lost[sample.mismatch] += 1
        if len(sample.ocr_boxes) != len(sample.ocr_tokens):
            raise UserError(
                f"sample {sample.sample_id}: {len(sample.ocr_tokens)} OCR tokens and {len(sample.ocr_boxes)} boxes: "
                "every token needs a box"
            )
        tokens = sample.ocr_tokens[: e.max_ocr]
        objects, ocr = sample.obj_boxes[: e.max_objects], sample.ocr_boxes[: e.max_ocr]
        boxes = torch.zeros(e.max_objects + e.max_ocr, 4)
        for start, given in ((0, objects), (e.max_objects, ocr)):
            some = torch.as_tensor(np.asarray(given, dtype=np.float32).reshape(-1, 4))
            boxes[start : start + len(some)] = check_boxes(some, sample.sample_id, e.on_bad_box)
        rows = torch.zeros(e.max_ocr, dtype=torch.long)
        rows[: len(tokens)] = self.words.rows(tokens)
        # A box at no place at all is padding to the graph; it is to the network, too.
        there = boxes.sum(1) != 0
        told = boxes if e.boxes else torch.zeros_like(boxes)
        return {
            "obj_features": self._features(sample.obj_features, len(objects), e.max_objects, sample, "object"),
            "obj_boxes": told[: e.max_objects],
            "obj_mask": there[: e.max_objects],
            "ocr_features": self._features(sample.ocr_features, len(ocr), e.max_ocr, sample, "OCR"),
            "ocr_word": rows,
            "ocr_boxes": told[e.max_objects :],
            "ocr_mask": there[e.max_objects :],
            "relations": self._graph(sample.image_id, boxes),
        }

    def _features(self, given: Any, count: int, room: int, sample: Sample, what: str) -> Float[Tensor, "room width"]:
        """Rows beyond those that were given are zero: a detector may have looked at fewer boxes (section 7.3)."""
        out = torch.zeros(room, self.encoding.feature_width)
        if given is None:
            return out
        given = torch.as_tensor(np.asarray(given, dtype=np.float32))
        if given.ndim != 2 or given.shape[1] != self.encoding.feature_width:
            raise UserError(
                f"sample {sample.sample_id}: {what} features are {tuple(given.shape)}, expected (rows, "
                f"{self.encoding.feature_width}): set data.feature_width to the features' width"
            )
        rows = min(count, len(given))
        out[:rows] = given[:rows]
        return out

    def _graph(self, image_id: str, boxes: Float[Tensor, "n 4"]) -> UInt8[Tensor, "n n"]:
        found = self.graphs.get(image_id)
        if found is None:
            graph = relations(boxes, self.encoding.threshold, self.encoding.mode)
            if self.encoding.relations == "random":
                graph = permute_labels(graph, torch.Generator().manual_seed(zlib.crc32(image_id.encode())))
            found = graph.numpy()
            if len(self.graphs) < GRAPHS_KEPT:
                self.graphs[image_id] = found
        return torch.from_numpy(found)

    # Batches -----------------------------------------------------------------------------------------------------

    def targets(self, sample: Sample) -> Targets:
        e = self.encoding
        return targets(sample.answers, sample.ocr_tokens, self.vocabulary, e.steps, e.max_ocr, e.multi_target)

    def collate(self, samples: Sequence[Sample], seeds: Sequence[int] | None = None) -> Batch:
        """A batch, as the network takes it; one way to say the answers is drawn for each sample.

        Args:
            seeds: of the draws, one for each sample; None: by the global generator.

        Raises:
            UserError: a sample that cannot be read; the line names it.
        """
        images = [self.image(sample) for sample in samples]
        questions = [self.question(sample.question, sample.sample_id) for sample in samples]
        own = [None] * len(samples) if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
        wanted = [self.targets(sample).sample(generator) for sample, generator in zip(samples, own, strict=True)]
        batch: Batch = {name: torch.stack([image[name] for image in images]) for name in images[0]}
        rows = batch.pop("ocr_word")
        batch |= {"ocr_fasttext": self.words.fasttext[rows], "ocr_phoc": self.words.phoc[rows]}
        batch |= {"question_ids": torch.stack([q[0] for q in questions])}
        batch |= {"question_mask": torch.stack([q[1] for q in questions])}
        for name, parts in zip(("targets", "prev_inds", "loss_mask"), zip(*wanted)):
            batch[name] = torch.stack(parts)
        return batch | {"samples": list(samples)}

    def taken_lost(self) -> Counter[str]:
        """What was lost since this was last asked for."""
        lost, self.lost = self.lost, Counter()
        return lost


def report_lost(lost: Mapping[str, int]) -> None:
    """One warning for each way in which samples lost something, with their number."""
    for what, says in LOST.items():
        if lost.get(what):
            log.warning("%d samples had %s: the rest was cut", lost[what], says)
