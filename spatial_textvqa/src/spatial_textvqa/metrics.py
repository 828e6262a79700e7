"""What is measured (section 9): accuracies, ANLS, the spatial subset and its flips, grounding, reference attention.

Plain functions on one sample, and torchmetrics classes that add them up, over processes too. Fractions, not percent.
Golden numbers: tests/golden/metrics.json and spatial_questions.json.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Int64
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torchmetrics import Metric

from spatial_textvqa.answers import clean, soft_scores
from spatial_textvqa.evalai import normalise

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
    """Share of samples decoded right to the last index, `</s>` included: each step's index is one of the right ones.

    A sample without answers, of which no step counts, is left out.
    """

    def update(
        self,
        indices: Int64[Tensor, "batch step"],
        targets: Float[Tensor, "batch step index"],
        mask: Float[Tensor, "batch step"],
    ) -> None:
        self.add(whole_answer(indices, targets, mask)[(mask > 0).any(1)].double().tolist())


def whole_answer(
    indices: Int64[Tensor, "batch step"],
    targets: Float[Tensor, "batch step index"],
    mask: Float[Tensor, "batch step"],
) -> Bool[Tensor, " batch"]:
    """Whether every step that counts has an index whose target is at least a half; False where no step counts."""
    good = targets.gather(2, indices[..., None])[..., 0] >= 0.5
    return (good | (mask == 0)).all(1) & (mask > 0).any(1)


def by_kind(right: Bool[Tensor, " n"], kinds: Int[Tensor, " n"], names: Sequence[str]) -> dict[str, float]:
    """Share of right ones among the samples of each kind that occurs."""
    found = ((name, right[kinds == number]) for number, name in enumerate(names))
    return {name: float(of.double().mean()) for name, of in found if len(of)}
