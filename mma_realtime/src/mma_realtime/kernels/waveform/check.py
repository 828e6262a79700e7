"""What is checked of waveforms in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import math

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import layout as c
from . import reference, waveform_fd

SUN_S = 4.925490947641267e-06  # G M_sun / c^3
HIGHEST = 512.0  # Hz


def operands(generator: torch.Generator, B: int, F: int) -> tuple[Tensor, Tensor, Tensor]:
    """Signals like PhenomD's of 10 to 150 solar masses, every fourth an inspiral alone: edges, sizes and phases of
    the real ones, coefficients of later terms drawn (the real ones are `mma_realtime.gw.waveforms`', which kernels do
    not know).
    """

    def uniform(a: float, b: float, *shape: int) -> Tensor:
        return a + (b - a) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    table = c.empty_table(B)
    M, eta = SUN_S * torch.exp(uniform(math.log(10), math.log(150), B)), uniform(0.1, 0.25, B)
    v = (math.pi * M) ** (1 / 3)
    table[:, c.F_LOW], table[:, c.F_CUT] = uniform(15, 25, B), 0.2 / M
    table[:, c.TIME], table[:, c.PHASE] = uniform(0, 4, B), uniform(-3, 3, B)
    table[:, c.AMPLITUDE] = (5 * eta / 24).sqrt() * M ** (5 / 6) * uniform(0.5, 2, B)
    late = torch.arange(B) % 4 != 3
    table[~late, c.F_CUT] = (6**-1.5 / (math.pi * M))[~late]
    ring, damp = uniform(0.08, 0.09, B) / M, uniform(0.008, 0.012, B) / M
    edges = torch.stack([0.014 / M, 0.95 * ring, 0.018 / M, 0.5 * ring], 1)
    table[:, c.F_AMP_INS : c.F_PSI_INT + 1] = torch.where(late[:, None], edges, torch.inf)
    powers = torch.tensor(c.AMP_INS_POWERS)
    table[:, c.AMP_INS] = uniform(-3, 3, B, 7) * M[:, None] ** (powers / 3)
    table[:, c.AMP_INT] = uniform(-1, 1, B, 5) / ring[:, None] ** torch.arange(5)
    table[:, c.RING_STRENGTH], table[:, c.RING_FREQUENCY] = damp**2, ring
    table[:, c.RING_WIDTH], table[:, c.RING_DECAY] = 1.3 * damp, 0.9 / (1.3 * damp)
    powers = torch.tensor(c.PSI_INS_POWERS)
    terms = torch.tensor([1.0, 4, -50, 50, 100, 150, -300, -100, 100, 20, 20, 20, 20], dtype=torch.float64)
    table[:, c.PSI_INS] = 3 / (128 * eta[:, None]) * terms * uniform(0.5, 1.5, B, 13) * v[:, None] ** powers
    scale = torch.stack([torch.ones_like(M), M, torch.ones_like(M), M**-3], 1)
    size = torch.tensor([3.0, 1000, 40, 1e-4], dtype=torch.float64)
    table[:, c.PSI_INT] = uniform(0.5, 1.5, B, 4) * size * scale
    scale = torch.stack([torch.ones_like(M), M, 1 / M, M**0.75], 1)
    table[:, c.PSI_MRD] = uniform(0.5, 1.5, B, 4) * torch.tensor([3.0, 1000, 1, 100]) * scale
    table[:, c.ATAN], table[:, c.ATAN_FREQUENCY], table[:, c.ATAN_WIDTH] = uniform(2, 4, B), ring, damp
    asd = uniform(0.5, 2, B, F) if B % 2 else uniform(0.5, 2, F)
    return table, torch.linspace(0, HIGHEST, F, dtype=torch.float64), asd


def cost(B: int, F: int) -> tuple[float, float]:
    """FLOPs, and entries moved: real and imaginary part written. A curve for all and the frequencies stay in cache."""
    return 300.0 * B * F, 2.0 * B * F + (B * F if B % 2 else F)


def of_numbers(table: Tensor, f: Tensor, asd: Tensor, kernel: bool) -> tuple[Tensor]:
    """Coefficients and frequencies are float64 whatever the other operands are; parts as two numbers."""
    if kernel:
        return (torch.view_as_real(waveform_fd(table.double(), f.double(), asd)),)
    return (torch.view_as_real(reference.waveform_fd(table.double(), f.double(), asd.double())),)


CHECK = Check(
    "waveform",
    lambda table, f, asd: of_numbers(table, f, asd, True),
    lambda table, f, asd: of_numbers(table, f, asd, False),
    operands,
    small=[{"B": 4, "F": 513}, {"B": 5, "F": 300}, {"B": 1, "F": 1}],
    timed=[{"B": 1000, "F": 2049}, {"B": 20000, "F": 2049}, {"B": 2000, "F": 8193}],
    cost=cost,
    gradients=False,
    modes=("fp32",),
)
