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
from torch.nn.grad import conv2d_weight

from ..kernels.ghost_norms import ghost_norms, gram_is_cheaper

BUDGET = 2**19  # entries of the patches, or of gradients, that are held at once: a core's cache


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
    """A linear layer on the patches, for every group; or the gradients of some images, where they take fewer FLOPs."""
    padding, groups = sides(layer), layer.groups
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    positions, filters = delta.shape[2] * delta.shape[3], layer.weight[0].numel()
    gram = gram_is_cheaper(positions, filters, delta.shape[1] // groups)
    # On a CPU a convolution with a group for each image beats patches; on a GPU it does not, and would use TF32.
    patched = a.is_cuda or gram
    budget = BUDGET * (32 if a.is_cuda else 1)
    n = max(1, budget // (positions * filters * groups if patched else layer.weight.numel()))
    out = []
    for x, d in zip(a.split(n), delta.split(n)):
        x = F.pad(x, padding, mode=mode) if any(padding) else x
        out.append(of_patches(layer, x, d) if patched else of_gradients(layer, x, d))
    return torch.cat(out)


def of_patches(layer: nn.Conv2d, x: Tensor, delta: Tensor) -> Tensor:
    n, groups = len(x), layer.groups
    for axis, size, dilation, stride in zip((2, 3), layer.kernel_size, layer.dilation, layer.stride):
        x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    delta = delta.reshape(n * groups, delta.shape[1] // groups, -1)
    patches = x.permute(0, 1, 4, 5, 2, 3).reshape(n * groups, -1, delta.shape[2])
    return ghost_norms(patches.mT, delta.mT).view(n, groups).sum(1)


def of_gradients(layer: nn.Conv2d, x: Tensor, delta: Tensor) -> Tensor:
    n, o = delta.shape[:2]
    size = (n * o, *layer.weight.shape[1:])
    x, delta = x.reshape(1, -1, *x.shape[2:]), delta.reshape(1, -1, *delta.shape[2:])
    stride, dilation = list(layer.stride), list(layer.dilation)
    gradient = conv2d_weight(x, size, delta, stride=stride, dilation=dilation, groups=n * layer.groups)
    return gradient.view(n, -1).square().sum(1)


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
