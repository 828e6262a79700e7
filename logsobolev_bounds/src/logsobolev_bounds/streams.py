"""Random streams: one for each purpose of a seed, so that no two quantities of a run, and no two runs, share draws.

Seeds that are counted on from one another (seed + 1, seed + 2) meet: what is drawn for one purpose under seed 2
would be what another purpose drew under seed 1.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch

Purpose = Literal[
    "prior draws", "images", "risk on S", "risk on test", "inverted risk", "look", "gradient norm", "learnt prior",
    "labels", "examples", "test examples",
]  # fmt: skip


def run_seed() -> int:
    """The seed that the run was started with (`seed_everything`), whatever was drawn since."""
    return torch.initial_seed() % 2**31


def seed_for(seed: int, purpose: Purpose, *which: int) -> int:
    """A seed for one purpose of a run's seed, and one part of it (such as a depth): a hash of all of them.

    It has 32 bits, as PyTorch's generator on the CPU starts from no more.
    """
    entropy = (seed, get_args(Purpose).index(purpose), *which)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def stream(seed: int, purpose: Purpose, *which: int) -> torch.Generator:
    """A generator on the CPU started from `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, *which))
