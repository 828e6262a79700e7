"""The two backprop baselines (section 3).

`label` is an ordinary classifier; `pairwise` is forward-forward's global loss with the gradients let through the layer
inputs: the third rung of the ladder own residual, shared residual, backprop.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from forward_forward.collaboration import gamma_mask, local_losses
from forward_forward.goodness import Goodness, Norm, absolute_theta
from forward_forward.labels import overlay
from forward_forward.metrics import GoodnessMetrics, error_percent
from forward_forward.model import ForwardForwardNet, LabelNet
from forward_forward.negatives import uniform_negatives
from forward_forward.pair_module import Decay, PairModule, check_positive


class Backprop(PairModule):
    """End-to-end baselines on the same minibatches.

    Args:
        form: `label` (image without code, linear head, cross entropy) or `pairwise` (goodness loss of `all`, not cut).
        hidden, theta, theta_unit, tau, norm, kind, lr, decay: as in `ForwardForward`; Adam.
    """

    def __init__(
        self,
        hidden: list[int],
        form: Literal["label", "pairwise"] = "label",
        theta: float = 1.0,
        theta_unit: Literal["absolute", "width"] = "width",
        tau: float = 1.0,
        tau_unit: Literal["absolute", "width"] = "absolute",
        norm: Norm = "rms",
        kind: Goodness = "sum",
        lr: float = 1e-3,
        decay: Decay = "second_half",
    ) -> None:
        super().__init__(hidden, decay)
        check_positive(theta=theta, tau=tau, lr=lr)
        self.form, self.norm, self.kind, self.lr = form, norm, kind, lr
        self.theta = torch.tensor([absolute_theta(theta, theta_unit, w, kind) for w in hidden])
        self.tau = tau * hidden[0] if tau_unit == "width" and kind == "sum" else tau
        self.mask = gamma_mask("all", len(hidden))

    def configure_model(self) -> None:
        if hasattr(self, "net"):
            return
        data = self.pair_data
        self.net: LabelNet | ForwardForwardNet
        if self.form == "label":
            self.net = LabelNet(data.image_size, self.hidden, data.classes)
        else:
            self.net = ForwardForwardNet(data.image_size, self.hidden, data.classes, self.norm, self.kind)
            self.net.head.requires_grad_(False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in self.net.parameters() if p.requires_grad], lr=self.lr, fused=True)

    def loss(self, images: Tensor, labels: Tensor, u: Tensor) -> Tensor:
        if isinstance(self.net, LabelNet):
            return F.cross_entropy(self.net(images), labels)
        net = self.net
        wrong = uniform_negatives(labels, u, net.classes)
        x = torch.cat([overlay(images, y, net.classes, net.strength) for y in (labels, wrong)])
        theta, mask = self.theta.to(x), self.mask.to(x)
        _, g = local_losses(
            x, list(net.weights), list(net.biases), mask, theta,
            positives=len(labels), norm=self.norm, kind=self.kind, cut=False,
        )  # fmt: skip
        # `all` gives every layer the same logit; one global loss, with the gradient through every term of the sum.
        sign = torch.cat([-torch.ones_like(labels), torch.ones_like(labels)])
        return F.softplus(sign * (g.sum(1) - theta[0]) / self.tau).mean()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        rows = slice(self.global_rank, None, self.trainer.world_size)
        images, labels, u = (t[rows] for t in batch)
        optimiser = self.optimizers()
        share = self.trainer.world_size * len(labels) / len(batch[1])  # mean over the whole minibatch
        optimiser.zero_grad()  # type: ignore[union-attr]
        loss = self.loss(images, labels, u)
        self.manual_backward(loss * share)
        optimiser.step()  # type: ignore[union-attr]
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True)

    @torch.no_grad()
    def evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        images, labels = batch
        if isinstance(self.net, LabelNet):
            self._metrics.setdefault(split, LabelErrors()).add(self.net(images), labels)
        else:
            self._metrics.setdefault(split, GoodnessMetrics().to(self.device)).update(
                self.net.goodness_all_labels(images), labels
            )


class LabelErrors:
    """Error of a classifier over a data set."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []

    def add(self, scores: Tensor, labels: Tensor) -> None:
        self.scores.append(scores)
        self.labels.append(labels)

    def compute(self) -> dict[str, Any]:
        return {"error": error_percent(torch.cat(self.scores), torch.cat(self.labels))}
