"""The bounds' ingredients as torchmetrics: fed batch by batch, equal to what one batch of everything gives.

Losses and gradients come as [K, n], K explicit weight draws (the same ones in every batch) and n examples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCalibrationError

from logsobolev_bounds.bounds import BoundResult, Facts, assemble, assemble_mgf, monte_carlo_risk, seeger
from logsobolev_bounds.complexity import grid
from logsobolev_bounds.errors import BoundError, Number, checked, confidence, non_negative, positive, sample_size
from logsobolev_bounds.losses import zero_one
from logsobolev_bounds.mgf import log_c, lsi

NOTHING_CLAIMED = Facts()


class GradNorm(Metric):
    """Mean over draws and examples of the squared input gradient; every example counts the same."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, g: Float[Tensor, "K n"]) -> None:
        self.total += g.double().sum()
        self.count += g.numel()

    def compute(self) -> Tensor:
        if not self.count:
            raise BoundError("GradNorm has seen no examples: a mean over none does not exist")
        return self.total / self.count


class LSIBound(Metric):
    """C(lambda, p) by the log-Sobolev inequality, and the bound with it; an estimate, see `bounds.assemble`.

    Args:
        m: examples of the training set. lam: lambda. delta: confidence. points: of the grid of alpha, at least 17.

    Raises:
        BoundError, ComplexityError (ValueErrors): m < 1, lambda <= 0, delta outside (0, 1), fewer points; in `update`
            shapes that differ, or other draws than before; in `compute` no examples.
    """

    full_state_update = False
    loss: list[Tensor]
    g: list[Tensor]

    def __init__(self, m: int, lam: float, delta: float = 0.05, points: int = 65, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sample_size("m", m), positive("lambda", lam), confidence("delta", delta)
        self.m, self.lam, self.delta = m, lam, delta
        self.alphas = grid(lam / m, points)
        self.add_state("loss", [], dist_reduce_fx="cat")
        self.add_state("g", [], dist_reduce_fx="cat")

    def update(self, loss: Float[Tensor, "K n"], g: Float[Tensor, "K n"]) -> None:
        """Of K prior draws. Kept whole, examples first, so that batches and processes only add rows."""
        if loss.shape != g.shape:
            raise BoundError(f"loss has shape {list(loss.shape)} and g {list(g.shape)}: they are of the same examples")
        before = self.loss[0].shape[1] if self.loss else len(loss)
        if len(loss) != before:
            raise BoundError(f"{len(loss)} draws in this batch, {before} in those before: use the same ones throughout")
        self.loss.append(loss.double().T)
        self.g.append(g.double().T)

    def compute(self) -> dict[str, Tensor]:
        """`C`, and the effective sample size `ess` that it rests on."""
        seen = self.loss if isinstance(self.loss, list) else [self.loss]  # one tensor where processes were joined
        if not sum(part.numel() for part in seen):
            raise BoundError("LSIBound has seen no examples: a mean over none does not exist")
        loss, g = (torch.cat(part) if isinstance(part, list) else part for part in (self.loss, self.g))
        found = log_c(self.m * lsi(loss.T, g.T, self.alphas)[:, -1])
        return {"C": found.C, "ess": found.ess}

    def bound(self, risk: float, kl: float, facts: Facts = NOTHING_CLAIMED) -> BoundResult:
        """risk + (kl + ln(1/delta) + C) / lambda: an estimate whatever the facts, unreliable where ESS < 10."""
        found = self.compute()
        return assemble_mgf("lsi", risk, kl, found["C"], self.lam, self.delta, facts, found["ess"])


class KLInverseCertificate(Metric):
    """The 0-1 bound from errors of K posterior draws, the Monte-Carlo mean inverted first (section 3.9).

    A certificate where the prior was fixed before the sample and nothing of the sample is in the preprocessing: `bound`
    says which it is.

    Args:
        kl: KL(posterior || prior). draws: how many are averaged.
        delta, delta_mc: confidences of the bound and of Monte Carlo; the first contains the second.

    Raises:
        BoundError (a ValueError): a negative KL, no draw, delta_mc not in (0, delta); in `update` another number of
            draws, labels that do not fit, NaN; in `compute` no examples.
    """

    full_state_update = False
    wrong: Tensor
    count: Tensor

    def __init__(self, kl: float, draws: int, delta: float = 0.05, delta_mc: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        non_negative("KL", kl), checked("draws", draws, lambda x: x < 1, "at least one posterior draw is needed")
        if not 0 < delta_mc < delta < 1:
            raise BoundError(f"delta is {delta} and delta_mc {delta_mc}: 0 < delta_mc < delta < 1 is needed")
        self.kl, self.draws, self.delta, self.delta_mc = kl, draws, delta, delta_mc
        self.add_state("wrong", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Float[Tensor, "K n classes"], y: Int[Tensor, " n"]) -> None:
        if len(logits) != self.draws:
            raise BoundError(
                f"{len(logits)} draws in this batch, {self.draws} were announced: use the same ones throughout"
            )
        self.wrong += zero_one(logits, y).double().sum()
        self.count += len(y)

    def compute(self) -> Tensor:
        if not self.count:
            raise BoundError("KLInverseCertificate has seen no examples: a mean over none does not exist")
        return seeger(self.inverted, self.kl, int(self.count), self.delta - self.delta_mc)

    @property
    def risk(self) -> Tensor:
        """Mean error over draws and examples, from whole numbers: however they came, the same bits."""
        return self.wrong / (self.draws * self.count)

    @property
    def inverted(self) -> Tensor:
        """What the risk of all draws is at most, at confidence delta_mc."""
        return monte_carlo_risk(self.risk, self.draws, self.delta_mc)

    def bound(self, facts: Facts = NOTHING_CLAIMED) -> BoundResult:
        """The value with its kind, which follows from the facts; that the risk was inverted is one of them already."""
        value = self.compute()
        terms: dict[str, Number] = {
            "risk": self.risk, "risk after Monte Carlo": self.inverted, "KL/n": self.kl / int(self.count),
        }  # fmt: skip
        return assemble("seeger", value, replace(facts, risk="inverted"), terms)


class ExpectedCalibrationError(MulticlassCalibrationError):
    """torchmetrics' own, with 15 bins and the L1 form."""

    def __init__(self, num_classes: int = 10, n_bins: int = 15, **kwargs: Any) -> None:
        super().__init__(num_classes=num_classes, n_bins=n_bins, norm="l1", **kwargs)
