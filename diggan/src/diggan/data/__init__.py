"""Limited data: image sets, subsets, and everything random in a run."""

from diggan.data.images import NAMES, Source, load
from diggan.data.module import LimitedImages

__all__ = ["NAMES", "LimitedImages", "Source", "load"]
