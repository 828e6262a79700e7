"""Images as fields R^2 -> R or R^3, and digits on the sphere (section 4).

digits         scikit-learn's, 8 x 8, signal x/8 - 1; a fixed permutation, 1297 for training and 500 for testing
mnist, fashion 28 x 28, in the original IDX files (or another layout that `shared.data.images` reads)
cifar10        32 x 32 x 3, binary records; pickles are refused
image_folder   a folder of the user's images (CelebA-HQ): the largest square about the centre, resized by area (box)
sphere_digits  digits placed on the sphere at a random rotation each time, background -1

Pixel values in 0..1 are (signal + 1)/2. A training batch with `jitter` j moves every coordinate by up to j/2 pixels,
one draw for the batch, and reads the images there (bilinear; the edge pixels go on outside): the network then meets
coordinates off its grid. The test part is never moved.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from shared.data.images import fingerprint, load_images
from shared.data.root import DamagedData, MissingData, unreadable
from torch import Tensor

from ..errors import FieldError
from ..oracle import fibonacci_sphere
from .fields import (
    FieldBatch,
    FieldSet,
    Kind,
    Placement,
    Source,
    check_at_least,
    check_choice,
    pixel_grid,
    random_rotations,
)

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
Projection = Literal["gnomonic", "equirectangular"]


@dataclass(frozen=True)
class ImageSource(Source):
    """Images [n, s, h, w], resident as bytes 0..`peak`, on their pixel grid."""

    images: UInt8[Tensor, "n s h w"]
    labels: Int64[Tensor, " n"] | None
    coords: Float[Tensor, "hw 2"]
    peak: float
    corner: bool = False
    jitter: float = 0.0

    @property
    def size(self) -> int:
        return len(self.images)

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        index = index.to(self.images.device)
        images = self.images[index].float() * (2 / self.peak) - 1
        label = None if self.labels is None else self.labels[index]
        if not self.jitter:
            return FieldBatch(self.coords, images.flatten(2).transpose(1, 2).contiguous(), label)
        height, width = images.shape[-2:]
        edge = 1 if self.corner else 0
        pixel = torch.tensor([2 / (width - edge), 2 / (height - edge)], device=images.device)
        shift = torch.rand(self.coords.shape, generator=generator, device=generator.device).to(images.device) - 0.5
        coords = self.coords + self.jitter * pixel * shift
        signal = F.grid_sample(
            images,
            coords.expand(len(index), 1, -1, -1),
            padding_mode="border",
            align_corners=self.corner,
        )
        return FieldBatch(coords, signal[:, :, 0].transpose(1, 2).contiguous(), label)


@dataclass(frozen=True)
class SphereImageSource(Source):
    """Grey images [n, 1, h, w] placed on the sphere, each time at another rotation; -1 where there is no image.

    A point p of the grid is R^T p in the frame of the image, whose middle is at +z (gnomonic) or +x (equirectangular):
        gnomonic          u = x/(z tan a), v = y/(z tan a) where z > 0: straight lines stay straight
        equirectangular   u = longitude/a, v = -latitude/a
    with a half the image's `extent` in radians; u, v in [-1, 1] are the image's coordinates (x, y).
    """

    images: UInt8[Tensor, "n 1 h w"]
    labels: Int64[Tensor, " n"]
    coords: Float[Tensor, "points 3"]
    peak: float
    projection: Projection
    extent: float

    @property
    def size(self) -> int:
        return len(self.images)

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        index = index.to(self.images.device)
        return self.placed(index, random_rotations(len(index), generator).to(self.images.device))

    def placed(self, index: Int64[Tensor, " batch"], rotation: Float[Tensor, "batch 3 3"]) -> FieldBatch:
        """The images of these numbers at these rotations."""
        x, y, z = (self.coords @ rotation).unbind(-1)  # rows R^T p
        half = self.extent / 2
        if self.projection == "gnomonic":
            u, v = x / (z * np.tan(half)), y / (z * np.tan(half))
            outside = z <= 0
        else:
            u, v = torch.atan2(y, x) / half, -torch.asin(z.clamp(-1, 1)) / half
            outside = torch.zeros_like(z, dtype=torch.bool)
        # Zero is the background: the image fades into it over half a pixel at its border.
        light = self.images[index].float() * (2 / self.peak)
        grid = torch.stack([u, v], -1).nan_to_num(2.0, 2.0, 2.0).clamp(-2, 2)[:, None]
        signal = F.grid_sample(light, grid, padding_mode="zeros", align_corners=False)[:, 0, 0]
        signal = signal.masked_fill(outside, 0.0) - 1
        return FieldBatch(self.coords, signal[..., None], self.labels[index])


def digits(placement: Placement = "centre", jitter: float = 0.0, resolution: int | None = None) -> FieldSet:
    """scikit-learn's digits, 8 x 8 (or resized to `resolution`)."""
    return _loaded("digits", "digits", None, placement, jitter, resolution)


