"""How a Bayesian network trains (section 4 and 8, C4), and what a bound on it says while it does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import pytorch_lightning as L
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from shared.errors import UserError
from torch import Tensor

from logsobolev_bounds import losses
from logsobolev_bounds.certify import DELTA_MC, LAMBDAS, MODES, certificates, posterior_risks
from logsobolev_bounds.complexity import Mode, grid, loss_and_gradient
from logsobolev_bounds.data import Examples, covariance
from logsobolev_bounds.models import BayesNet, Name, build
from logsobolev_bounds.streams import run_seed, stream

Objective = Literal["elbo", "quadratic", "lambda", "maurer"]
MadeWith = dict[str, float | str]  # what a checkpoint has to have in common with a configuration
# The terms of a bound through a log-MGF, as metrics are named.
TERMS = {
    "risk": "risk", "KL/lambda": "KL_over_lambda", "ln(1/delta)/lambda": "confidence_over_lambda",
    "C/lambda": "C_over_lambda",
}  # fmt: skip
PRIOR_MEANS = ("prior_mu", "prior_bias_mu")  # of a layer, in a checkpoint
LOOK_DRAWS = 20  # posterior draws of a look during training
LOOK_EXAMPLES = 2000


class BayesClassifier(L.LightningModule):
    """A classifier with a Gaussian posterior, trained by a PAC-Bayes objective.

    Args:
        network: `linear`, `mlp`, `lenet` or `resnet20`; depth, width, bias, norm: see `models.build`.
        sigma_p: standard deviation of the prior. prior_mode: `fixed`, or `learnt_split`: its mean is learnt on
            `data.prior_fraction` of the examples first, and the bound is on the rest.
        init_scale: of the posterior's deviations at the start, as a part of sigma_p.
        objective: `elbo` (risk + KL/lambda), or `quadratic`, `lambda`, `maurer` with the clipped and scaled risk.
        lam: lambda of the elbo as a multiple of m.
        lr: of Adam, falling to 0 along a cosine.
        delta, p_min: of the objectives and the bounds.
        lambdas, prior_draws, bound_examples, points: of C, see `certify.certificates`.
        posterior_draws, certificate_draws: of risks.
        prior_epochs: of the learnt prior.
        covariances: that bounds through the log-Sobolev inequality assume (default: `certify.MODES`).

    Raises:
        UserError: a name that does not exist (the known are listed), or a value out of its range.
    """

    net: BayesNet

    def __init__(
        self,
        network: Name = "linear",
        depth: int = 1,
        width: int = 64,
        bias: bool = False,
        norm: Literal["none", "group"] = "none",
        sigma_p: float = 0.3,
        prior_mode: Literal["fixed", "learnt_split"] = "fixed",
        init_scale: float = 0.5,
        objective: Objective = "elbo",
        lam: float = 1.0,
        lr: float = 5e-3,
        delta: float = 0.05,
        p_min: float = 1e-4,
        lambdas: list[float] | None = None,
        prior_draws: int = 200,
        bound_examples: int | None = None,
        points: int = 65,
        posterior_draws: int = 200,
        certificate_draws: int = 1000,
        prior_epochs: int = 20,
        covariances: list[Mode] | None = None,
    ) -> None:
        super().__init__()
        for key, value, known in (("network", network, get_args(Name)), ("objective", objective, get_args(Objective))):
            if value not in known:
                raise UserError(f"unknown {key} {value!r}: there are {', '.join(known)}")
        if prior_mode not in ("fixed", "learnt_split"):
            raise UserError(f"unknown prior_mode {prior_mode!r}: there are fixed, learnt_split")
        if not DELTA_MC < delta < 1:
            raise UserError(f"delta is {delta}: it lies in ({DELTA_MC}, 1), as a certificate spends {DELTA_MC} of it")
        for key, number in {"sigma_p": sigma_p, "lam": lam, "lr": lr, "init_scale": init_scale}.items():
            if not number > 0:
                raise UserError(f"{key} is {number}: it has to be > 0")
        if not 0 < p_min < 1:
            raise UserError(f"p_min is {p_min}: it is a probability, in (0, 1)")
        if points < 17:
            raise UserError(f"points is {points}: the trapezoid rule needs at least 17")
        if min(prior_draws, posterior_draws, certificate_draws) < 1:
            raise UserError("prior_draws, posterior_draws and certificate_draws have to be at least 1")
        if prior_epochs < 1:
            raise UserError(f"prior_epochs is {prior_epochs}: it has to be at least 1")
        self.covariances = list(MODES) if covariances is None else covariances
        if not self.covariances or not set(self.covariances) <= set(get_args(Mode)):
            raise UserError(f"covariances: give at least one of {', '.join(get_args(Mode))}, not {covariances}")
        self.lambdas = list(LAMBDAS) if lambdas is None else lambdas
        if not self.lambdas or not min(self.lambdas) > 0:
            raise UserError(f"lambdas is {self.lambdas}: give multiples of m, each > 0")
        step = float(grid(max(self.lambdas), points)[1])
        for each in self.lambdas:
            if abs(each / step - round(each / step)) > 1e-6 * max(1.0, each / step):
                raise UserError(f"lambdas: {each} is no multiple of {max(self.lambdas)} / {points - 1}: change points")
        self.network, self.depth, self.width, self.bias, self.norm = network, depth, width, bias, norm
        self.sigma_p, self.prior_mode, self.init_scale = sigma_p, prior_mode, init_scale
        self.objective, self.lam, self.lr, self.delta, self.p_min = objective, lam, lr, delta, p_min
        self.prior_draws, self.bound_examples, self.points = prior_draws, bound_examples, points
        self.posterior_draws, self.certificate_draws = posterior_draws, certificate_draws
        self.prior_epochs = prior_epochs
        self.made_with: MadeWith = {}
        self.final: dict[str, float] = {}
        self.curves: dict[str, list[float]] = {}
        # t of the lambda objective is trained along with the posterior.
        self.t = torch.nn.Parameter(torch.tensor(1.0)) if objective == "lambda" else None

    # Set-up ----------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Examples:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def build(self, data: Examples) -> None:
        """The network for these data; what a checkpoint has to have in common with a configuration."""
        if hasattr(self, "net"):
            return
        self.net = build(
            self.network, data.inputs, data.classes, self.sigma_p, self.depth, self.width, self.bias, self.init_scale,
            self.norm,
        )  # fmt: skip
        if (self.prior_mode == "learnt_split") != (data.prior_fraction > 0):
            raise UserError(
                f"prior_mode is {self.prior_mode} and data.prior_fraction {data.prior_fraction}: a learnt prior needs "
                "a share of the examples, and a fixed one none"
            )
        # A learnt prior knows the examples that taught it, and those whose mean was subtracted from them.
        self.made_with = {
            "n": data.m, "delta": self.delta, "sigma_p": self.sigma_p, "prior_mode": self.prior_mode,
            "prior_fraction": data.prior_fraction, "center": data.center, "scale": data.scale,
            "examples": data.fingerprint,
        }  # fmt: skip

    def check_made_with(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise `UserError` where a checkpoint's prior, delta or examples are not the configuration's, or not known."""
        saved: MadeWith = checkpoint["made_with"]
        for key, value in self.made_with.items():
            if key not in saved:
                raise UserError(f"the checkpoint does not say its {key}: it is of an earlier version, train again")
            if saved[key] != value:
                raise UserError(f"the checkpoint was made with {key} = {saved[key]}, the configuration has {value}")
        means = (value for name, value in checkpoint["state_dict"].items() if name.endswith(PRIOR_MEANS))
        if self.prior_mode == "fixed" and any(bool(value.any()) for value in means):
            raise UserError(
                "the checkpoint holds a prior with a mean that was learnt, and the configuration says prior_mode = "
                "fixed: a bound on the examples that taught it would be false; give the configuration that it was "
                "trained with"
            )

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            # Every process would take the same steps on the same batches. One of them says so.
            if not self.trainer.is_global_zero:
                raise SystemExit(2)
            raise UserError(f"trainer.devices makes {self.trainer.world_size} processes: it trains in one, set it to 1")
        self.data.setup()
        self.build(self.data)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimiser = torch.optim.Adam(self.parameters(), self.lr)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.data.to_device(self.device)
        if self.prior_mode == "learnt_split" and not self.curves and not bool(self.net.layers[0].prior_mu.any()):
            self.learn_prior()

    def on_validation_start(self) -> None:
        self.data.to_device(self.device)

    def on_test_start(self) -> None:
        self.data.to_device(self.device)

    def learn_prior(self) -> None:
        """Means of the prior from examples that the bound is not on; the posterior starts there."""
        optimiser = torch.optim.Adam(self.net.parameters(), self.lr)
        x, y = self.data.x_prior, self.data.y_prior
        generator = stream(run_seed(), "learnt prior")
        for _ in range(self.prior_epochs):
            for rows in torch.randperm(len(y), generator=generator).split(self.data.batch_size):
                loss = F.cross_entropy(self.net(x[rows]), y[rows]) + self.net.kl() / max(1, len(y))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            for layer in self.net.layers:
                layer.prior_mu.copy_(layer.mu)
                if layer.bias_mu is not None:
                    layer.prior_bias_mu.copy_(layer.bias_mu)

    # Training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        nll = F.cross_entropy(self.net(x), y, reduction="none")
        kl = self.net.kl()
        loss = self.objective_value(nll, kl, self.data.m)
        self.log_dict({"train/nll": nll.detach().mean(), "train/kl": kl.detach()}, batch_size=len(y))
        return loss

    def objective_value(self, nll: Tensor, kl: Tensor, m: int) -> Tensor:
        """What is minimised; bounded objectives take the NLL clipped at ln(1/p_min) and scaled to [0, 1]."""
        if self.objective == "elbo":
            return losses.elbo(nll.mean(), kl, m, lam=self.lam * m)
        risk = (nll / -math.log(self.p_min)).clamp_max(1).mean()
        if self.objective == "quadratic":
            return losses.quadratic(risk, kl, m, self.delta)
        if self.objective == "maurer":
            return losses.maurer(risk, kl, m, self.delta)
        assert self.t is not None
        return losses.lambda_(risk, kl, m, self.delta, 2 * torch.sigmoid(self.t))  # t in (0, 2)

    # Looks -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Risks on test examples; `train.py validate` (a checkpoint of its own) asks for every bound, too."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self.test_step(batch, batch_idx)
        found = posterior_risks(
            self.net, self.data.x_test, self.data.y_test, LOOK_DRAWS, self.p_min, stream(run_seed(), "look")
        )
        values = {
            "val/nll": found["nll"], "val/err_gibbs": found["gibbs"], "val/err_ensemble": found["ensemble"],
            "val/ece": found["ece"], "train/kl": float(self.net.kl().detach()),
        }  # fmt: skip
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)
        self.log_dict(values, batch_size=1)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Every bound, and the posterior's input gradients."""
        dry = bool(getattr(self.trainer, "fast_dev_run", False))
        # A dry run has few, but two examples of every class.
        few = {"prior_draws": 3, "examples": 200, "posterior_draws": 3, "certificate_draws": 5} if dry else {}
        with torch.inference_mode(False):
            settings: dict[str, Any] = {
                "prior_draws": self.prior_draws, "examples": self.bound_examples, "points": self.points,
                "modes": self.covariances,
                "posterior_draws": self.posterior_draws, "certificate_draws": self.certificate_draws, **few,
            }  # fmt: skip
            results, about = certificates(
                self.net,
                self.data,
                self.delta,
                self.lambdas,
                p_min=self.p_min,
                seed=run_seed(),
                **settings,
            )
            n = min(LOOK_EXAMPLES, self.data.m)
            stacked = self.net.draws(LOOK_DRAWS, stream(run_seed(), "gradient norm"))
            x, y = self.data.x[:n], self.data.y[:n]
            self.final = {**about, "err_gibbs": about["test/gibbs"], "err_ensemble": about["test/ensemble"]}
            for name, sigma in (("grad/input_sq", None), ("grad/input_sq_sigma", covariance(self.data.x).to(x))):
                self.final[name] = float(loss_and_gradient(self.net, stacked, x, y, sigma)[1].double().mean())
            on_test = loss_and_gradient(self.net, stacked, self.data.x_test[:n], self.data.y_test[:n])[1]
            self.final["grad/input_sq_test"] = float(on_test.double().mean())
        for _, key, loss, each in results:
            self.final |= {f"bound/{key}": each.value, f"certificate/{key}": float(each.kind == "certificate")}
            if loss == "nll":  # how far it lies above what it bounds, as far as test examples tell
                self.final[f"margin/{key}"] = each.value - about["test/nll"]
            if each.C is not None and each.ess is not None:
                self.final |= {
                    f"ess/{key}": each.ess, f"C/{key}": each.C, f"C_over_lambda/{key}": each.terms["C/lambda"],
                    f"lambda_over_m/{key}": float(each.lam or 0) / self.data.m,
                }  # fmt: skip
            if key == "lsi":
                self.final |= {f"term/{TERMS[name]}": value for name, value in each.terms.items()}
                self.final |= {"bound/C": self.final["C/lsi"], "bound/ess": self.final["ess/lsi"]}
        self.log_dict({k: v for k, v in self.final.items() if math.isfinite(v)}, batch_size=1)

    def results(self) -> dict[str, Any]:
        """Risks, bounds and their flags by name, and curves over epochs."""
        final = {k: v for k, v in self.final.items() if math.isfinite(v)}
        return {**final, **{f"curve/{name}": values for name, values in self.curves.items()}}

    # Checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["made_with"], checkpoint["curves"] = self.made_with, self.curves

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_made_with(checkpoint)
        self.curves = checkpoint["curves"]


