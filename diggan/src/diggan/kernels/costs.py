"""What the definitions cost in eager PyTorch: kernels launched and bytes that they move, counted and not guessed.

The definition runs on tensors without data (`meta`), where every ATen call that is not a view stands for one launch
that reads its operands and writes its results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def size(x: Tensor) -> int:
    """Bytes of memory behind a tensor: an expanded one is read once."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


def size_of(values: Any) -> int:
    return sum(size(x) for x in tree_leaves(values) if isinstance(x, Tensor))


def is_view(func: Any) -> bool:
    """Whether a result is an operand's memory, and nothing is written."""
    aliases = [r.alias_info for r in func._schema.returns if r.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases)


class Traffic(TorchDispatchMode):
    """Counts launches and bytes of what runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.bytes = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        # Memory that nothing is written to costs no launch.
        if not is_view(func) and "empty" not in func.__name__:
            self.launches += 1
            self.bytes += size_of((args, kwargs, out))
        return out


def eager(function: Callable[[], Sequence[Tensor]], leaves: Sequence[Tensor] = ()) -> dict[str, float]:
    """Launches and bytes of `function`, and with `leaves` those of its results' gradient by them too."""
    with Traffic() as traffic:
        out = function()
    if leaves:
        seeds = [torch.empty_like(x) for x in out]
        with traffic:
            torch.autograd.grad(out, leaves, seeds)
    return {"eager_launches": float(traffic.launches), "eager_bytes": float(traffic.bytes)}
