"""The data sets by name, and one way to load them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import FieldError
from . import gaussian, globe, images, shapes, solids, surfaces
from .fields import FieldSet

SOURCES: dict[str, Callable[..., FieldSet]] = {
    "circle_grf": gaussian.circle_grf,
    "sphere_grf": gaussian.sphere_grf,
    "mesh_grf": surfaces.mesh_grf,
    "digits": images.digits,
    "mnist": images.mnist,
    "fashion": images.fashion,
    "cifar10": images.cifar10,
    "image_folder": images.image_folder,
    "sphere_digits": images.sphere_digits,
    "sdf_shapes": shapes.sdf_shapes,
    "voxels": solids.voxels,
    "meshes": solids.meshes,
    "planet_topography": globe.planet_topography,
    "latlon_grid": globe.latlon_grid,
}
DATASETS = tuple(SOURCES)


def load(dataset: str, root: str | Path | None = None, **options: Any) -> FieldSet:
    """A data set of fields; nothing is downloaded, and nothing takes the place of missing files.

    Args:
        dataset: one of `DATASETS`.
        root: where the data lie (default: the environment variable `DATA_ROOT`, else `./data`); of `image_folder` the
            folder itself. Sets that are not read from files leave it alone.
        options: arguments of the data set's own function.

    Raises:
        FieldError: an unknown data set or option, or a value that the option cannot have.
        MissingData, DamagedData (both `UserError`): files are missing, or are not what they should be.
    """
    if dataset not in SOURCES:
        raise FieldError(f"unknown data set {dataset!r}: there are {', '.join(DATASETS)}{_meant(dataset, DATASETS)}")
    source = SOURCES[dataset]
    known = tuple(inspect.signature(source).parameters)
    offered = tuple(name for name in known if name != "root")
    for option in options:
        if option not in offered:
            hint = _meant(option, offered)
            raise FieldError(f"unknown option {option!r} of {dataset}: there are {', '.join(offered)}{hint}")
    if "root" in known:
        options["root"] = None if root is None else Path(root).expanduser()
    return source(**options)


def _meant(word: str, words: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {near[0]}?" if near else ""
