"""Which points are kept (AutoFocusFormer, "adaptive downsampling").

score = grid prior + alpha * importance; points of the next-but-one grid are reserved; the best of the others fill up
to n' = floor(n * rate). Everything is integer arithmetic on positions (x, y) but the importance itself.

The stage's stride S is 2, 4, 8 at the ends of stages 1, 2, 3.
"""

from __future__ import annotations

import logging
import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from shared.errors import UserError
from torch import Tensor

from autofocusformer.clustering import Canvas

Mode = Literal["adaptive", "grid", "random", "oracle"]
log = logging.getLogger(__name__)

RESERVED = -100.0  # added to the score of reserved points, which are kept anyway


class Budget(NamedTuple):
    """How many points a stage keeps, and how many of them are reserved; `asked` is floor(n * rate)."""

    kept: int
    reserved: int
    asked: int


def check_sampling(rate: float, alpha: float, mode: str) -> None:
    """Raises UserError for settings that no stage can work with."""
    if not 0 < rate <= 1:
        raise UserError(f"rate is {rate}: the share of points kept must be above 0 and at most 1 (usually 0.25 or 0.2)")
    if not alpha >= 0 or math.isinf(alpha):
        raise UserError(f"alpha is {alpha}: the weight of the importance must be at least 0 (the paper's is 4)")
    if mode not in get_args(Mode):
        raise UserError(f"unknown sampling {mode!r}: choose among {', '.join(get_args(Mode))}")


def on_grid(positions: Int[Tensor, "*n 2"], spacing: int) -> Bool[Tensor, "*n"]:
    """Whether x and y are both multiples of `spacing`."""
    return (positions % spacing == 0).all(-1)


def grid_size(canvas: Canvas, spacing: int) -> int:
    """Number of canvas positions whose x and y are multiples of `spacing`."""
    return math.ceil(canvas[0] / spacing) * math.ceil(canvas[1] / spacing)


def budget(n: int, canvas: Canvas, stride: int, rate: float, mode: Mode = "adaptive") -> Budget:
    """Points kept of n. In `adaptive` and `oracle` mode never fewer than are reserved, in any mode at least one."""
    asked = math.floor(n * rate)
    if mode == "grid":
        size = grid_size(canvas, stride)
        return Budget(size, 0, size)
    if mode == "random":
        return Budget(max(1, asked), 0, asked)
    reserved = grid_size(canvas, 2 * stride)
    return Budget(max(asked, reserved), reserved, asked)


def _disc(radius: int, device: torch.device) -> Float[Tensor, "side side"]:
    """1 at offsets of length at most `radius`, but 0 in the middle: the other points that are that near."""
    axis = torch.arange(-radius, radius + 1, device=device)
    disc = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).float()
    disc[radius, radius] = 0
    return disc


def local_spacing(
    positions: Int[Tensor, "batch n 2"], canvas: Canvas, grid: int | None = None
) -> Int[Tensor, "batch n"]:
    """t = 2^(ceil(log2 delta) + 1), delta the distance to the nearest other point: the next coarser grid around here.

    The exponent is the least e with another point within 2^e, found by growing discs over the occupied cells: exact,
    and no table of all pairs. A point alone on its canvas has the spacing of a canvas that holds nothing else.

    Args:
        grid: all its multiples are among the positions. The farthest from another point is then a corner beyond the
            last multiples, less than sqrt(2) grid away: discs of more than 2 grid find nothing, and are left out.
    """
    h, w = canvas
    batch, _, _ = positions.shape
    x, y = positions.unbind(-1)
    cell = y * w + x
    occupied = torch.zeros(batch, h * w, device=positions.device).scatter_(1, cell, 1.0).view(batch, 1, h, w)
    widest = max(h, w, 1).bit_length() + 1  # 2^widest exceeds the diagonal
    spacing = torch.full_like(cell, 2 ** (widest + 1))
    open_points = torch.ones_like(cell, dtype=torch.bool)
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # a program must not depend on its first image
    for e in range(widest if grid is None else min(widest, grid.bit_length() + 1)):
        radius = 2**e
        with torch.autocast(positions.device.type, enabled=False):
            near = torch.nn.functional.conv2d(occupied, _disc(radius, positions.device)[None, None], padding=radius)
        found = (near.view(batch, h * w).gather(1, cell) > 0.5) & open_points
        spacing = torch.where(found, 2 * radius, spacing)
        open_points = open_points & ~found
        if not traced and not open_points.any():  # further discs would change nothing
            break
    return spacing


