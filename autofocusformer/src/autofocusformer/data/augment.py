"""Augmentation of the recipes (section 6), by kornia where it has it. All randomness is torch's global generator.

What kornia lacks: RandAugment's random magnitude (std 0.5), operations that are left out half of the time and colours
that are weakened as well (kornia applies both of the drawn operations, and here strengthens), and random erasing by
noise (it fills with a constant; here the mean colour).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = 255
WHOLE = slice(None)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# RandAugment's operations, from the least to the largest magnitude. The recipe's m9 is of a scale of 0 to 10, kornia's
# scale ends at 30: m = 27. The ranges are such that an operation then is as strong as the recipe's increasing m9.
MAGNITUDE = 27
SHEAR = math.atan(0.3) / math.pi  # of 180 degrees
OPERATIONS = [
    [("auto_contrast", 0, 1)],
    [("equalize", 0, 1)],
    [("invert", 0, 1)],
    [("rotate", -30.0, 30.0)],  # degrees
    [("posterize", 1.0, 4.0)],  # bits; fewer with m: 1 is left
    [("solarize", 0.0, 1 / 9)],  # inverted above: 0.1
    [("solarize_add", 0.0, 0.43)],
    *([(name, 1.0, 1.9)] for name in ("color", "contrast", "brightness", "sharpness")),
    *([(name, -SHEAR, SHEAR)] for name in ("shear_x", "shear_y")),
    *([(name, -0.45, 0.45)] for name in ("translate_x", "translate_y")),  # of the side
]


def normalise(images: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Images in [0, 1] by ImageNet's mean and deviation."""
    return (images - images.new_tensor(MEAN)[:, None, None]) / images.new_tensor(STD)[:, None, None]


