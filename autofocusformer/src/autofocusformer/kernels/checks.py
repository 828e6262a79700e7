"""What is checked of every kernel, in the interpreter and on a GPU alike.

Imports nothing but PyTorch, so that it runs on a machine that has only PyTorch and Triton.
"""

from __future__ import annotations

from .cluster_attention.check import CHECK as ATTENTION
from .nearest_clusters.check import CHECK as NEAREST
from .point_merge.check import CHECK as MERGE
from .point_ops.check import CHECKS as POINT_OPS

CHECKS = [ATTENTION, MERGE, NEAREST, *POINT_OPS]