def mnist(
    root: Path | None = None, placement: Placement = "centre", jitter: float = 0.0, resolution: int | None = None
) -> FieldSet:
    """MNIST, 28 x 28 (or resized to `resolution`).

    Raises:
        MissingData, DamagedData (both `UserError`): the files are not there, or not what they should be.
    """
    return _loaded("mnist", "mnist", root, placement, jitter, resolution)


def fashion(
    root: Path | None = None, placement: Placement = "centre", jitter: float = 0.0, resolution: int | None = None
) -> FieldSet:
    """Fashion-MNIST, otherwise as `mnist`."""
    return _loaded("fashion", "fashion_mnist", root, placement, jitter, resolution)


def cifar10(
    root: Path | None = None, placement: Placement = "centre", jitter: float = 0.0, resolution: int | None = None
) -> FieldSet:
    """CIFAR-10, 32 x 32 in colour, otherwise as `mnist`."""
    return _loaded("cifar10", "cifar10", root, placement, jitter, resolution)


def image_folder(
    root: Path | None = None,
    resolution: int = 64,
    test_fraction: float = 0.1,
    placement: Placement = "centre",
    jitter: float = 0.0,
) -> FieldSet:
    """Every image under the folder `root`, in colour, without labels.

    Args:
        root: the folder itself, searched with its subfolders.
        resolution: side of the squares, in pixels.
        test_fraction: the part kept for testing: the last ones in the order of the SHA-256 of their paths.

    Raises:
        MissingData, DamagedData (both `UserError`): no folder, no image in it, or a damaged one.
        FieldError: a test fraction that leaves one of the parts empty.
    """
    if root is None:
        raise FieldError("image_folder needs `root`: the folder of your images")
    check_at_least("resolution", resolution, 1)
    images = read_folder(Path(root), resolution)
    train, test = split(len(images), test_fraction, f"image_folder {root}")
    detail = f"{len(images):,} images of the folder {Path(root).name}, {resolution} x {resolution} pixels"
    parts = (images[train], None, images[test], None)
    return _image_set("image_folder", "real", detail, fingerprint(images), parts, 255.0, None, placement, jitter)


def sphere_digits(projection: Projection = "gnomonic", points: int = 768, extent: float = 120.0) -> FieldSet:
    """scikit-learn's digits on the Fibonacci grid of the sphere, at a random rotation each time.

    Args:
        projection: `gnomonic` or `equirectangular`.
        points: N, of a field.
        extent: of an image on the sphere, in degrees.

    Raises:
        FieldError: an unknown projection, or an extent that does not fit the half sphere.
    """
    check_choice("projection", projection, ("gnomonic", "equirectangular"))
    check_at_least("points", points, 1)
    if not 0 < extent < 180:
        raise FieldError(f"extent is {extent!r}: it has to be between 0 and 180 degrees")
    data = load_images("digits")
    coords = torch.from_numpy(fibonacci_sphere(points)).float()
    train, test = (
        SphereImageSource(
            torch.from_numpy(images), torch.from_numpy(labels), coords, data.scale, projection, np.deg2rad(extent)
        )
        for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
    )
    return FieldSet(
        name="sphere_digits",
        kind=data.kind,
        detail=f"{data.detail}; placed on the sphere ({projection}, {extent:g} degrees) at random rotations",
        fingerprint=data.fingerprint,
        num_points=points,
        coord_dim=3,
        signal_dim=1,
        train=train,
        test=test,
        bounded=True,
        shared_coords=coords,
        num_classes=data.classes,
        scale=(0.5,),
        shift=(0.5,),
        unit="grey value, 0..1",
    )


