"""Mask2Former on tokens off the grid, as in the published code: for semantic, instance and panoptic segmentation."""

from autofocusformer.heads.mask2former.inference import Instances, Panoptic, instances, panoptic, semantic
from autofocusformer.heads.mask2former.losses import Losses, mask2former_losses
from autofocusformer.heads.mask2former.matching import Targets
from autofocusformer.heads.mask2former.model import PointMask2Former
from autofocusformer.heads.mask2former.query_decoder import Prediction

__all__ = [
    "Instances",
    "Losses",
    "Panoptic",
    "PointMask2Former",
    "Prediction",
    "Targets",
    "instances",
    "mask2former_losses",
    "panoptic",
    "semantic",
]
