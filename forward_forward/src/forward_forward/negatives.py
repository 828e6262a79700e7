"""Wrong labels for negative pairs (section 2.4). Each rule maps one uniform draw per sample to a label."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Negatives = Literal["uniform", "hard", "permute"]


def uniform_negatives(labels: Int[Tensor, " n"], u: Float[Tensor, " n"], classes: int) -> Int[Tensor, " n"]:
    """`(y + U{1..C-1}) mod C`: uniform over the wrong labels, never the true one."""
    shift = 1 + (u * (classes - 1)).long().clamp_(max=classes - 2)
    return (labels + shift) % classes


def hard_negatives(
    head_logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], u: Float[Tensor, " n"]
) -> Int[Tensor, " n"]:
    """Hinton's scheme: drawn from the softmax head with the true class masked out (inverse of the distribution)."""
    masked = head_logits.scatter(1, labels[:, None], -torch.inf)
    cumulative = masked.double().softmax(1).cumsum(1)
    # u * total < total, so the count never reaches a class of probability zero at the end of the row.
    drawn = (cumulative <= (u.double() * cumulative[:, -1])[:, None]).sum(1)
    wrong_but_last = torch.where(labels == masked.shape[1] - 1, masked.shape[1] - 2, masked.shape[1] - 1)
    return torch.minimum(drawn, wrong_but_last)


def permuted_negatives(labels: Int[Tensor, " n"], u: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Labels permuted within the batch (a public baseline): about 1/C of these "negatives" are true labels."""
    return labels[u.argsort()]
