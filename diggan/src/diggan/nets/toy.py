"""Networks of the games on points (section 10, B1)."""

from __future__ import annotations

import torch
from torch import nn

from .small import MLPDiscriminator, MLPGenerator


class ClusterGenerator(MLPGenerator):
    """1-5-5-1 with tanh, a number for a number."""

    hidden, output = staticmethod(torch.tanh), staticmethod(lambda x: x)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.latent, self.classes, self.image = 1, 0, (1,)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in ((1, 5), (5, 5), (5, 1)))


class ClusterDiscriminator(MLPDiscriminator):
    """1-10-10-1 with sigmoids, logits out."""

    hidden = staticmethod(torch.sigmoid)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.classes, self.image = 0, (1,)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in ((1, 10), (10, 10), (10, 1)))


class RingGenerator(MLPGenerator):
    """`mlp64`'s with points in the plane, unbounded."""

    output = staticmethod(lambda x: x)

    def __init__(self, width: int = 64) -> None:
        super().__init__(width, (2,))


class RingDiscriminator(MLPDiscriminator):
    def __init__(self, width: int = 64) -> None:
        super().__init__(width, (2,))
