"""Functional entropy of the goodness (section 2.7): how unevenly goodness is spread over samples and layers.

`Ent_mu(h) = E[h log h] - E[h] log E[h]`, non-negative, zero exactly for a constant h, homogeneous of degree 1. All in
float64: in single precision the two terms cancel.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def functional_entropy(h: Float[Tensor, ...], dim: int | None = None) -> Float[Tensor, ...]:
    """`Ent(h)` under the uniform measure over all entries, or along `dim`."""
    h = h.double()
    h_log_h = torch.special.xlogy(h, h)
    if dim is None:
        mean = h.mean()
        return h_log_h.mean() - torch.special.xlogy(mean, mean)
    mean = h.mean(dim)
    return h_log_h.mean(dim) - torch.special.xlogy(mean, mean)


def entropy_report(g: Float[Tensor, "n k"]) -> dict[str, Tensor]:
    """Total entropy of the goodness over (sample, layer), its exact chain rule, and the scale-free value.

    `total = between_layers + mean(within_per_layer)`; `scale_free = total / E[g]`.
    """
    total = functional_entropy(g)
    return {
        "total": total,
        "between_layers": functional_entropy(g.double().mean(0)),
        "within_per_layer": functional_entropy(g, dim=0),
        "scale_free": total / g.double().mean().clamp_min(torch.finfo(torch.float64).tiny),
    }


def entropy_objective(g: Float[Tensor, "n k"], positives: int, scale_free: bool) -> Float[Tensor, ""]:
    """`-Ent(positives) + Ent(negatives)`, or the same with `Ent / E[g]`: what `entropy_residuals` descends."""
    name = "scale_free" if scale_free else "total"
    return entropy_report(g[positives:])[name] - entropy_report(g[:positives])[name]


def entropy_residuals(
    g: Float[Tensor, "n k"], positives: int, scale_free: bool, batch: int | None = None
) -> Float[Tensor, "n k"]:
    """Gradient with respect to `g` of `-Ent(positives) + Ent(negatives)`, or of the same with `Ent / E[g]`.

    The raw form is homogeneous of degree 1 and so unbounded below: use it with decay. Entries with g = 0 get 0.
    """
    parts = []
    for sign, part in ((-1.0, g[:positives].double()), (1.0, g[positives:].double())):
        mean = part.mean().clamp_min(torch.finfo(torch.float64).tiny)
        slope = torch.where(part > 0, (part / mean).clamp_min(torch.finfo(torch.float64).tiny).log(), 0.0)
        if scale_free:
            slope = torch.where(part > 0, (slope - functional_entropy(part) / mean) / mean, 0.0)
        parts.append(sign * slope / ((batch or positives) * g.shape[1]))
    return torch.cat(parts).to(g)
