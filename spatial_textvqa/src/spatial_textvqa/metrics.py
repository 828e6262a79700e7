"""What is measured (section 9): accuracies, ANLS, the spatial subset and its flips, grounding, reference attention.

Plain functions on one sample, and torchmetrics classes that add them up, over processes too. Fractions, not percent.
Golden numbers: tests/golden/metrics.json and spatial_questions.json.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torchmetrics import Metric

from spatial_textvqa.answers import clean, soft_scores
from spatial_textvqa.evalai import normalise
from spatial_textvqa.spatial_graph import mean_degree
from spatial_textvqa.vocabulary import Vocabulary

FLIPS = {"north": "south", "east": "west", "up": "down", "right": "left"}
FLIPS |= {"bottom": "top", "under": "over", "below": "above"}
FLIPS |= {second: first for first, second in FLIPS.items()}
SPATIAL_WORDS = frozenset(FLIPS) | {"beside", "beneath"}  # the last two have no opposite
ANLS_THRESHOLD = 0.5

# One sample ------------------------------------------------------------------------------------------------------


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Soft score of the normalised prediction among the normalised answers (usually ten)."""
    return soft_scores([normalise(answer) for answer in answers]).get(normalise(prediction), 0.0)


def stvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """1 where the normalised prediction is one of the normalised answers."""
    return float(normalise(prediction) in {normalise(answer) for answer in answers})


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Best normalised Levenshtein similarity to an answer, 0 below a half; two empty texts are equal."""
    said = prediction.lower().strip()
    best = max((Levenshtein.normalized_similarity(said, a.lower().strip()) for a in answers), default=0.0)
    return best if best >= ANLS_THRESHOLD else 0.0


def whole_answer(
    indices: Sequence[int], ocr_tokens: Sequence[str], answers: Sequence[str], vocabulary: Vocabulary
) -> bool:
    """Whether decoded indices say, up to `</s>`, a whole answer whose soft score is at least a half.

    Words are compared, not indices: every token and fixed word that spells the word is right, at any step. An answer
    of more words than steps has to be right as far as the steps go.

    Args:
        indices: (S,) decoded.
        ocr_tokens: of the image.
        answers: usually ten.
    """
    words: list[str] = []
    for index in indices:
        token = index - len(vocabulary)
        if index == vocabulary.end:
            break
        if token >= len(ocr_tokens):  # a slot without a token
            return False
        words.append(clean(ocr_tokens[token]) if token >= 0 else vocabulary.words[index])
    scores = soft_scores([clean(answer) for answer in answers])
    return bool(words) and any(s >= 0.5 and words == answer.split()[: len(indices)] for answer, s in scores.items())


def is_spatial(question: str) -> bool:
    """Whether a spatial word is one of the question's words, each cleaned like an answer."""
    return any(clean(word) in SPATIAL_WORDS for word in question.split())


_WORD = re.compile(r"^(\W*)(\w+)(\W*)$")


def flip_question(question: str) -> str | None:
    """Every spatial word turned into its opposite at once, punctuation, case and blanks kept; None without one.

    Only whole words count: neither `bright` nor `upper` is touched.
    """
    pieces = re.split(r"(\s+)", question)
    flipped = [_flip_word(piece) for piece in pieces]
    return "".join(flipped) if flipped != pieces else None


def _flip_word(piece: str) -> str:
    found = _WORD.match(piece)
    if found is None or found[2].lower() not in FLIPS:
        return piece
    word, opposite = found[2], FLIPS[found[2].lower()]
    if word.isupper():
        opposite = opposite.upper()
    elif word[0].isupper():
        opposite = opposite.capitalize()
    return found[1] + opposite + found[3]


# One image -------------------------------------------------------------------------------------------------------


def reference_attention(
    attention: Float[Tensor, "head query key"], token: int, reference: int, visible: Bool[Tensor, " key"]
) -> float:
    """Mean attention mass over heads from an OCR token to the reference object, over that of uniform attention.

    Args:
        attention: of the last spatial layer, rows sum to one or zero.
        token, reference: positions in the sequence.
        visible: keys that count in uniform attention, the valid question and entity positions.
    """
    return float(attention[:, token, reference].mean() * visible.sum())


