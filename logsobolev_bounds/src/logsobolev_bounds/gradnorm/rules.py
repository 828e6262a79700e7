"""Squared norms of the examples' gradients by the parameters of a layer, from its input and its output's gradient.

A rule takes the layer, its input a and the gradient delta at its output, both with the examples first, and gives the
squared norm of every example's gradient by the weight; a bias is added at every position, so its gradient is the sum of
delta. None of them holds the gradients of all examples by a matrix or a filter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.ghost_norms import ghost_norms

BUDGET = 2**22  # entries of the patches that are held at once


def linear(layer: nn.Linear, a: Tensor, delta: Tensor) -> Tensor:
    return ghost_norms(a.reshape(len(a), -1, a.shape[-1]), delta.reshape(len(delta), -1, delta.shape[-1]))


def linear_bias(layer: nn.Linear, a: Tensor, delta: Tensor) -> Tensor:
    return delta.reshape(len(delta), -1, delta.shape[-1]).sum(1).square().sum(1)


def sides(layer: nn.Conv2d) -> list[int]:
    """Padding left, right, above and below."""
    if isinstance(layer.padding, str):
        both = [d * (k - 1) if layer.padding == "same" else 0 for d, k in zip(layer.dilation, layer.kernel_size)]
        pairs = [(total // 2, total - total // 2) for total in both]
    else:
        pairs = [(int(p), int(p)) for p in layer.padding]
    return [*pairs[1], *pairs[0]]


def conv2d(layer: nn.Conv2d, a: Tensor, delta: Tensor) -> Tensor:
    """A linear layer on the patches, for every group."""
    padding, groups = sides(layer), layer.groups
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    kernel: Any = layer.kernel_size
    positions = delta.shape[2] * delta.shape[3]
    n = max(1, BUDGET // (positions * a.shape[1] * kernel[0] * kernel[1]))
    out = []
    for x, d in zip(a.split(n), delta.split(n)):
        x = F.pad(x, padding, mode=mode) if any(padding) else x
        patches = F.unfold(x, kernel, dilation=layer.dilation, stride=layer.stride)
        patches = patches.view(len(x) * groups, -1, positions)
        norms = ghost_norms(patches.mT, d.reshape(len(x) * groups, -1, positions).mT)
        out.append(norms.view(len(x), groups).sum(1))
    return torch.cat(out)


def channels_bias(layer: nn.Module, a: Tensor, delta: Tensor) -> Tensor:
    return delta.flatten(2).sum(2).square().sum(1)


def embedding(layer: nn.Embedding, a: Tensor, delta: Tensor) -> Tensor:
    """Gradients of equal indices are added, in the place of the first of them; those of the padding are dropped."""
    index = a.reshape(len(a), -1)
    delta = delta.reshape(*index.shape, -1)
    if layer.padding_idx is not None:
        delta = delta * (index != layer.padding_idx)[..., None]
    index, order = index.sort(1)
    new = torch.zeros_like(index)
    new[:, 1:] = index[:, 1:] != index[:, :-1]
    place = new.cumsum(1)[..., None].expand_as(delta)
    ordered = delta.gather(1, order[..., None].expand_as(delta))
    return torch.zeros_like(delta).scatter_add_(1, place, ordered).square().sum((1, 2))


def layer_norm(layer: nn.LayerNorm, a: Tensor, delta: Tensor) -> Tensor:
    normal = F.layer_norm(a, layer.normalized_shape, eps=layer.eps)
    return layer_norm_bias(layer, a, delta * normal)


def layer_norm_bias(layer: nn.LayerNorm, a: Tensor, delta: Tensor) -> Tensor:
    size = torch.Size(layer.normalized_shape).numel()
    return delta.reshape(len(delta), -1, size).sum(1).square().sum(1)


def group_norm(layer: nn.GroupNorm, a: Tensor, delta: Tensor) -> Tensor:
    return channels_bias(layer, a, delta * F.group_norm(a, layer.num_groups, eps=layer.eps))


Rule = Callable[[Any, Tensor, Tensor], Tensor]
# By the type itself: a subclass may compute something else.
RULES: dict[type[nn.Module], dict[str, Rule]] = {
    nn.Linear: {"weight": linear, "bias": linear_bias},
    nn.Conv2d: {"weight": conv2d, "bias": channels_bias},
    nn.Embedding: {"weight": embedding},
    nn.LayerNorm: {"weight": layer_norm, "bias": layer_norm_bias},
    nn.GroupNorm: {"weight": group_norm, "bias": channels_bias},
}
