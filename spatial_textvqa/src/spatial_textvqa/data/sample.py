"""One question about one image, as every data set gives it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32


def no_boxes() -> Float32[np.ndarray, "0 4"]:
    return np.zeros((0, 4), dtype=np.float32)


@dataclass
class Sample:
    """A question, and what was found in its image.

    Attributes:
        sample_id, image_id: questions about one image share its graph.
        answers: usually ten; none in a test split.
        ocr_boxes, obj_boxes: (x_min, y_min, x_max, y_max) over the image's width and height, y down.
        obj_features, ocr_features: of a detector; None: there are none (zeros).
        obj_names: what the objects are, where that is known (for pictures only).
        kind: type of the question, where there are types.
        reference, target: objects that the question names and asks for (-1: not known).
        target_ocr: OCR tokens of the answer, in reading order.
        mismatch: `fewer` or `more`: its image has fewer or more feature rows than OCR tokens; both were cut.
        flipped: the question with its spatial word turned round, and its answer, if it has one.
    """

    sample_id: str
    image_id: str
    question: str
    answers: list[str] = field(default_factory=list)
    ocr_tokens: list[str] = field(default_factory=list)
    ocr_boxes: Float32[np.ndarray, "t 4"] = field(default_factory=no_boxes)
    obj_boxes: Float32[np.ndarray, "k 4"] = field(default_factory=no_boxes)
    obj_features: Float32[np.ndarray, "k width"] | None = None
    ocr_features: Float32[np.ndarray, "t width"] | None = None
    obj_names: list[str] = field(default_factory=list)
    image_size: tuple[int, int] = (1000, 1000)
    kind: str = ""
    reference: int = -1
    target: int = -1
    target_ocr: tuple[int, ...] = ()
    mismatch: str = ""
    flipped: tuple[str, str] | None = None
