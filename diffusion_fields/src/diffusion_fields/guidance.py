"""Classifier-free guidance as a network (section 9.4): it has the interface of the network that it wraps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_fields.errors import FieldError


class Guided(nn.Module):
    """Classifier-free guidance: (1 + w) out(label) - w out(null class); the null class is the one after the last."""

    def __init__(self, net: Any, weight: float) -> None:
        super().__init__()
        if getattr(net, "num_classes", None) is None:
            raise FieldError("guidance: this network was built without classes; train one with num_classes")
        self.net, self.weight = net, weight

    @property
    def signal_dim(self) -> int:
        return self.net.signal_dim

    def _both(self, one: Callable[[Tensor], Any], label: Tensor | None) -> tuple[Any, Any]:
        if label is None:
            raise FieldError("guidance: it needs the labels of the classes to sample")
        return one(label), one(torch.full_like(label, self.net.num_classes))

    def _guide(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return (1 + self.weight) * both[0] - self.weight * both[1]

    def embed(self, coords: Tensor, which: str) -> Tensor:
        return self.net.embed(coords, which)

    def encode_context(self, *context: Tensor, label: Tensor | None = None, **options: Any) -> tuple[Any, Any]:
        return self._both(lambda c: self.net.encode_context(*context, label=c, **options), label)

    def decode(self, z: tuple[Any, Any], *query: Tensor, label: Tensor | None = None, **options: Any) -> Tensor:
        latents = iter(z)
        return self._guide(self._both(lambda c: self.net.decode(next(latents), *query, label=c, **options), label))

    def forward(self, *sets: Tensor, label: Tensor | None = None, **options: Any) -> Tensor:
        return self._guide(self._both(lambda c: self.net(*sets, label=c, **options), label))
