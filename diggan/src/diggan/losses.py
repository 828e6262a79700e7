"""Adversarial losses from logits [..., B]; means over the batch only (section 2)."""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

Adversarial = Literal["hinge", "nonsaturating"]


def check(kind: str) -> None:
    if kind not in get_args(Adversarial):
        raise UserError(f"unknown loss {kind!r}: there are {', '.join(get_args(Adversarial))}")


def d_losses(
    real: Float[Tensor, "*nets B"], fake: Float[Tensor, "*nets B"], kind: Adversarial = "hinge"
) -> tuple[Float[Tensor, "*nets"], Float[Tensor, "*nets"]]:
    """D's terms at reals and at fakes; its loss is their sum."""
    if kind == "hinge":
        return F.relu(1 - real).mean(-1), F.relu(1 + fake).mean(-1)
    return F.softplus(-real).mean(-1), F.softplus(fake).mean(-1)


def g_loss(fake: Float[Tensor, "*nets B"], kind: Adversarial = "hinge") -> Float[Tensor, "*nets"]:
    """G's loss; no regulariser is ever in it."""
    return -fake.mean(-1) if kind == "hinge" else F.softplus(-fake).mean(-1)