class BoundLogger(L.Callback):
    """Logs a bound beside the loss at validation and at the end: `bound/lsi`, `bound/C`, `bound/ess`, ...

    `bound/C` is C itself, in nats; `certificate/<bound>` is 1 for a certificate and 0 for an estimate.

    Args:
        every: validations from one look to the next. prior_draws, examples: of C, few as it is computed often.
    """

    def __init__(self, every: int = 1, prior_draws: int = 50, examples: int = 1000) -> None:
        if every < 1:
            raise UserError(f"every is {every}: it is a number of validations, at least 1")
        self.every, self.prior_draws, self.examples = every, prior_draws, examples
        self.last = -1  # the step of the last look

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, BayesClassifier)
        # The curves, which a checkpoint keeps, count the validations of a resumed run too.
        if not trainer.sanity_checking and len(pl_module.curves["val/nll"]) % self.every == 0:
            self.look(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, BayesClassifier)
        if trainer.global_step != self.last:
            self.look(trainer, pl_module)

    def look(self, trainer: L.Trainer, pl_module: BayesClassifier) -> None:
        self.last = trainer.global_step
        if not trainer.logger:
            return
        with torch.inference_mode(False):
            found, about = certificates(
                pl_module.net, pl_module.data, pl_module.delta, pl_module.lambdas, self.prior_draws, self.examples,
                pl_module.points, modes=("total",), posterior_draws=LOOK_DRAWS, certificate_draws=100,
                p_min=pl_module.p_min, seed=run_seed(),
            )  # fmt: skip
        values = {name: value for name, value in about.items() if name.startswith("subgamma/")}
        for _, key, _, each in found:
            values |= {f"bound/{key}": each.value, f"certificate/{key}": float(each.kind == "certificate")}
        lsi = found[0].result
        values |= {"bound/C": lsi.C or 0.0, "bound/ess": lsi.ess or 0.0}
        trainer.logger.log_metrics({k: v for k, v in values.items() if math.isfinite(v)}, step=trainer.global_step)
