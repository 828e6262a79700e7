"""C(lambda, p) of priors that nobody trains (C1 to C3 of section 8): one prior measured, and a sweep of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pytorch_lightning as L
import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

from logsobolev_bounds.complexity import ComplexityError, Mode, grid, of_prior
from logsobolev_bounds.data import Examples
from logsobolev_bounds.mgf import subgamma_fit
from logsobolev_bounds.models import Name, build
from logsobolev_bounds.streams import stream
from logsobolev_bounds.theory import relu_prior_loss_grad_sq

FIT_POINTS = 20  # lambdas of the sub-gamma fit


def fit_grid(largest: float, points: int) -> Float[Tensor, " T"]:
    """alpha from 0 to `largest`; the lambdas of the fit are points of it.

    Raises:
        ComplexityError (a ValueError): fewer than 17 points, or a number of them that the fit's lambdas are not among.
    """
    alphas = grid(largest, points)
    if (points - 1) % FIT_POINTS:
        raise ComplexityError(
            f"points is {points}: the fit takes {FIT_POINTS} lambdas from the grid, so points - 1 has to be a multiple "
            f"of {FIT_POINTS}: take 21, 41, 61, 81, ..."
        )
    return alphas


def measure(
    data: Examples,
    seed: int,
    sigma_p: float,
    network: Name | None = None,
    depth: int = 0,
    width: int = 64,
    bias: bool = False,
    norm: Literal["none", "group"] = "none",
    draws: int = 100,
    examples: int | None = None,
    largest: float = 1.0,
    points: int = 81,
    modes: Sequence[Mode] = get_args(Mode),
    device: str = "cpu",
    kept: Path | None = None,
) -> dict[str, Any]:
    """For every covariance mode the gradient norm, C and its fit, and the inequality's ratio.

    `ratio/<mode>` is psi / bound of every draw at alpha = 1, or at `largest` where the grid ends before (`ratio_alpha`
    says which): above 1 the inequality does not hold for that draw.

    Args:
        data: after its `setup`. seed: of the draws, and of which examples are looked at.
        network, depth, width, bias, norm: see `models.build` (default: linear, or an MLP of that depth).
        draws: K. examples: N of them (default: all).
        largest: largest lambda as a multiple of m. points: T, of the grid up to it, see `fit_grid`.
        device: of the networks, `cpu` or `cuda`; draws come from the CPU's generator and are the same on both.
        kept: a file that a run which was stopped goes on from, see `complexity.of_prior`.

    Raises:
        ComplexityError (a ValueError): what `fit_grid` refuses.
        UserError: `device` is not there, `kept` is damaged.
    """
    alphas = fit_grid(largest, points)
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"prior.device is {device}: PyTorch sees no GPU here, set it to cpu")
    m, n = data.m, min(examples or data.m, data.m)
    name: Name = network or ("mlp" if depth else "linear")
    net = build(name, data.inputs, data.classes, sigma_p, depth, width, bias, norm=norm)
    # Another part of the training set for each seed, where not all of it is looked at.
    rows = torch.randperm(m, generator=stream(seed, "images"))[:n]
    x, y = data.x[rows].to(device), data.y[rows].to(device)
    at = min(1.0, largest)
    out: dict[str, Any] = {"ratio_alpha": at}
    measured = of_prior(net.to(device), draws, stream(seed, "prior draws"), x, y, alphas, modes, at, kept=kept)
    for mode, found in measured.items():
        lams = [largest * m * (j + 1) / FIT_POINTS for j in range(FIT_POINTS)]
        pairs = [found.complexity(lam, m) for lam in lams]
        c = torch.tensor([value for value, _ in pairs], dtype=torch.float64)
        out |= {f"C/{mode}": float(c[-1]), f"ess/{mode}": pairs[-1][1], f"grad_sq/{mode}": float(found.grad_sq.mean())}
        if bool(c.isfinite().all()) and bool((c > 0).all()):
            fit = subgamma_fit(torch.tensor(lams, dtype=torch.float64), c)
            out |= {f"v/{mode}": fit.v, f"c/{mode}": fit.c, f"rms/{mode}": fit.rms}
        out[f"curve/C_{mode}"] = c.tolist()
        out[f"curve/ess_{mode}"] = [ess for _, ess in pairs]
        ratio = found.ratio
        out |= {
            f"ratio_mean/{mode}": float(ratio.mean()), f"violated/{mode}": float((ratio > 1).double().mean()),
            f"ratio_worst/{mode}": float(ratio.max()), f"ratio/{mode}": [float(f"{v:.5g}") for v in ratio.tolist()],
        }  # fmt: skip
        if mode == "identity":
            out |= {"loss": float(found.loss.mean()), "log_grad_sq": math.log(float(found.grad_sq.mean()))}
    if name in ("linear", "mlp") and "log_grad_sq" in out:
        layers = depth if name == "mlp" else 0
        out["predicted_grad_sq"] = relu_prior_loss_grad_sq(data.inputs, width, layers, sigma_p, data.classes)
        out["log_over_predicted"] = abs(out["log_grad_sq"] - math.log(out["predicted_grad_sq"]))
    out["m"] = float(m)
    return out


class PriorComplexity(L.LightningModule):
    """C of Gaussian priors over a sweep of deviations and depths, on a grid of lambda; nothing is trained.

        trainer.validate(PriorComplexity(sigma_p=[0.05, 0.1], depth=[0, 1]), datamodule=Examples("digits"))

    Logs `C/<mode>`, `ess/<mode>`, `grad_sq/<mode>` ... of `measure`, behind `s<sigma_p>_d<depth>/` where there are
    several priors; `results()` has the curves and the draws too. The bound is on the training examples, which the data
    module holds whole: batches play no part. The same seed gives the same bits on one device.

    Args:
        sigma_p, depth: one of each, or several: every pair is measured.
        seed: of the draws.
        others: of `measure`.

    Raises:
        UserError: no prior, a deviation that is not positive, a negative depth, draws or examples below 1, an unknown
            mode.
    """

    def __init__(
        self,
        sigma_p: float | Sequence[float] = 0.1,
        depth: int | Sequence[int] = 0,
        network: Name | None = None,
        width: int = 64,
        bias: bool = False,
        norm: Literal["none", "group"] = "none",
        draws: int = 100,
        examples: int | None = None,
        largest: float = 1.0,
        points: int = 81,
        modes: Sequence[Mode] = get_args(Mode),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.sigma_p = list(sigma_p) if isinstance(sigma_p, Sequence) else [sigma_p]
        self.depth = list(depth) if isinstance(depth, Sequence) else [depth]
        if not self.sigma_p or not self.depth:
            raise UserError("sigma_p and depth: give at least one of each")
        if not all(math.isfinite(s) and s > 0 for s in self.sigma_p):
            raise UserError(f"sigma_p is {self.sigma_p}: every deviation has to be > 0")
        if min(self.depth) < 0:
            raise UserError(f"depth is {self.depth}: there are 0 hidden layers or more")
        if draws < 1 or (examples is not None and examples < 1):
            raise UserError(f"draws is {draws} and examples {examples}: both have to be at least 1")
        for mode in modes:
            if mode not in get_args(Mode):
                raise UserError(f"unknown covariance {mode!r}: there are {', '.join(get_args(Mode))}")
        fit_grid(largest, points)
        self.seed = seed
        self.settings: dict[str, Any] = {
            "network": network, "width": width, "bias": bias, "norm": norm, "draws": draws, "examples": examples,
            "largest": largest, "points": points, "modes": tuple(modes),
        }  # fmt: skip
        self.found: dict[str, Any] = {}

    def validation_step(self, batch: Any, index: int) -> None:
        """The whole sweep, once: the data module's one step of validation."""
        data = cast(Examples, self.trainer.datamodule)  # type: ignore[attr-defined]
        self.found = {}
        pairs = list(itertools.product(self.sigma_p, self.depth))
        for sigma_p, depth in pairs:
            head = f"s{sigma_p:g}_d{depth}/" if len(pairs) > 1 else ""
            for key, value in measure(data, self.seed, sigma_p, depth=depth, **self.settings).items():
                self.found[head + key] = value
        numbers = {k: v for k, v in self.found.items() if isinstance(v, int | float) and math.isfinite(v)}
        self.log_dict(numbers, batch_size=1)

    def configure_optimizers(self) -> None:
        """None: nothing is trained."""

    def results(self) -> dict[str, Any]:
        return dict(self.found)
