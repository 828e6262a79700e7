"""A network that sees no context: the control of section 10, with the interface of the network that it wraps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ContextBlind(nn.Module):
    """The values of the context are zeros, in training and in sampling; its coordinates stay.

    With the context's values gone, no network can be below the own-only floor of section 6.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    @property
    def signal_dim(self) -> int:
        return self.net.signal_dim

    @property
    def num_classes(self) -> int | None:
        return self.net.num_classes

    def embed(self, coords: Tensor, which: str) -> Tensor:
        return self.net.embed(coords, which)

    def encode_context(self, coords: Tensor, signal: Tensor, t: Tensor, **options: Any) -> Any:
        return self.net.encode_context(coords, torch.zeros_like(signal), t, **options)

    def decode(self, *query: Any, **options: Any) -> Tensor:
        return self.net.decode(*query, **options)

    def forward(self, context_coords: Tensor, context_signal: Tensor, *query: Tensor, **options: Any) -> Tensor:
        return self.net(context_coords, torch.zeros_like(context_signal), *query, **options)
