"""The label as part of the input (section 4.3 of the specification; Hinton 2022, section 3.3).

An input row is `[code (C entries) | image]`. The code is one-hot with a fixed strength, so that every label gives an
input of the same norm. `overwrite`: the code takes the place of the first C pixels; `prepend`: C new entries.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

LabelSlots = Literal["overwrite", "prepend"]


def image_part(images: Float[Tensor, "n pixels"], classes: int, slots: LabelSlots) -> Float[Tensor, "n d"]:
    """The part of flattened images that is not covered by the label code; the images are left as they are."""
    return images[:, classes:] if slots == "overwrite" else images


def label_code(labels: Int[Tensor, " n"], classes: int, strength: float, like: Tensor) -> Float[Tensor, "n c"]:
    """One-hot rows of height `strength`, in the dtype and on the device of `like`."""
    code = like.new_zeros(labels.shape[0], classes)
    return code.scatter_(1, labels[:, None], strength)


def neutral_code(rows: int, classes: int, strength: float, like: Tensor) -> Float[Tensor, "n c"]:
    """The code that names no label: every entry `strength / C`."""
    return like.new_full((rows, classes), strength / classes)


def overlay(
    images: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int, strength: float
) -> Float[Tensor, "n c_plus_d"]:
    """Network input for (image part, label) pairs; a new tensor."""
    return torch.cat([label_code(labels, classes, strength, images), images], dim=1)
