"""How well a search tells signals from noise (section 13), as torchmetrics that add up over batches and processes."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mma_realtime.errors import SearchError

Scores1d = Float[Tensor, " windows"]


def threshold_at(noise: Scores1d, fap: float) -> Float[Tensor, ""]:
    """The statistic that at most a share `fap` of the noise windows lie above.

    With fewer than 1 / fap windows that is the loudest of them, and the share is known no better than 1 / n.
    """
    above = math.floor(fap * len(noise) + 1e-9)
    return noise.topk(above + 1).values[-1] if above < len(noise) else noise.new_tensor(-math.inf)


def partial_area(signal: Scores1d, noise: Scores1d, max_fpr: float) -> float:
    """Mean probability of detection over false-positive rates from 0 to `max_fpr`: 1 for a perfect search.

    Between its steps the curve is what it is: the share of signals above the (i + 1)-th loudest noise window, from
    i / n to (i + 1) / n; a signal that equals it counts half.
    """
    n = len(noise)
    steps = min(n, math.ceil(max_fpr * n - 1e-9))
    loudest = noise.double().topk(steps).values
    ordered = signal.double().sort().values
    above = len(ordered) - torch.searchsorted(ordered, loudest, right=True)
    level = len(ordered) - torch.searchsorted(ordered, loudest, right=False)
    width = torch.full((steps,), 1.0 / n, dtype=torch.float64, device=noise.device)
    width[-1] = max_fpr - (steps - 1) / n
    return float(((above + level).double() / (2 * len(ordered)) * width).sum() / max_fpr)


class _Ranked(Metric):
    """Keeps the statistic of all windows, signals and noise apart."""

    full_state_update = False

    def __init__(self, share: float, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < share <= 1:
            raise SearchError(f"{name} is {share}: it lies in (0, 1]")
        self.share = share
        self.signal: list[Tensor]
        self.noise: list[Tensor]
        self.add_state("signal", default=[], dist_reduce_fx="cat")
        self.add_state("noise", default=[], dist_reduce_fx="cat")

    def update(self, statistic: Float32[Tensor, " batch"], label: Float32[Tensor, " batch"]) -> None:
        """Add windows.

        Args:
            statistic: any that is larger for signals.
            label: 1 for a signal, 0 for noise.
        """
        self.signal.append(statistic[label > 0.5])
        self.noise.append(statistic[label <= 0.5])

    def both(self) -> tuple[Tensor, Tensor] | None:
        signal, noise = dim_zero_cat(self.signal), dim_zero_cat(self.noise)
        return (signal, noise) if len(signal) and len(noise) else None


class TPRAtFAP(_Ranked):
    """Share of the signals above the threshold that a share `fap` of the noise windows exceeds; nan without either."""

    def __init__(self, fap: float, **kwargs: Any) -> None:
        super().__init__(fap, "fap", **kwargs)

    def compute(self) -> Float64[Tensor, ""]:
        found = self.both()
        if found is None:
            return torch.tensor(math.nan, dtype=torch.float64)
        signal, noise = found
        return (signal > threshold_at(noise, self.share)).double().mean()


class PartialAUROC(_Ranked):
    """Area under the detection curve up to `max_fpr`, divided by `max_fpr`; nan without signals or noise."""

    def __init__(self, max_fpr: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(max_fpr, "max_fpr", **kwargs)

    def compute(self) -> Float64[Tensor, ""]:
        found = self.both()
        value = math.nan if found is None else partial_area(*found, self.share)
        return torch.tensor(value, dtype=torch.float64)


class TimingError(Metric):
    """Of event times against true ones, s: the mean (which calibration takes away), rms about it, and largest.

    Section 13's timing error, for users of the library; a search's own numbers are `timing/...` of E5.
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.errors: list[Tensor]
        self.add_state("errors", default=[], dist_reduce_fx="cat")

    def update(self, found: Float64[Tensor, " events"], true: Float64[Tensor, " events"]) -> None:
        """Args: times in GPS seconds, float64."""
        self.errors.append((found - true).double())

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        errors = dim_zero_cat(self.errors)
        if not len(errors):
            errors = torch.tensor([math.nan], dtype=torch.float64)
        mean = errors.mean()
        return {"mean": mean, "rms": (errors - mean).square().mean().sqrt(), "largest": errors.abs().max()}