def grid_prior(
    positions: Int[Tensor, "batch n 2"], stride: int, canvas: Canvas, grid: int | None = None
) -> Bool[Tensor, "batch n"]:
    """g: whether a point lies on the next coarser grid; everywhere the same at S = 2, after that the local one.

    `grid` as for `local_spacing`; None where points may be anywhere, as after random sampling.
    """
    if stride == 2:
        return on_grid(positions, 2)
    return (positions % local_spacing(positions, canvas, grid)[..., None] == 0).all(-1)


def score(
    importance: Float[Tensor, "batch n"],
    positions: Int[Tensor, "batch n 2"],
    stride: int,
    alpha: float,
    canvas: Canvas,
    grid: int | None = None,
) -> Float[Tensor, "batch n"]:
    """g + alpha * stopgrad(s), and -100 for the reserved: no gradient reaches the importance by way of the choice."""
    prior = grid_prior(positions, stride, canvas, grid).to(importance.dtype)
    return prior + alpha * importance.detach() + RESERVED * on_grid(positions, 2 * stride).to(importance.dtype)


def _first(chosen: Bool[Tensor, "batch n"], count: int) -> Int[Tensor, "batch count"]:
    """Rows of the first `count` chosen points, in ascending order."""
    return (~chosen).long().argsort(dim=1, stable=True)[:, :count]


def keep(
    importance: Float[Tensor, "batch n"],
    positions: Int[Tensor, "batch n 2"],
    stride: int,
    canvas: Canvas,
    rate: float = 0.25,
    alpha: float = 4.0,
    mode: Mode = "adaptive",
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch kept"]:
    """Rows of the points that a stage keeps.

    adaptive: the best by score, rows ascending, then the reserved, rows ascending; equal scores: the lower row first.
    oracle: the same; the caller gives the true importance. grid: the multiples of the stride, whatever the rate.
    random: floor(n * rate) points uniformly, from `generator` or PyTorch's global numbers.

    Args:
        importance: s in [0, 1], fp32: in half precision distinct importances would tie.
        positions: in any order; but in `random` mode they contain the multiples of the stride, as earlier stages keep
            them.
    """
    batch, n, _ = positions.shape
    kept, reserved, _ = budget(n, canvas, stride, rate, mode)
    if mode == "grid":
        return _first(on_grid(positions, stride), kept)
    if mode == "random":
        draw = torch.rand(batch, n, device=positions.device, generator=generator)
        return draw.argsort(dim=1)[:, :kept].sort(dim=1).values
    held = on_grid(positions, 2 * stride)
    # -100 is not below every other score where alpha is large
    scores = score(importance, positions, stride, alpha, canvas, grid=stride).masked_fill(held, -math.inf)
    sampled = scores.argsort(dim=1, descending=True, stable=True)[:, : kept - reserved].sort(dim=1).values
    return torch.cat([sampled, _first(held, reserved)], 1)


def importance_at(oracle: Float[Tensor, "batch h w"], positions: Int[Tensor, "batch n 2"]) -> Float[Tensor, "batch n"]:
    """The given importance (in [0, 1], on the canvas) at the points."""
    x, y = positions.unbind(-1)
    return oracle.flatten(1).gather(1, y * oracle.shape[2] + x)
