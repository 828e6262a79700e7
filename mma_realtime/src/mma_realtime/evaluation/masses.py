"""E2: how well the predictor tells masses, against the signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.evaluation.efficiency import AT_ONCE

SNRS = (6.0, 8.0, 10.0, 15.0, 20.0)

Predictor = Callable[[Float32[Tensor, "batch detector time"]], Float32[Tensor, "batch 2"]]


def chirp_mass(masses: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """(m1 m2)^(3/5) / (m1 + m2)^(1/5), solar masses."""
    return masses.prod(1) ** 0.6 / masses.sum(1) ** 0.2


@torch.no_grad()
def mass_errors(
    predictor: Predictor, data: SimulatedBBH, signals: int = 2000, snrs: Sequence[float] = SNRS
) -> dict[str, float]:
    """Relative errors on windows with a signal, of masses that were not trained on.

    Returns:
        `chirp_mass_error/snr10`: median of |Mc_pred - Mc| / Mc; `mass_error/snr10`: mean of |m_pred - m| / m over both
        masses; `guess_chirp_mass_error`: the median error of always naming the median of the test part's chirp masses.
    """
    out: dict[str, float] = {}
    for snr in snrs:
        windows = data.test_windows(snr, signals)
        predicted = torch.cat([predictor(part) for part in windows.x.split(AT_ONCE)]).clamp_min(0.1)
        true = windows.masses
        error = (chirp_mass(predicted) - chirp_mass(true)).abs() / chirp_mass(true)
        out[f"chirp_mass_error/snr{snr:g}"] = float(error.median())
        out[f"mass_error/snr{snr:g}"] = float(((predicted - true).abs() / true).mean())
        truth = chirp_mass(true)
        out["guess_chirp_mass_error"] = float(((truth - truth.median()).abs() / truth).median())
    return out
