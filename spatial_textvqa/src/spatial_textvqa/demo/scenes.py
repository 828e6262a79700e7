"""Synthetic scenes to show: those whose question has another clear answer when its spatial word is flipped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from shared.errors import UserError

from spatial_textvqa.data.sample import Sample
from spatial_textvqa.data.scenes import RELATIONS, Settings, draw, features

SEED, FIRST = 0, 40_000_000  # no part of any run has its scenes there
AT_ONCE = 64


def flippable_scenes(
    count: int, feature_width: int, ocr_appearance: str = "none", objects: int = 6, seed: int = SEED
) -> list[Sample]:
    """So many scenes, always the same of one seed, with the features that a network of this width takes.

    Raises:
        UserError: an unknown `ocr_appearance`.
    """
    found: list[Sample] = []
    start = FIRST
    while len(found) < count:
        drawn = draw(Settings(objects=objects, kinds=RELATIONS), seed, range(start, start + AT_ONCE))
        rows = np.flatnonzero(drawn.flipped_target >= 0)
        if start > FIRST + 100 * AT_ONCE:
            raise UserError("hardly a scene of these settings has a question that can be flipped")
        drawn, start = drawn.take(rows), start + AT_ONCE
        of_objects, of_tokens = features(drawn, seed, feature_width, ocr_appearance)
        for i in range(len(drawn)):
            tokens = None if of_tokens is None else of_tokens[i]
            found.append(replace(drawn.sample(i), obj_features=of_objects[i], ocr_features=tokens))
    return found[:count]
