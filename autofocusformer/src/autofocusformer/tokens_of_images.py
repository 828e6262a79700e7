"""What tokens of the stride-4 canvas see of an image and its labels: majority labels, gradients, edges, ranks.

Pure numpy; used by the oracle mode, by coverage, and by the training-free experiment (`sampling_limited`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64, UInt8

STRIDE = 4
IGNORE = 255


def pad_to_multiple(array: np.ndarray, multiple: int, value: int) -> np.ndarray:
    """`array` [h, w, ...] padded on the right and at the bottom to multiples of `multiple`."""
    h, w = array.shape[:2]
    more = [(0, -h % multiple), (0, -w % multiple)] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, more, constant_values=value)


def blocks(array: np.ndarray) -> np.ndarray:
    """[4h, 4w] as [h, w, 16]."""
    h, w = array.shape[0] // STRIDE, array.shape[1] // STRIDE
    return array.reshape(h, STRIDE, w, STRIDE).swapaxes(1, 2).reshape(h, w, STRIDE * STRIDE)


def token_labels(labels: UInt8[np.ndarray, "h4 w4"], classes: int) -> Int64[np.ndarray, "h w"]:
    """Label of most of a token's 4 x 4 pixels: ties to the lower class, 255 has no vote but where there is no other."""
    pixels = blocks(pad_to_multiple(labels, STRIDE, IGNORE))
    h, w = pixels.shape[:2]
    cells = np.arange(h * w).reshape(h, w, 1) * classes + pixels
    counts = np.bincount(cells[pixels < classes], minlength=h * w * classes).reshape(h, w, classes)
    return np.where(counts.any(-1), counts.argmax(-1), IGNORE)


def gradient_magnitude(image: UInt8[np.ndarray, "h4 w4 3"]) -> Float[np.ndarray, "h w"]:
    """Mean length of the grey image's gradient over a token's pixels (central differences, in grey levels a pixel)."""
    h, w = image.shape[:2]
    grey = np.pad(image.astype(np.float64).mean(-1), ((0, -h % STRIDE), (0, -w % STRIDE)), mode="edge")
    return blocks(np.hypot(*np.gradient(grey))).mean(-1)


def label_edges(labels: UInt8[np.ndarray, "h4 w4"]) -> Float[np.ndarray, "h w"]:
    """Part of a token's pixels with a pixel of another class on one of their four sides (255 is no class)."""
    padded = pad_to_multiple(labels, STRIDE, IGNORE)
    edge = np.zeros(padded.shape, dtype=bool)
    for axis in (0, 1):
        one, two = padded.take(range(padded.shape[axis] - 1), axis), padded.take(range(1, padded.shape[axis]), axis)
        differs = (one != two) & (one != IGNORE) & (two != IGNORE)
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        edge[tuple(before)] |= differs
        edge[tuple(after)] |= differs
    return blocks(edge).mean(-1)


def rank(values: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Rank among all values over their number, in [0, 1); equal values share their mean rank."""
    from scipy.stats import rankdata

    flat = np.asarray(values, dtype=np.float64).round(9).ravel()
    return ((rankdata(flat, method="average") - 1) / flat.size).reshape(np.shape(values))


def object_tokens(labels: UInt8[np.ndarray, "h4 w4"], classes: int, small: tuple[int, ...]) -> np.ndarray:
    """Tokens whose majority label is a small class: bool [h, w]."""
    return np.isin(token_labels(labels, classes), small)
