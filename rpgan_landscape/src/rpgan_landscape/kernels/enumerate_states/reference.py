"""K2 in PyTorch: every state decoded, in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from .codes import occupancies

CHUNK = 1 << 17


def state_histograms(anchor: Tensor, n: int) -> tuple[Tensor, Tensor]:
    device = anchor.device
    cycles = torch.zeros(2, n + 1, dtype=torch.int64, device=device)
    number = {m: i for i, m in enumerate(occupancies(n))}
    counts = torch.zeros(len(number), dtype=torch.int64, device=device)
    powers = (n + 1) ** torch.arange(n, device=device)
    for start in range(0, (n + 1) ** n, CHUNK):
        ids = torch.arange(start, min(start + CHUNK, (n + 1) ** n), device=device)
        state = ids[:, None] // powers % (n + 1)
        inside = state < n
        # After n steps every walk is on a cycle, or outside (n, which stays): the ends are the cyclic nodes.
        ends, successor = state, torch.nn.functional.pad(state, (0, 1), value=n)
        for _ in range(n - 1):
            ends = successor.gather(1, ends)
        on_cycle = torch.zeros(len(ids), n + 1, dtype=torch.bool, device=device).scatter_(1, ends, True)
        c = on_cycle[:, :n].sum(1)
        cycles[0] += torch.bincount(c, minlength=n + 1)
        cycles[1] += torch.bincount(c[inside.all(1)], minlength=n + 1)
        fakes = torch.zeros(len(ids), n + 1, dtype=torch.int64, device=device)
        fakes.scatter_add_(1, state, torch.ones_like(state))
        ordered = fakes[:, :n].sort(1, descending=True).values
        kinds, how_many = (ordered * (n + 1) ** torch.arange(n, device=device)).sum(1).unique(return_counts=True)
        for kind, count in zip(kinds.tolist(), how_many.tolist()):
            digits = [kind // (n + 1) ** i % (n + 1) for i in range(n)]
            counts[number[tuple(d for d in digits if d)]] += count
    return cycles, counts