def denormalise(images: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    return (images * images.new_tensor(STD)[:, None, None] + images.new_tensor(MEAN)[:, None, None]).clamp(0, 1)


@dataclass
class Labelled:
    """An image in [0, 1] with the labels of its pixels, and masks of its instances where there are some."""

    image: Float[Tensor, "3 h w"]
    labels: Int64[Tensor, "h w"]
    masks: Bool[Tensor, "n h w"] | None = None


def nearest_rows(before: int, after: int, part: slice) -> Int64[Tensor, " rows"]:
    """Which of `before` pixels is nearest to each of a part of the `after` that they become."""
    return (2 * torch.arange(after)[part] + 1) * before // (2 * after)


def resized(sample: Labelled, h: int, w: int, rows: slice = WHOLE, columns: slice = WHOLE) -> Labelled:
    """Bilinear for the image (smoothed where it shrinks), the nearest pixel for labels and masks.

    Args:
        rows, columns: the part of the h x w pixels that is wanted: masks are never made larger than that.
    """
    if sample.labels.shape == (h, w):
        return cropped(sample, rows, columns)
    image = F.interpolate(sample.image[None], (h, w), mode="bilinear", antialias=True)[0].clamp(0, 1)
    before = sample.labels.shape
    y, x = nearest_rows(before[0], h, rows), nearest_rows(before[1], w, columns)
    masks = None if sample.masks is None else sample.masks[:, y][:, :, x]
    return Labelled(image[:, rows, columns], sample.labels[y][:, x], masks)


def padded(sample: Labelled, h: int, w: int) -> Labelled:
    """At the right and at the bottom up to h x w: mean colour, ignored labels, no instance."""
    more = (0, max(0, w - sample.labels.shape[1]), 0, max(0, h - sample.labels.shape[0]))
    if not any(more):
        return sample
    mean = sample.image.new_tensor(MEAN)[:, None, None]
    masks = None if sample.masks is None else F.pad(sample.masks, more)
    return Labelled(F.pad(sample.image - mean, more) + mean, F.pad(sample.labels, more, value=IGNORE), masks)


def cropped(sample: Labelled, rows: slice, columns: slice) -> Labelled:
    masks = None if sample.masks is None else sample.masks[:, rows, columns]
    return Labelled(sample.image[:, rows, columns], sample.labels[rows, columns], masks)


def flipped(sample: Labelled) -> Labelled:
    return Labelled(
        sample.image.flip(-1), sample.labels.flip(-1), None if sample.masks is None else sample.masks.flip(-1)
    )


def uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


class SceneAugmentation:
    """Random scale and crop, mirror, colours: for segmentation.

    Args:
        crop: (h, w) of what comes out; padded where the image is smaller.
        scale: least and largest scale; of the short or long side in units of `short_side` or `long_side`, of the image
            where both are None.
        short_side, long_side: in pixels; one of them at most. Large scale jitter is by the long side: at a scale of 1
            the whole image is in a square crop.
        flip: mirror half of the images.
        colour: strength of kornia's colour jitter; 1: brightness 1/8, contrast and saturation 1/2, hue 1/20.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        scale: tuple[float, float] = (1.0, 1.0),
        short_side: int | None = None,
        long_side: int | None = None,
        flip: bool = True,
        colour: float = 0.0,
    ) -> None:
        self.crop, self.scale, self.flip = crop, scale, flip
        self.short_side, self.long_side = short_side, long_side
        self.jitter: Any = None
        if colour:
            from kornia.augmentation import ColorJitter

            self.jitter = ColorJitter(0.125 * colour, 0.5 * colour, 0.5 * colour, 0.05 * colour, p=0.8)

    def __call__(self, sample: Labelled) -> Labelled:
        h, w = sample.labels.shape
        factor = uniform(*self.scale)
        if self.short_side:
            factor *= self.short_side / min(h, w)
        if self.long_side:
            factor *= self.long_side / max(h, w)
        h, w = max(1, round(h * factor)), max(1, round(w * factor))
        top = int(uniform(0, max(0, h - self.crop[0]) + 0.999))
        left = int(uniform(0, max(0, w - self.crop[1]) + 0.999))
        rows, columns = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
        sample = padded(resized(sample, h, w, rows, columns), *self.crop)
        if self.flip and torch.rand(()) < 0.5:
            sample = flipped(sample)
        if self.jitter is not None:
            sample.image = self.jitter(sample.image[None])[0]
        return sample


def imagenet_training(size: int) -> nn.Module:
    """Random resized crop, mirror, RandAugment (2 operations, m9), colour jitter 0.4, normalising, erasing 0.25."""
    from kornia.augmentation import (
        AugmentationSequential,
        ColorJitter,
        Normalize,
        RandomErasing,
        RandomHorizontalFlip,
        RandomResizedCrop,
    )
    from kornia.augmentation.auto import RandAugment

    class SmoothedCrop(RandomResizedCrop):
        """kornia's choice of a crop, but smoothed where it shrinks, as test images are: kornia's own takes points."""

        def apply_transform(self, input: Tensor, params: Any, flags: Any, transform: Any = None) -> Tensor:
            out = []
            for image, corners in zip(input, params["src"].long()):
                (left, top), (right, bottom) = corners.amin(0).tolist(), corners.amax(0).tolist()  # both inside
                part = image[None, :, top : bottom + 1, left : right + 1]
                out.append(F.interpolate(part, flags["size"], mode="bicubic", antialias=True).clamp(0, 1))
            return torch.cat(out)

    return AugmentationSequential(
        SmoothedCrop((size, size), scale=(0.08, 1.0), cropping_mode="slice"),
        RandomHorizontalFlip(p=0.5),
        RandAugment(n=2, m=MAGNITUDE, policy=OPERATIONS),  # type: ignore[arg-type]
        ColorJitter(0.4, 0.4, 0.4, p=1.0),
        Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        RandomErasing(p=0.25, scale=(0.02, 1 / 3), ratio=(0.3, 3.3), value=0.0),
        data_keys=["input"],
        same_on_batch=False,
    )


def centre(image: Float[Tensor, "3 h w"], size: int, resize: int | None) -> Float[Tensor, "3 s s"]:
    """The test image: short side to `resize` (bicubic), then the middle `size` x `size`; None: all of it, squeezed."""
    h, w = image.shape[1:]
    factor = (resize or size) / min(h, w)
    target = (max(size, round(h * factor)), max(size, round(w * factor))) if resize else (size, size)
    if (h, w) != target:
        image = F.interpolate(image[None], target, mode="bicubic", antialias=True)[0].clamp(0, 1)
    top, left = (image.shape[1] - size) // 2, (image.shape[2] - size) // 2
    return image[:, top : top + size, left : left + size]


def one_hot(labels: Int64[Tensor, " b"], classes: int, smoothing: float = 0.0) -> Float[Tensor, "b classes"]:
    """Targets; `smoothing` is shared among all classes."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


class Mix(nn.Module):
    """Mixup (Beta 0.8) or cutmix (Beta 1), either half of the time, by kornia; targets are mixed alike.

    Args:
        classes: number of them.
        smoothing: of labels.
    """

    def __init__(self, classes: int, smoothing: float = 0.1) -> None:
        super().__init__()
        from kornia.augmentation import RandomCutMixV2

        self.classes, self.smoothing = classes, smoothing
        self.cutmix = RandomCutMixV2(p=1.0, num_mix=1, beta=1.0, data_keys=["input", "class"])

    def forward(
        self, images: Float[Tensor, "b 3 h w"], labels: Int64[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b classes"]]:
        own = one_hot(labels, self.classes, self.smoothing)
        if torch.rand(()) < 0.5:  # mixup; kornia's draws a uniform weight, not one from Beta(0.8, 0.8)
            weight = torch.distributions.Beta(0.8, 0.8).sample().to(images)
            order = torch.randperm(len(images), device=images.device)
            return weight * images + (1 - weight) * images[order], weight * own + (1 - weight) * own[order]
        mixed, pairs = self.cutmix(images, labels)  # pairs: [1, b, (label, other label, share of the other)]
        _, second, share = pairs[0].unbind(-1)
        other = one_hot(second.long(), self.classes, self.smoothing)
        return mixed, own * (1 - share[:, None]) + other * share[:, None]
