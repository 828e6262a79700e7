"""Fields to train on (section 4): `load(dataset, ...)` for one set, `Fields` for Lightning."""

from .fields import FieldBatch, FieldSet, Truth, pixel_grid, space_grid
from .module import Fields
from .sources import DATASETS, load

__all__ = ["DATASETS", "FieldBatch", "FieldSet", "Fields", "Truth", "load", "pixel_grid", "space_grid"]
