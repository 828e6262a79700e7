"""Ten answers become training targets, and the loss on them (section 5).

ten answers -> soft score of each -> every way to say it by fixed words and OCR tokens -> one way, drawn anew each epoch
-> targets (S, V+Nc), decoder inputs (S), loss mask (S). Golden numbers: tests/golden/answers.json.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from spatial_textvqa.vocabulary import Vocabulary

MAX_SEQUENCES = 20  # ways to say one answer that are kept, after every word
Entry = tuple[int, int, float]  # step, index, value


def clean(text: str) -> str:
    """Lower case, without `,` and `?`, and the possessive as a word of its own."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """Score of each distinct answer: the mean over annotators g of min(1, how many others than g said it / 3)."""
    said, n = Counter(answers), len(answers)
    return {a: (c * min(1.0, (c - 1) / 3) + (n - c) * min(1.0, c / 3)) / n for a, c in said.items()}


def sequences(answer: str, vocabulary: Vocabulary, slots: dict[str, list[int]]) -> list[tuple[int, ...]]:
    """Every way to say a cleaned answer, at most `MAX_SEQUENCES`; none where one of its words cannot be said.

    Args:
        slots: positions of each OCR token, cleaned.
    """
    ways: list[tuple[int, ...]] = [()]
    words = answer.split()
    for word in words:
        row = vocabulary.index(word)
        choices = ([] if row is None else [row]) + [len(vocabulary) + slot for slot in slots.get(word, ())]
        if not choices:
            return []
        ways = [(*way, index) for way, index in product(ways, choices)][:MAX_SEQUENCES]
    return ways if words else []


@dataclass(frozen=True)
class Sampled:
    """One way to say an answer, as training wants it; `entries` are the targets that are not zero."""

    entries: list[Entry]
    prev_inds: list[int]
    loss_mask: list[float]


@dataclass(frozen=True)
class Targets:
    """All ways to say the answers of one sample.

    Attributes:
        picks: the ways of the first answer, of the second ... of the tenth: frequent answers weigh more.
        first: target of step 0 for each index, the best score of a way that starts with it.
    """

    picks: list[tuple[int, ...]]
    first: dict[int, float]
    spelt: list[str]  # of every OCR slot, cleaned
    slots: dict[str, list[int]]
    vocabulary: Vocabulary
    steps: int
    max_ocr: int
    multi_target: bool

    @cached_property
    def distinct(self) -> list[tuple[int, ...]]:
        return list(dict.fromkeys(self.picks))

    def _also(self, index: int) -> list[int]:
        """The indices that spell the same word and are right with it: an OCR slot's twins are not."""
        size = len(self.vocabulary)
        if not self.multi_target:
            return [index]
        if index < size:
            return [index, *(size + slot for slot in self.slots.get(self.vocabulary.words[index], ()))]
        row = self.vocabulary.index(self.spelt[index - size])
        return [index] if row is None else [index, row]

    def at(self, way: tuple[int, ...] | None) -> Sampled:
        """Targets of one way; of None (no way to say any answer) all zero, with nothing in the loss."""
        prev, mask = [self.vocabulary.pad] * self.steps, [0.0] * self.steps
        if way is None:
            return Sampled([], prev, mask)
        length = min(1 + len(way), self.steps)
        mask[:length] = [1.0] * length
        prev[:length] = [self.vocabulary.start, *way][:length]
        entries = [(0, index, value) for index, value in self.first.items()]
        entries += [(t, index, 1.0) for t in range(1, min(len(way), self.steps)) for index in self._also(way[t])]
        if len(way) < self.steps:
            entries.append((len(way), self.vocabulary.end, 1.0))
        return Sampled(entries, prev, mask)

    def sample(
        self, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "step index"], Int64[Tensor, " step"], Float[Tensor, " step"]]:
        """(targets, prev_inds, loss_mask) of a way drawn uniformly from `picks`."""
        way = None
        if self.picks:
            way = self.picks[int(torch.randint(len(self.picks), (), generator=generator))]
        return self.dense(self.at(way))

    def dense(self, sampled: Sampled) -> tuple[Tensor, Tensor, Tensor]:
        out = torch.zeros(self.steps, len(self.vocabulary) + self.max_ocr)
        for step, index, value in sampled.entries:
            out[step, index] = value
        return out, torch.tensor(sampled.prev_inds), torch.tensor(sampled.loss_mask)


def targets(
    answers: Sequence[str],
    ocr_tokens: Sequence[str],
    vocabulary: Vocabulary,
    steps: int = 12,
    max_ocr: int = 50,
    multi_target: bool = True,
) -> Targets:
    """What the decoder should say for these answers.

    Args:
        answers: usually ten; none at all (test split) gives targets without a way.
        ocr_tokens: of the image; those behind the first `max_ocr` cannot be said.
        steps: S, decoding steps.
        multi_target: every index that spells the right word is right at steps >= 1 (SA-M4C), or one only (M4C).
    """
    spelt = [clean(token) for token in ocr_tokens[:max_ocr]]
    slots: dict[str, list[int]] = defaultdict(list)
    for slot, token in enumerate(spelt):
        slots[token].append(slot)
    cleaned = [clean(answer) for answer in answers]
    scores = soft_scores(cleaned)
    ways = {answer: sequences(answer, vocabulary, slots) for answer in scores}
    first: dict[int, float] = {}
    for answer, found in ways.items():
        for way in found:
            first[way[0]] = max(first.get(way[0], 0.0), scores[answer])
    picks = [way for answer in cleaned for way in ways[answer]]
    return Targets(picks, first, spelt, dict(slots), vocabulary, steps, max_ocr, multi_target)


def answerable_from_ocr(answers: Sequence[str], ocr_tokens: Sequence[str], max_ocr: int = 50) -> bool:
    """Whether some answer with a soft score above zero is a sequence of OCR tokens alone (section 9)."""
    said = {clean(token) for token in ocr_tokens[:max_ocr]}
    scored = soft_scores([clean(answer) for answer in answers])
    return any(score > 0 and a.split() and all(word in said for word in a.split()) for a, score in scored.items())


def bce_loss(
    scores: Float[Tensor, "batch step index"],
    targets: Float[Tensor, "batch step index"],
    loss_mask: Float[Tensor, "batch step"],
) -> Float[Tensor, ""]:
    """Sum over indices of the binary cross entropy, per step that counts: not a mean over the vocabulary.

    Scores are logits; they are taken in float32, as half precision loses the sum of 5000 small terms.
    """
    each = F.binary_cross_entropy_with_logits(scores.float(), targets.float(), reduction="none").sum(-1)
    return (each * loss_mask).sum() / loss_mask.sum().clamp(min=1)