# Added up --------------------------------------------------------------------------------------------------------


class _Mean(Metric):
    """Mean of one number a sample; nan before the first."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, values: Sequence[float]) -> None:
        self.total += float(sum(values))
        self.count += len(values)

    def compute(self) -> Tensor:
        return self.total / self.count


class TextVQAAccuracy(_Mean):
    """Mean of `textvqa_accuracy` over samples that have answers."""

    def update(self, predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
        self.add([textvqa_accuracy(p, a) for p, a in zip(predictions, answers, strict=True) if a])


class STVQAAccuracy(_Mean):
    """Mean of `stvqa_accuracy` over samples that have answers."""

    def update(self, predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
        self.add([stvqa_accuracy(p, a) for p, a in zip(predictions, answers, strict=True) if a])


class ANLS(_Mean):
    """Mean of `anls` over samples that have answers."""

    def update(self, predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
        self.add([anls(p, a) for p, a in zip(predictions, answers, strict=True) if a])


class GroundingAccuracy(_Mean):
    """Share of samples whose pointer, at the first step, is highest at an OCR token of the answer.

    Ours: the paper's own grounding metric needs boxes that were not available. Only samples with such a token count.
    """

    def update(
        self,
        pointer: Float[Tensor, "batch token"],
        wanted: Bool[Tensor, "batch token"],
        valid: Bool[Tensor, "batch token"],
    ) -> None:
        best = pointer.masked_fill(~valid, -torch.inf).argmax(-1)
        counts = (wanted & valid).any(-1)
        hit = wanted.gather(1, best[:, None])[:, 0]
        self.add(hit[counts].float().tolist())


class WholeAnswerAccuracy(_Mean):
    """Mean of `whole_answer` over samples that have answers."""

    def update(
        self,
        indices: Int64[Tensor, "batch step"],
        ocr_tokens: Sequence[Sequence[str]],
        answers: Sequence[Sequence[str]],
        vocabulary: Vocabulary,
    ) -> None:
        each = zip(indices.tolist(), ocr_tokens, answers, strict=True)
        self.add([float(whole_answer(row, t, a, vocabulary)) for row, t, a in each if a])


class FlipConsistency(Metric):
    """Questions whose spatial word is turned round (section 9): the share that is then answered right (`accuracy`),
    whose answer changes, right or wrong (`changed`), and where both answers are right (`both`).
    """

    full_state_update = False
    accuracy: Tensor
    changed: Tensor
    both: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("accuracy", "changed", "both", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        before: Sequence[str],
        after: Sequence[str],
        right_before: Bool[Tensor, " batch"],
        right_after: Bool[Tensor, " batch"],
    ) -> None:
        """Answers to the questions as they are and turned round, as texts, and whether they are right."""
        self.accuracy += int(right_after.sum())
        self.changed += sum(one != other for one, other in zip(before, after, strict=True))
        self.both += int((right_before & right_after).sum())
        self.count += len(before)

    def compute(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).double() / self.count for name in ("accuracy", "changed", "both")}


class ReferenceAttention(_Mean):
    """Mean of `reference_attention` over samples."""

    def update(
        self,
        attention: Float[Tensor, "batch head query key"],
        token: Int64[Tensor, " batch"],
        reference: Int64[Tensor, " batch"],
        visible: Bool[Tensor, "batch key"],
    ) -> None:
        each = zip(attention, token.tolist(), reference.tolist(), visible, strict=True)
        self.add([reference_attention(*of_one) for of_one in each])


class MeanDegree(_Mean):
    """Sparsity of graphs: the mean over images of `mean_degree`, edges of an entity to others."""

    def update(self, relations: UInt8[Tensor, "batch n n"]) -> None:
        self.add([mean_degree(graph) for graph in relations])


def by_kind(right: Bool[Tensor, " n"], kinds: Int[Tensor, " n"], names: Sequence[str]) -> dict[str, float]:
    """Share of right ones among the samples of each kind that occurs."""
    found = ((name, right[kinds == number]) for number, name in enumerate(names))
    return {name: float(of.double().mean()) for name, of in found if len(of)}
