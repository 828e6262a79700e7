"""The registered operator of DiffAugment: a policy's map, its linear part, and the adjoint of that.

Kept apart from `triton.py` so that a machine without Triton has it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .reference import Draws, _given

USES = {
    "color": ("brightness_u", "saturation_u", "contrast_u"),
    "translation": ("shift_h", "shift_w"),
    "cutout": ("offset_h", "offset_w"),
}
# What the gradient of each is.
GRADIENT = {"map": "adjoint", "linear": "adjoint", "adjoint": "linear"}


def augment(x: Tensor, names: Sequence[str], draws: Draws) -> Tensor:
    """`names` applied to x by the kernel; draws that they do not use are left out."""
    used = [field for name in names for field in USES[name]]
    values = [_given(getattr(draws, field), field) if field in used else None for field in Draws._fields]
    return diffaugment(x, *values, ",".join(names), "map")


@torch.library.custom_op("diggan::diffaugment", mutates_args=())
def diffaugment(
    x: Tensor,
    brightness_u: Tensor | None,
    saturation_u: Tensor | None,
    contrast_u: Tensor | None,
    shift_h: Tensor | None,
    shift_w: Tensor | None,
    offset_h: Tensor | None,
    offset_w: Tensor | None,
    policy: str,
    part: str,
) -> Tensor:
    """One launch of a policy's `map`, of its `linear` part or of the `adjoint` of that."""
    from . import triton

    draws = Draws(brightness_u, saturation_u, contrast_u, shift_h, shift_w, offset_h, offset_w)
    return triton.launch_diffaugment(x, draws, policy, part)


@diffaugment.register_fake
def _(x: Tensor, *args: Any) -> Tensor:
    return x.new_empty(x.shape)


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *draws, ctx.policy, ctx.part = inputs
    ctx.save_for_backward(*draws)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return diffaugment(grad, *ctx.saved_tensors, ctx.policy, GRADIENT[ctx.part]), *[None] * 9


diffaugment.register_autograd(backward, setup_context=save)
