"""Mask2Former on tokens off the grid (section 3.2): one head for semantic, instance and panoptic segmentation."""

from autofocusformer.heads.mask2former.model import PointMask2Former
from autofocusformer.heads.mask2former.query_decoder import Prediction

__all__ = ["PointMask2Former", "Prediction"]
