"""Layers of BigGAN: spectral normalisation, batch normalisation by class, attention (section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from diggan.kernels.grouped_spectral_norm import grouped_spectral_norm


class Spectral(nn.Module):
    """A layer whose weight is divided by its largest singular value, as one power iteration estimates it.

    Buffers: `u0` [1, out] and `sv0` [1], the estimate. In training every forward pass iterates once; in evaluation the
    iterate is computed from `u0` and not kept. A network calls `normalise_together` first, so that all of its layers
    share a few launches; a layer alone normalises itself.
    """

    weight: nn.Parameter
    u0: Tensor
    sv0: Tensor
    eps: float

    def prepare(self, eps: float) -> None:
        self.eps = eps
        self.ready: Tensor | None = None
        self.register_buffer("u0", torch.randn(1, len(self.weight)))
        self.register_buffer("sv0", torch.ones(1))

    def normalised(self) -> Tensor:
        """The weight of this forward pass."""
        if self.ready is None:
            normalise_together([self])
        weight, self.ready = self.ready, None
        assert weight is not None
        return weight


def normalise_together(layers: Iterable[Spectral]) -> None:
    """One power iteration for all of these layers; the next forward pass of each uses the result."""
    layers = list(layers)
    if not layers:
        return
    weights, sigmas, us = grouped_spectral_norm([m.weight for m in layers], [m.u0 for m in layers], layers[0].eps)
    for layer, weight, sigma, u in zip(layers, weights, sigmas, us):
        layer.ready = weight
        if layer.training:
            with torch.no_grad():
                layer.u0.copy_(u)
                layer.sv0.copy_(sigma)


def spectral_layers(net: nn.Module) -> list[Spectral]:
    return [m for m in net.modules() if isinstance(m, Spectral)]


class SNConv2d(nn.Conv2d, Spectral):  # type: ignore[misc]
    def __init__(self, *args: Any, eps: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare(eps)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised(), self.bias)


class SNLinear(nn.Linear, Spectral):  # type: ignore[misc]
    def __init__(self, *args: Any, eps: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare(eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


class SNEmbedding(nn.Embedding, Spectral):  # type: ignore[misc]
    def __init__(self, *args: Any, eps: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepare(eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, self.normalised())


class BatchNorm(nn.Module):
    """Batch normalisation with `stored_mean` and `stored_var` (unbiased), before any gain and bias.

    Args:
        momentum: share of the batch in the stored statistics.
    """

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def normalise(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.stored_mean, self.stored_var, None, None, self.training, self.momentum, self.eps)


class PlainBatchNorm(BatchNorm):
    """With a gain and a bias for each channel."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps)
        self.gain, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x) * self.gain[:, None, None] + self.bias[:, None, None]


class ConditionalBatchNorm(BatchNorm):
    """BN(x) (1 + gain(y)) + bias(y): y are class numbers (`conditions` of them), or vectors of so many entries.

    Args:
        vectors: y are vectors, and gain and bias spectrally normalised linear maps of them without a bias.
        sn_eps: of their spectral normalisation.
    """

    def __init__(
        self, channels: int, conditions: int, vectors: bool = False, eps: float = 1e-5, sn_eps: float = 1e-8
    ) -> None:
        super().__init__(channels, eps)

        def make() -> nn.Module:
            if vectors:
                return SNLinear(conditions, channels, bias=False, eps=sn_eps)
            return nn.Embedding(conditions, channels)

        self.gain, self.bias = make(), make()

    def forward(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"] | Float[Tensor, "n v"]) -> Tensor:
        return self.normalise(x) * (1 + self.gain(y))[:, :, None, None] + self.bias(y)[:, :, None, None]


class Attention(nn.Module):
    """x + gamma o(attention): keys and values pooled by 2, gamma from 0 (Zhang et al. 2019)."""

    def __init__(self, channels: int, eps: float = 1e-8) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> SNConv2d:
            return SNConv2d(inputs, outputs, 1, bias=False, eps=eps)

        self.theta, self.phi = conv(channels, channels // 8), conv(channels, channels // 8)
        self.g, self.o = conv(channels, channels // 2), conv(channels // 2, channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2).transpose(1, 2)
        key, value = (F.max_pool2d(f(x), 2).flatten(2) for f in (self.phi, self.g))
        share = (query @ key).softmax(-1)
        return x + self.gamma * self.o((value @ share.transpose(1, 2)).unflatten(2, x.shape[2:]))


def initialise(net: nn.Module, how: str) -> None:
    """`N02`: weights of convolutions, linear maps and embeddings from N(0, 0.02^2). `orthogonal`: and zero biases."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            if how == "N02":
                nn.init.normal_(module.weight, 0, 0.02)
            else:
                nn.init.orthogonal_(module.weight)
                bias = getattr(module, "bias", None)
                if bias is not None:
                    nn.init.zeros_(bias)
