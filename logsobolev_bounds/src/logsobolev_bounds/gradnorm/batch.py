"""What is asked of a batch of examples and of the network that it is given to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def check_batch(x: Tensor, y: Tensor) -> None:
    """Refuse no examples, or labels that do not belong to them.

    Raises:
        ValueError: as said; the line names the shapes.
    """
    if x.ndim < 1 or not x.numel():
        raise ValueError(f"x has shape {tuple(x.shape)}: there are no examples")
    if y.shape != x.shape[:1] or y.dtype is not torch.int64:
        raise ValueError(f"y has shape {tuple(y.shape)} and dtype {y.dtype}: {len(x)} int64 labels belong to x")


def check_labels(y: Tensor, classes: int) -> None:
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels reach from {low} to {high}: there are {classes} classes")


def check_logits(logits: Tensor, n: int, whose: str) -> None:
    if logits.ndim != 2 or len(logits) != n:
        raise ValueError(f"logits of {whose} have shape {tuple(logits.shape)}: [{n}, classes] are needed")


def refuse_coupling(model: nn.Module, noise: bool) -> None:
    """Refuse layers that make an example's loss depend on the others, and without `noise` those that draw some.

    Raises:
        ValueError: batch normalisation in training mode, or dropout; the line names it.
    """
    for name, module in model.named_modules():
        if module.training and isinstance(module, _BatchNorm):
            raise ValueError(f"{name or 'model'} ({type(module).__name__}) in training mode couples the examples")
        if not noise and module.training and isinstance(module, _DropoutNd) and module.p > 0:
            raise ValueError(f"{name or 'model'} ({type(module).__name__}) in training mode draws noise: call eval()")


@contextmanager
def recording() -> Iterator[None]:
    """Autograd on, also inside `no_grad` and `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def usable(x: Tensor) -> Tensor:
    """x without its history, as a tensor that autograd may save."""
    return x.clone() if x.is_inference() else x.detach()
