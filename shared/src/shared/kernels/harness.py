"""Compare a kernel with its definition in float64: values, and the gradient of every operand.

Imports PyTorch only: it runs in the tests (interpreter, on the CPU) and in `gpu_check` (any CUDA machine).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shape = dict[str, int]
# Largest error allowed, relative to the largest entry of the expected tensor.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
TF32_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Check:
    """One operator: how to call it, what it should give, and what it costs.

    Args:
        kernel: name of its folder.
        function, definition: the public function, and `reference.py`'s.
        operands: `(generator, **shape)` to float64 operands on the CPU (and integers and numbers).
        small: shapes for the comparison; timed: shapes for the benchmark.
        cost: `(**shape)` to FLOPs and number of entries that have to be moved.
        part: which of a folder's operators, where it has several.
        gradients: whether it has any.
        modes: the arithmetic that it is checked in, of fp32, tf32, bf16, fp16.
        compiled: whether `torch.compile` of the definition is an alternative worth timing.
    """

    kernel: str
    function: Callable[..., Any]
    definition: Callable[..., Any]
    operands: Callable[..., tuple[Any, ...]]
    small: list[Shape]
    timed: list[Shape]
    cost: Callable[..., tuple[float, float]]
    part: str = ""
    gradients: bool = True
    modes: tuple[str, ...] = ("fp32", "tf32", "bf16", "fp16")
    compiled: bool = True

    @property
    def name(self) -> str:
        return f"{self.kernel}.{self.part}" if self.part else self.kernel


def is_real(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def draw(check: Check, shape: Shape, device: str, dtype: torch.dtype, seed: int = 0) -> tuple[Any, ...]:
    """Operands: matrices in `dtype`; vectors (scales, residuals, biases) in float32, as in training."""
    values = check.operands(torch.Generator().manual_seed(seed), **shape)

    def place(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return x.to(device) if not is_real(x) else x.to(dtype if x.ndim > 1 else torch.float32).to(device)

    return tuple(place(x) for x in values)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest entry; NaN counts as infinite."""
    if not expected.numel():
        return 0.0
    error = (got.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    return error / scale if scale and error == error else (0.0 if error == 0 else float("inf"))


def compare(check: Check, operands: Sequence[Any], gradients: bool = True, seed: int = 1) -> dict[str, float]:
    """Relative errors by name: `out0`, ..., and `grad0`, ... for every real operand."""
    gradients = gradients and check.gradients
    ours = [x.detach().requires_grad_(gradients) if is_real(x) else x for x in operands]
    exact = [x.detach().double().requires_grad_(gradients) if is_real(x) else x for x in operands]
    got, expected = check.function(*ours), check.definition(*exact)
    errors = {f"out{i}": relative_error(a, b) for i, (a, b) in enumerate(zip(got, expected))}
    for a, b in zip(got, expected):
        if a.shape != b.shape:
            raise AssertionError(f"{check.name}: shape {tuple(a.shape)}, the definition gives {tuple(b.shape)}")
    if not gradients:
        return errors
    generator = torch.Generator().manual_seed(seed)
    # Drawn in the kernel's dtype, so that both sides start from the same numbers.
    seeds = [torch.randn(x.shape, generator=generator).to(x) for x in got]
    leaves = [i for i, x in enumerate(ours) if is_real(x)]
    mine = torch.autograd.grad(got, [ours[i] for i in leaves], seeds)
    true = torch.autograd.grad(expected, [exact[i] for i in leaves], [s.double() for s in seeds])
    return errors | {f"grad{i}": relative_error(a, b) for i, a, b in zip(leaves, mine, true)}
