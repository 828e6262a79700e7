"""DiffAugment in plain PyTorch: the definition (section 6; Zhao et al. 2020).

color         brightness x + (u - 1/2); saturation (x - m_c) 2u + m_c with m_c the channels' mean of a pixel; contrast
              (x - m) (u + 1/2) + m with m the image's mean; in this order, u in [0, 1) drawn for each
translation   out[h, w] = x[h + t_h, w + t_w], zero outside; |t| <= int(size / 8 + 1/2) for each axis
cutout        a hole of c = int(size / 2 + 1/2) rows and columns about an offset; rows beyond the border are clamped to
              it, so that a hole outside still covers the edge line

Every map is affine in x, so a gradient of a gradient is that of the linear part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from shared.errors import UserError
from torch import Tensor

SHIFT, HOLE = 0.125, 0.5  # of the image's side


class UnknownPolicy(UserError, ValueError):
    """A policy with a name in it that does not exist."""


class Draws(NamedTuple):
    """What is random, one number for each image. The first three are uniform in [0, 1), the others whole numbers."""

    brightness_u: Tensor | None = None
    saturation_u: Tensor | None = None
    contrast_u: Tensor | None = None
    shift_h: Tensor | None = None
    shift_w: Tensor | None = None
    offset_h: Tensor | None = None
    offset_w: Tensor | None = None


def parse_policy(policy: str) -> list[str]:
    """The operations of a policy, in order.

    Raises:
        UnknownPolicy (a ValueError): a name that does not exist.
    """
    names = [name.strip() for name in policy.split(",") if name.strip()]
    for name in names:
        if name not in OPERATIONS:
            raise UnknownPolicy(
                f"unknown augmentation {name!r} in policy {policy!r}: there are {', '.join(OPERATIONS)}"
            )
    return names


def largest_shift(size: int) -> int:
    return int(size * SHIFT + 0.5)


def hole(size: int) -> int:
    return int(size * HOLE + 0.5)


def draw(policy: str, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
    """What `policy` needs for n images of this size, on the generator's device, in the order of the policy.

    Raises:
        UnknownPolicy (a ValueError): a name that does not exist.
    """
    device = generator.device
    drawn: dict[str, Tensor] = {}

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (n,), generator=generator, device=device)

    for name in parse_policy(policy):
        if name == "color":
            for part in ("brightness_u", "saturation_u", "contrast_u"):
                drawn[part] = torch.rand(n, generator=generator, device=device)
        elif name == "translation":
            for part, size in (("shift_h", height), ("shift_w", width)):
                drawn[part] = whole(-largest_shift(size), largest_shift(size) + 1)
        else:
            for part, size in (("offset_h", height), ("offset_w", width)):
                drawn[part] = whole(0, size + 1 - hole(size) % 2)
    return Draws(**drawn)


def fused_diffaugment(x: Tensor, policy: str, draws: Draws) -> Tensor:
    for name in parse_policy(policy):
        x = OPERATIONS[name](x, draws)
    return x


def color(x: Tensor, draws: Draws) -> Tensor:
    brightness, saturation, contrast = (
        _given(u, name).to(x).view(-1, 1, 1, 1) for u, name in zip(draws[:3], Draws._fields[:3])
    )
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def translation(x: Tensor, draws: Draws) -> Tensor:
    height, width = x.shape[-2:]
    rows, inside_h = _moved(_given(draws.shift_h, "shift_h"), height)
    columns, inside_w = _moved(_given(draws.shift_w, "shift_w"), width)
    place = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    inside = (inside_h[:, :, None] & inside_w[:, None, :])[:, None]
    moved = x.flatten(2).gather(2, place[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return moved * inside.to(x)


def _moved(shift: Tensor, size: int) -> tuple[Tensor, Tensor]:
    place = torch.arange(size, device=shift.device) + shift[:, None]
    return place.clamp(0, size - 1), (place >= 0) & (place < size)


def cutout(x: Tensor, draws: Draws) -> Tensor:
    height, width = x.shape[-2:]
    rows = _in_hole(_given(draws.offset_h, "offset_h"), height)
    columns = _in_hole(_given(draws.offset_w, "offset_w"), width)
    keep = ~(rows[:, :, None] & columns[:, None, :])
    return x * keep[:, None].to(x)


def _in_hole(offset: Tensor, size: int) -> Tensor:
    """Which of `size` rows lie in the hole [n, size]: rows clamp(k + offset - c // 2), k = 0 ... c - 1."""
    first = offset[:, None] - hole(size) // 2
    last = first + hole(size) - 1
    place = torch.arange(size, device=offset.device)
    return (place >= first.clamp(0, size - 1)) & (place <= last.clamp(0, size - 1))


def _given(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(f"draws.{name} is missing: draw for this policy")
    return value


OPERATIONS: dict[str, Callable[[Tensor, Draws], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}
