"""What is checked of every kernel, in the interpreter and on a GPU alike.

Imports nothing but PyTorch, so that it runs on a machine that has only PyTorch and Triton.
"""

from __future__ import annotations

from .relation_attention.check import CHECK as RELATION_ATTENTION
from .relations.check import CHECK as RELATIONS

CHECKS = [RELATION_ATTENTION, RELATIONS]
