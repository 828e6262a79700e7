"""What is checked of every kernel, in the interpreter and on a GPU alike.

Imports nothing but PyTorch, so that it runs on a machine that has only PyTorch and Triton.
"""

from __future__ import annotations

from .allpairs_relativistic.check import CHECK as ALLPAIRS
from .enumerate_states.check import CHECK as STATES
from .population_train.check import CHECKS as POPULATIONS

CHECKS = [ALLPAIRS, STATES, *POPULATIONS]
