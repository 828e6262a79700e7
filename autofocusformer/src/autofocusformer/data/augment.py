"""Augmentation of the recipes (section 6), by kornia where it has it. All randomness is torch's global generator.

What kornia lacks: RandAugment's random magnitude (std 0.5) and increasing variants (kornia draws a bin of magnitudes
up to m), and random erasing by noise (it fills with a constant; here the mean colour).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


def resized(sample: Labelled, h: int, w: int) -> Labelled:
    """Bilinear for the image (smoothed where it shrinks), the nearest pixel for labels and masks."""
    if sample.labels.shape == (h, w):
        return sample
    image = F.interpolate(sample.image[None], (h, w), mode="bilinear", antialias=True)[0].clamp(0, 1)
    masks = sample.masks
    if masks is not None:
        found = F.interpolate(masks[None].float(), (h, w), mode="nearest-exact")[0].bool() if len(masks) else None
        masks = masks.new_zeros(0, h, w) if found is None else found  # a picture without any instance
    labels = F.interpolate(sample.labels[None, None].float(), (h, w), mode="nearest-exact")[0, 0].long()
    return Labelled(image, labels, masks)


def padded(sample: Labelled, h: int, w: int) -> Labelled:
    """At the right and at the bottom up to h x w: mean colour, ignored labels, no instance."""
    more = (0, max(0, w - sample.labels.shape[1]), 0, max(0, h - sample.labels.shape[0]))
    if not any(more):
        return sample
    mean = sample.image.new_tensor(MEAN)[:, None, None]
    masks = None if sample.masks is None else F.pad(sample.masks, more)
    return Labelled(F.pad(sample.image - mean, more) + mean, F.pad(sample.labels, more, value=IGNORE), masks)


def cropped(sample: Labelled, top: int, left: int, h: int, w: int) -> Labelled:
    rows, columns = slice(top, top + h), slice(left, left + w)
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
        scale: least and largest scale; of the short side in units of `short_side`, or of the image where that is None.
        short_side: in pixels.
        flip: mirror half of the images.
        colour: strength of kornia's colour jitter; 1: brightness 1/8, contrast and saturation 1/2, hue 1/20.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        scale: tuple[float, float] = (1.0, 1.0),
        short_side: int | None = None,
        flip: bool = True,
        colour: float = 0.0,
    ) -> None:
        self.crop, self.scale, self.short_side, self.flip = crop, scale, short_side, flip
        self.jitter: Any = None
        if colour:
            from kornia.augmentation import ColorJitter

            self.jitter = ColorJitter(0.125 * colour, 0.5 * colour, 0.5 * colour, 0.05 * colour, p=0.8)

    def __call__(self, sample: Labelled) -> Labelled:
        h, w = sample.labels.shape
        factor = uniform(*self.scale) * (self.short_side / min(h, w) if self.short_side else 1)
        sample = resized(sample, max(1, round(h * factor)), max(1, round(w * factor)))
        h, w = sample.labels.shape
        top = int(uniform(0, max(0, h - self.crop[0]) + 0.999))
        left = int(uniform(0, max(0, w - self.crop[1]) + 0.999))
        sample = padded(cropped(sample, top, left, *self.crop), *self.crop)
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

    return AugmentationSequential(
        RandomResizedCrop((size, size), scale=(0.08, 1.0), resample="bicubic", cropping_mode="resample"),
        RandomHorizontalFlip(p=0.5),
        RandAugment(n=2, m=9),  # type: ignore[arg-type]
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
