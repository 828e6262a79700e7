"""What is checked of the unfused operators in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import av, qk, reference, wf


def of(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor]]:
    def call(*given: Any) -> tuple[Tensor]:
        return (function(*given),)

    return call


def lists(generator: torch.Generator, B: int, n: int, N: int, M: int) -> Tensor:
    """Some indices come twice, as the padding's do."""
    return torch.randint(0, N, (B, n, M), generator=generator)


def qk_operands(generator: torch.Generator, B: int, H: int, n: int, e: int, M: int) -> tuple[Tensor, ...]:
    q, k = (torch.randn(B, H, n, e, generator=generator, dtype=torch.float64) for _ in range(2))
    return q, k, lists(generator, B, n, n, M)


def av_operands(generator: torch.Generator, B: int, H: int, n: int, e: int, M: int) -> tuple[Tensor, ...]:
    a = torch.rand(B, H, n, M, generator=generator, dtype=torch.float64)
    v = torch.randn(B, H, n, e, generator=generator, dtype=torch.float64)
    return a, v, lists(generator, B, n, n, M)


def wf_operands(generator: torch.Generator, B: int, kept: int, n: int, c: int, M: int) -> tuple[Tensor, ...]:
    w = torch.randn(B, kept, M, 4, generator=generator, dtype=torch.float64)
    x = torch.randn(B, n, c, generator=generator, dtype=torch.float64)
    return w, x, lists(generator, B, kept, n, M)


def attention_cost(B: int, H: int, n: int, e: int, M: int) -> tuple[float, float]:
    """FLOPs and entries moved: both rows once, one entry for each pair, and the lists."""
    return 2.0 * B * H * n * M * e, float(B * H * n * (2 * e + M) + B * n * M)


def wf_cost(B: int, kept: int, n: int, c: int, M: int) -> tuple[float, float]:
    return 8.0 * B * kept * M * c, float(B * (n * c + 4 * kept * c + 5 * kept * M))


MODES = ("fp32", "bf16", "fp16")
SMALL = [{"B": 2, "H": 2, "n": 5, "e": 20, "M": 19}]
TIMED = [{"B": 64, "H": 2, "n": 3136, "e": 32, "M": 48}]
CHECKS = [
    Check(
        "point_ops", of(qk), of(reference.qk), qk_operands, SMALL, TIMED, attention_cost, "qk",
        modes=MODES, compiled=False,
    ),
    Check(
        "point_ops", of(av), of(reference.av), av_operands, SMALL, TIMED, attention_cost, "av",
        modes=MODES, compiled=False,
    ),
    Check(
        "point_ops", of(wf), of(reference.wf), wf_operands, [{"B": 2, "kept": 3, "n": 7, "c": 150, "M": 17}],
        [{"B": 64, "kept": 784, "n": 3136, "c": 64, "M": 48}], wf_cost, "wf", modes=MODES, compiled=False,
    ),
]  # fmt: skip
