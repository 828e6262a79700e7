"""What comes in (section 6 of the specification): points by recipe and images, resident, in batches by index."""

from .images import SIZES, describe
from .module import DATASETS, Batch, GanData
from .points import Points
from .toy import VARIANCE, gaussian_centres, gaussians

__all__ = [
    "DATASETS", "SIZES", "VARIANCE", "Batch", "GanData", "Points", "describe", "gaussian_centres", "gaussians",
]  # fmt: skip
