"""A question about a picture, answered: each word with its source, what else it might have been, and where it looked.

    python -m spatial_textvqa ask --ckpt runs/.../final.ckpt --ocr ocr.json --objects objects.json --image street.png \\
        --explain out.svg "what word is left of the door?"
"""

from __future__ import annotations

import copy
import logging
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from shared.errors import UserError
from torch import Tensor

from spatial_textvqa import explain
from spatial_textvqa.custom import MOST_OBJECTS, MOST_OCR, Question, checked_question, sample_of
from spatial_textvqa.data.encode import Encoder, Encoding
from spatial_textvqa.explain import Drawn, Edge
from spatial_textvqa.model import SAM4C
from spatial_textvqa.picture import Box, Picture
from spatial_textvqa.vocabulary import Vocabulary

log = logging.getLogger(__name__)

CANDIDATES = 5
EDGES = 6  # that are told and drawn
TRAINING = ("targets", "prev_inds", "loss_mask")  # of a batch, and of no use in asking
NO_TEXT = "no text was given: only words of the fixed vocabulary can be the answer"


@dataclass(frozen=True)
class Candidate:
    """A word that a step might say.

    Attributes:
        word: the token, or the vocabulary's word; `</s>` ends the answer.
        index: of the OCR token, or in the vocabulary.
        score: sigmoid of its logit; the words are not exclusive, so these do not add up to one.
        box: of the token, in pixels.
    """

    word: str
    source: Literal["OCR", "VOCAB"]
    index: int
    score: float
    box: Box | None = None

    def from_where(self) -> str:
        if self.box is None:
            return "from the vocabulary"
        return f"OCR token {self.index} at [{', '.join(f'{value:g}' for value in self.box)}]"


@dataclass(frozen=True)
class Answer:
    """What was answered, and why as far as attention tells.

    Attributes:
        words: those of `text`, in order.
        candidates: the best of each step up to the last word; at least those of the first step.
        edges: the strongest between boxes, from the tokens of the answer where it has some, strongest first.
        notes: what the user should know: no text, no objects, a question that was cut.
    """

    question: str
    text: str
    words: Sequence[Candidate]
    candidates: Sequence[Sequence[Candidate]]
    edges: Sequence[Edge]
    notes: Sequence[str]

    def answered(self, picture: Picture) -> list[int]:
        """Entities that the answer was read from."""
        return [len(picture.objects) + word.index for word in self.words if word.source == "OCR"]

    def lines(self, picture: Picture) -> list[str]:
        """What `ask` prints: the answer; each word's source and what else it might have been; the strongest edges."""
        out = [f"answer: {self.text or '(nothing)'}"]
        for step, others in enumerate(self.candidates):
            for word in self.words[step : step + 1]:
                out.append(f"  {word.word}: {word.from_where()}, score {word.score:.3f}")
            said = ", ".join(f"{c.word} ({'OCR' if c.source == 'OCR' else 'vocabulary'} {c.score:.3f})" for c in others)
            out.append(f"    best of this step: {said}")
        for edge in self.edges:
            where = f"layer {edge.layer + 1}, head {edge.head + 1}"
            out.append(f"  looked: {explain.sentence(edge, picture)} ({edge.weight:.2f}, {where})")
        return out

    def svg(self, picture: Picture, backdrop: str = "") -> str:
        drawn = Drawn(self.question, self.text, self.answered(picture), list(reversed(self.edges)))
        return explain.svg(picture, drawn, backdrop)


@dataclass(frozen=True)
class Looked:
    """Attention and graph among the entities of one picture, padding left out.

    Attributes:
        attention: by layer, head, query and key: objects, then tokens.
        spatial: which layers are spatial.
    """

    attention: Float[Tensor, "layer head n n"]
    graph: UInt8[Tensor, "n n"]
    spatial: Sequence[bool]

    def edges(self, sources: Sequence[int] | None, count: int) -> list[Edge]:
        """The strongest of the spatial layers, or of all where none is spatial."""
        valid = torch.ones(len(self.graph), dtype=torch.bool)
        layers = [i for i, spatial in enumerate(self.spatial) if spatial or not any(self.spatial)]
        found = (e for i in layers for e in explain.edges_of(self.attention[i], self.graph, valid, i, sources))
        return explain.strongest(found, count)


