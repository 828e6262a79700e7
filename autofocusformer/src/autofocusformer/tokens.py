"""The points of each stage as plain arrays: what others draw, count or build upon."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from shared.errors import UserError
from torch import Tensor

from autofocusformer.backbone import LEVELS, PATCH, Backbone
from autofocusformer.sampling import grid_prior, on_grid
from autofocusformer.variants import STRIDES


class Tokens(NamedTuple):
    """Points of one stage of one image.

    Attributes:
        name: res2 to res5.
        positions: (x, y) on the canvas, in the order of the features.
        pixels: (x, y) of the middle of each point's 4 x 4 pixels in the padded image.
        importance: s in (0, 1); NaN at the last stage, which chooses none.
        features: as the network's levels have them.
        prior: whether the point lies on the grid prior that the end of this stage adds to the score; False at the last.
        reserved: whether the end of this stage keeps the point in any case; False at the last.
        canvas: (h, w).
    """

    name: str
    positions: Int[np.ndarray, "n 2"]
    pixels: Float[np.ndarray, "n 2"]
    importance: Float[np.ndarray, " n"]
    features: Float[np.ndarray, "n c"]
    prior: Bool[np.ndarray, " n"]
    reserved: Bool[np.ndarray, " n"]
    canvas: tuple[int, int]


def _array(x: Tensor) -> np.ndarray:
    x = x.detach().cpu()
    return (x.float() if x.is_floating_point() else x).numpy()


@torch.no_grad()
def export_tokens(
    model: Backbone,
    images: Float[Tensor, "batch channels height width"],
    oracle: Float[Tensor, "batch h w"] | None = None,
) -> list[list[Tokens]]:
    """Of each image the points of its four stages, by a network in evaluation.

    Args:
        model: a classifier or a pyramid; left in the mode (training or evaluation) that it was in.
        images: normalised as the network was trained.
        oracle: as for the network.
    """
    training = model.training
    model.eval()
    try:
        levels = model.stages(images, oracle)
    finally:
        model.train(training)
    out: list[list[Tokens]] = [[] for _ in range(len(images))]
    for i, level in enumerate(levels):
        n = level.positions.shape[1]
        prior = reserved = torch.zeros(len(images), n, dtype=torch.bool)
        importance = torch.full((len(images), n), torch.nan)
        if level.importance is not None:
            stride = STRIDES[i]
            importance = level.importance
            prior, reserved = grid_prior(level.positions, stride, level.canvas), on_grid(level.positions, 2 * stride)
        for j in range(len(images)):
            positions = _array(level.positions[j])
            out[j].append(
                Tokens(
                    LEVELS[i],
                    positions,
                    positions * float(PATCH) + (PATCH - 1) / 2,
                    _array(importance[j]),
                    _array(level.features[j]),
                    _array(prior[j]),
                    _array(reserved[j]),
                    level.canvas,
                )
            )
    return out


def save_tokens(path: str | Path, tokens: list[Tokens], features: bool = True) -> None:
    """One image's points as an .npz: `res2_positions`, `res2_importance` and so on, and `canvas`.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder: make it first, {path.name} is to be written there")
    arrays: dict[str, np.ndarray] = {"canvas": np.array(tokens[0].canvas)}
    for level in tokens:
        for field in ("positions", "pixels", "importance", "prior", "reserved", *(["features"] if features else [])):
            arrays[f"{level.name}_{field}"] = getattr(level, field)
    try:
        file = path.open("wb")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another place") from None
    with file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