def read_folder(folder: Path, side: int) -> UInt8[np.ndarray, "n 3 side side"]:
    """Every image under a folder as RGB: the largest square about its centre, resized by area (box).

    The order is that of the SHA-256 of the paths below `folder`, so that any first ones are a fair sample.

    Raises:
        MissingData, DamagedData (both `UserError`): no such folder, no image in it, or a damaged one.
        FieldError: the images do not fit into this machine's memory.
    """
    if not folder.is_dir():
        raise MissingData(f"{folder} is missing: a folder of images ({', '.join(SUFFIXES)}) is expected there")
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    if not files:
        raise MissingData(f"{folder} has no image in it: {', '.join(SUFFIXES)} are expected")
    files.sort(key=lambda file: hashlib.sha256(file.as_posix().encode()).digest())
    needed, memory = len(files) * 3 * side**2, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise FieldError(
            f"{folder}: {len(files)} images of {side} x {side} pixels are {needed / 1e9:.1f} GB, this machine has "
            f"{memory / 1e9:.1f} GB of memory: choose a smaller `resolution`"
        )
    return np.stack([_square(folder / file, side) for file in files])


def split(n: int, test_fraction: float, where: str) -> tuple[slice, slice]:
    """Training and test part of n fields: the last ones are for testing.

    Raises:
        FieldError: one of them would be empty.
    """
    test = round(n * test_fraction)
    if not 0 < test < n:
        raise FieldError(f"{where}: test_fraction {test_fraction!r} of {n} fields leaves no field for one of the parts")
    return slice(0, n - test), slice(n - test, n)


def _square(path: Path, side: int) -> UInt8[np.ndarray, "3 side side"]:
    import PIL.Image

    try:
        with PIL.Image.open(path) as opened:
            image: Image = opened.convert("RGB")
    except PIL.UnidentifiedImageError:
        raise DamagedData(f"{path} is damaged or no image: replace it, or take it out of the folder") from None
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path, error) from None
        raise DamagedData(f"{path} is damaged ({error}): replace it, or take it out of the folder") from None
    except (SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as error:
        raise DamagedData(f"{path} is damaged ({error}): replace it, or take it out of the folder") from None
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    box = (left, top, left + short, top + short)
    return np.asarray(image.resize((side, side), PIL.Image.Resampling.BOX, box=box)).transpose(2, 0, 1)


def _loaded(
    name: str, source: str, root: Path | None, placement: Placement, jitter: float, resolution: int | None
) -> FieldSet:
    data = load_images(source, root)
    parts = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    detail = data.detail
    if resolution is not None:
        check_at_least("resolution", resolution, 1)
        parts = (_resized(parts[0], resolution), parts[1], _resized(parts[2], resolution), parts[3])
        detail += f"; resized to {resolution} x {resolution} pixels"
    return _image_set(name, data.kind, detail, data.fingerprint, parts, data.scale, data.classes, placement, jitter)


def _resized(images: UInt8[np.ndarray, "n s h w"], side: int) -> UInt8[np.ndarray, "n s side side"]:
    """Averaged over area where the image shrinks, bilinear where it grows."""
    pixels = torch.from_numpy(images)
    grows = side > images.shape[-1]
    chunks = [
        F.interpolate(chunk.float(), (side, side), mode="bilinear" if grows else "area").round().byte()
        for chunk in pixels.split(4096)
    ]
    return torch.cat(chunks).numpy()


def _image_set(
    name: str,
    kind: Kind,
    detail: str,
    digest: str,
    parts: tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None],
    peak: float,
    classes: int | None,
    placement: Placement,
    jitter: float,
) -> FieldSet:
    check_choice("placement", placement, ("centre", "corner"))
    check_at_least("jitter", jitter, 0)
    if jitter > 1:
        raise FieldError(f"jitter is {jitter!r}: it has to be at most 1, one pixel")
    train_images, train_labels, test_images, test_labels = parts
    channels, height, width = train_images.shape[1:]
    coords = pixel_grid(height, width, placement)
    labels = [None if part is None else torch.from_numpy(part) for part in (train_labels, test_labels)]
    corner = placement == "corner"
    train = ImageSource(torch.from_numpy(train_images), labels[0], coords, peak, corner, jitter)
    return FieldSet(
        name=name,
        kind=kind,
        detail=detail,
        fingerprint=digest,
        num_points=height * width,
        coord_dim=2,
        signal_dim=channels,
        train=train,
        test=replace(train, images=torch.from_numpy(test_images), labels=labels[1], jitter=0.0),
        bounded=True,
        shared_coords=coords,
        num_classes=classes,
        scale=(0.5,) * channels,
        shift=(0.5,) * channels,
        unit="pixel value, 0..1",
        size=(height, width),
    )