class Asker:
    """A trained network that is asked.

    Args:
        model, vocabulary: as `module.load` gives them.
        encoder: how questions and pictures became tensors in training.
        scenes: settings of the synthetic scenes that it was trained on; empty where it was not.
    """

    def __init__(
        self, model: SAM4C, vocabulary: Vocabulary, encoder: Encoder, scenes: dict[str, Any] | None = None
    ) -> None:
        self.model, self.vocabulary, self.encoder = model.eval(), vocabulary, encoder
        self.scenes = scenes or {}

    @classmethod
    def load(cls, checkpoint: Path) -> Asker:
        """From a checkpoint of `train.py` or `reproduce.py`.

        Raises:
            UserError: no such file, or none of these.
        """
        from spatial_textvqa.module import load

        model, vocabulary, settings = load(checkpoint)
        return cls(model, vocabulary, Encoder(Encoding.of(settings["encoding"]), vocabulary), settings["scenes"])

    def appearance(self, asked: str | None = None) -> str:
        """How OCR tokens of synthetic scenes look: as in training, or as `asked`, which is noted where it differs."""
        trained = str(self.scenes.get("ocr_appearance", "none"))
        if asked is not None and asked != trained:
            log.warning("scenes with ocr_appearance %s: the network was trained on %s", asked, trained)
        return trained if asked is None else asked

    def fitted(self, picture: Picture) -> tuple[Picture, list[str]]:
        """The picture with no more boxes than are read of one, and what the user should know about it.

        The network has no places for boxes, so it takes more than it was trained with; then that is noted.

        Raises:
            UserError: features of another width than the network's.
        """
        config, notes = self.model.config, list(picture.notes)
        most_words, most_objects = max(config.max_ocr, MOST_OCR), max(config.max_objects, MOST_OBJECTS)
        for name, count, trained, most in (
            ("words", len(picture.words), config.max_ocr, most_words),
            ("objects", len(picture.objects), config.max_objects, most_objects),
        ):
            if count > most:
                notes.append(f"{count} {name}: the first {most} are read, the rest is left out")
            elif count > trained:
                notes.append(f"{count} {name}: the network was trained on pictures of at most {trained}")
        cut = replace(
            picture,
            words=picture.words[:most_words],
            objects=picture.objects[:most_objects],
            object_features=self._of_its_width(picture.object_features, picture.name, most_objects),
            word_features=self._of_its_width(picture.word_features, picture.name, most_words),
        )
        if not cut.words:
            notes.append(NO_TEXT)
        if not cut.objects:
            notes.append("no objects were given: the answer comes from the words and their places alone")
        elif cut.object_features is None:
            notes.append("the objects have no features: the network knows their places, not what they look like")
        return cut, notes

    def _of_its_width(self, features: np.ndarray | None, name: str, most: int) -> np.ndarray | None:
        width = self.model.config.feature_width
        if features is not None and features.shape[1] != width:
            raise UserError(f"{name}: features of width {features.shape[1]}: the network takes those of width {width}")
        return None if features is None else features[:most]

    def batch(self, picture: Picture, question: str) -> dict[str, Tensor]:
        """One sample as tensors without padding; `picture` as `fitted` gives it."""
        encoder = copy.copy(self.encoder)
        encoder.graphs = {}  # they are kept by name, and two pictures may bear one
        objects, words = max(1, len(picture.objects)), max(1, len(picture.words))
        encoder.encoding = replace(encoder.encoding, max_objects=objects, max_ocr=words)
        found = encoder.collate([sample_of(Question("asked", picture.name, question, (), picture))])
        return {key: value for key, value in found.items() if isinstance(value, Tensor) and key not in TRAINING}

    def ask(self, picture: Picture, question: str, edges: bool = True) -> Answer:
        """The answer.

        Args:
            picture: as `fitted` gives it, or smaller.
            question: a sentence.
            edges: look where it looked, too.

        Raises:
            UserError: a blank question, or one without a word that the network knows.
        """
        question = checked_question(question, picture.name)
        notes = self._heard(question, picture.name)
        batch = self.batch(picture, question)
        decoded = self.model.decode(batch)
        indices, logits = decoded.indices[0].tolist(), decoded.scores[0].float()
        tokens = [word.text for word in picture.words]
        if not tokens and not self.vocabulary.parts(indices, tokens):
            # It would say nothing at all; the best of the words it has is of more use, and is told as such.
            indices = [next(c.index for c in self._best(logits[0], picture) if c.index != self.vocabulary.end)]
            notes.append("the network would say nothing: this is the best word of its vocabulary")
        text, parts = self.vocabulary.text(indices, tokens)
        offset = {"OCR": len(self.vocabulary), "VOCAB": 0}
        said = [index + offset[source] for _, source, index in parts]
        steps = _places(said, indices)
        words = [self._candidate(i, float(logits[t, i].sigmoid()), picture) for t, i in zip(steps, said)]
        best = [self._best(logits[t], picture) for t in steps or [0]]
        answered = [len(picture.objects) + word.index for word in words if word.source == "OCR"]
        seen = self.looked(picture, question, batch).edges(answered or None, EDGES) if edges else []
        return Answer(question, text, words, best, seen, notes)

    def looked(self, picture: Picture, question: str, batch: dict[str, Tensor] | None = None) -> Looked:
        """Attention of every layer among the picture's boxes."""
        batch = self.batch(picture, question) if batch is None else batch
        maps = self.model.attention_maps(batch)
        objects, words = len(picture.objects), len(picture.words)
        asked, padded = batch["question_ids"].shape[1], batch["obj_boxes"].shape[1]
        own = torch.cat([torch.arange(objects), padded + torch.arange(words)])
        attention = torch.stack([layer[0][:, asked + own][:, :, asked + own] for layer in maps])
        return Looked(attention, batch["relations"][0][own][:, own], [kind == "s" for kind in self.model.config.layers])

    def _heard(self, question: str, name: str) -> list[str]:
        """What the user should know of how his question was heard.

        Raises:
            UserError: no word of it is known.
        """
        read, length = self.encoder.encoding, self.encoder.encoding.question_length
        if read.question == "bert":
            ids = self.encoder.wordpiece.ids(question)
            return (
                [f"the question has {len(ids)} word pieces: the first {length} are read"] if len(ids) > length else []
            )
        try:
            self.encoder.question(question)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        words = [word.strip(string.punctuation) for word in question.lower().split()]
        known = [word for word in words if word in self.encoder.question_row]
        heard = known if read.question == "content" else [word for word in words if word]
        notes = []
        if len(heard) > length:
            notes.append(f"the question has {len(heard)} words that count: the first {length} are read")
        if read.question == "words" and (unknown := [word for word in heard if word not in self.encoder.question_row]):
            notes.append(f"not known to the network: {', '.join(dict.fromkeys(unknown))}")
        return notes

    def _candidate(self, index: int, score: float, picture: Picture) -> Candidate:
        return candidate(index, score, self.vocabulary, picture)

    def _best(self, logits: Float[Tensor, " index"], picture: Picture) -> list[Candidate]:
        """The best words of a step, padded slots and words that are none left out."""
        able = logits[: len(self.vocabulary) + len(picture.words)].float().clone()
        able[[self.vocabulary.pad, self.vocabulary.start]] = -float("inf")
        top = able.topk(min(CANDIDATES, int(able.isfinite().sum())))
        return [self._candidate(i, s, picture) for i, s in zip(top.indices.tolist(), top.values.sigmoid().tolist())]


def candidate(index: int, score: float, vocabulary: Vocabulary, picture: Picture) -> Candidate:
    """Of an index of the scores: a row of the vocabulary, and behind those the picture's tokens."""
    token = index - len(vocabulary)
    if token < 0:
        return Candidate(vocabulary.words[index], "VOCAB", index, score)
    return Candidate(picture.words[token].text, "OCR", token, score, picture.words[token].box)


def _places(said: Sequence[int], indices: Sequence[int]) -> list[int]:
    """The steps at which these indices were said: silent ones stand between them."""
    places: list[int] = []
    for index in said:
        places.append(indices.index(index, places[-1] + 1 if places else 0))
    return places
