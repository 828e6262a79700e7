"""Iterative answering with a pointer (M4C's decoder; section 3.3 of the paper; section 4.4 here).

Index y < V is a word of the fixed vocabulary, V + k is OCR token k. Step t takes the answer's previous index in, and
scores all V + Nc indices. The fixed words' embedding is the classifier's weight matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .transformer import EPS, KeysAndValues

POSITIONS, TYPES = 100, 5
MASKED = 10000.0  # subtracted from the scores of OCR slots that are padding


class PreviousPrediction(nn.Module):
    """LN(classifier.weight[y]) or LN(encoder's output of token y - V), plus Drop(LN(position[t] + type[y >= V]))."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.position, self.source = nn.Embedding(POSITIONS, dim), nn.Embedding(TYPES, dim)
        self.word_norm, self.ocr_norm, self.norm = (nn.LayerNorm(dim, EPS) for _ in range(3))
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        previous: Int[Tensor, "b s"],
        words: Float[Tensor, "v dim"],
        ocr: Float[Tensor, "b nc dim"],
        first: int = 0,
    ) -> Float[Tensor, "b s dim"]:
        """Args:
        previous: indices of the answer so far, `<s>` in front.
        words: the classifier's weights; ocr: outputs of the OCR encoder.
        first: t of the first of these steps.
        """
        vocabulary = len(words)
        is_ocr = previous >= vocabulary
        out = self.word_norm(F.embedding(torch.where(is_ocr, 0, previous), words))
        if ocr.shape[1]:
            token = torch.where(is_ocr, previous - vocabulary, 0)
            pointed = ocr.gather(1, token[..., None].expand(-1, -1, ocr.shape[-1]))
            out = torch.where(is_ocr[..., None], self.ocr_norm(pointed), out)
        steps = self.position.weight[first : first + previous.shape[1]]
        return out + self.drop(self.norm(steps + self.source(is_ocr.long())))


class Pointer(nn.Module):
    """(W_q z_t + b_q) . (W_k o_k + b_k) / sqrt(D), 10000 less where token k is padding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(
        self, z: Float[Tensor, "b s dim"], keys: Float[Tensor, "b nc dim"], valid: Bool[Tensor, "b nc"]
    ) -> Float[Tensor, "b s nc"]:
        """Args:
        keys: W_k o_k + b_k, the same for all steps.
        """
        scores = self.query(z) @ keys.mT / math.sqrt(z.shape[-1])
        return scores - MASKED * (~valid[:, None]).to(scores.dtype)


@dataclass
class Decoded:
    """Answers as indices, with the scores of every step and the sum of log sigmoids up to `</s>`."""

    indices: Int[Tensor, "b s"]
    scores: Float[Tensor, "b s v_plus_nc"]
    log_score: Float[Tensor, " b"]


def log_score(scores: Tensor, indices: Tensor, end: int) -> Float[Tensor, " b"]:
    """Sum of the log sigmoids of the chosen indices, the first `</s>` included."""
    chosen = F.logsigmoid(scores).gather(-1, indices[..., None])[..., 0]
    before = (indices == end).cumsum(1) - (indices == end).long()
    return (chosen * (before == 0)).sum(1)


def greedy(step: Callable[[Tensor, int], Tensor], start: Tensor, steps: int, end: int) -> Decoded:
    """The best index at every step; goes on past `</s>`, as published: the text stops there.

    Args:
        step: previous index [B] and t, to the scores [B, V + Nc] of step t.
        start: `<s>` for each sample.
    """
    previous, indices, scores = start, [], []
    for t in range(steps):
        scores.append(step(previous, t))
        previous = scores[-1].argmax(-1)
        indices.append(previous)
    out, all_scores = torch.stack(indices, 1), torch.stack(scores, 1)
    return Decoded(out, all_scores, log_score(all_scores, out, end))


def beam_search(
    step: Callable[[Tensor, int], Tensor],
    reorder: Callable[[Tensor], None],
    start: Tensor,
    steps: int,
    end: int,
    beam: int,
) -> Decoded:
    """The best of `beam` answers by the sum of log sigmoids; a finished answer keeps its sum, lengths aside.

    After `</s>` an answer is filled up with it. Not the published search, which counts scores twice and is declared
    broken by its authors.

    Args:
        step: as for `greedy`, of B * beam rows, the beams of a sample side by side.
        reorder: told which row each row goes on from.
        start: `<s>` for each of the B * beam rows.
    """
    rows = len(start)
    samples = rows // beam
    total = torch.full((samples, beam), -math.inf, device=start.device)
    total[:, 0] = 0  # at first all beams are the same
    finished = torch.zeros(samples, beam, dtype=torch.bool, device=start.device)
    first = torch.arange(samples, device=start.device)[:, None] * beam
    previous = start
    indices = start.new_zeros(rows, 0)
    scores: Tensor | None = None
    for t in range(steps):
        now = step(previous, t)
        width = now.shape[-1]
        gain = F.logsigmoid(now.float()).view(samples, beam, width)
        only_end = torch.full_like(gain, -math.inf)
        only_end[..., end] = 0
        candidates = total[..., None] + torch.where(finished[..., None], only_end, gain)
        total, place = candidates.flatten(1).topk(beam, 1)
        parent, index = place // width, place % width
        origin = (first + parent).flatten()
        past = now.new_zeros(rows, 0, width) if scores is None else scores
        scores = torch.cat([past, now[:, None]], 1)[origin]
        indices = torch.cat([indices[origin], index.flatten()[:, None]], 1)
        finished = finished.gather(1, parent) | (index == end)
        reorder(origin)
        previous = index.flatten()
    assert scores is not None
    best = (first[:, 0] + total.argmax(1)).flatten()
    return Decoded(indices[best], scores[best], total.flatten()[best])


def reorder_all(past: list[KeysAndValues], rows: Tensor) -> None:
    for layer in past:
        layer.reorder(rows)
