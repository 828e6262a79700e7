"""How the network trains (sections 2.2 to 2.4 and 2.6): three schedules over closed-form layer gradients.

greedy         layers one after another, each for its share of the epochs, earlier layers frozen
alternate      for each layer in turn a new minibatch, gamma with the current parameters, that layer's update
simultaneous   one forward pass of a minibatch gives every goodness; every layer is updated from it
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from shared.errors import UserError
from torch import Tensor

from forward_forward.captured import CapturedStep, check_capturable
from forward_forward.collaboration import Schedule, check_schedule, collaborate, gamma_mask, losses, residuals
from forward_forward.entropy import entropy_objective, entropy_residuals
from forward_forward.goodness import Goodness, Norm, absolute_theta, goodness_slope
from forward_forward.kernels.ff_wgrad_step import Rule, ff_wgrad_step_, numbers_of
from forward_forward.metrics import GoodnessMetrics
from forward_forward.model import ForwardForwardNet, Init, Pass
from forward_forward.negatives import Negatives, hard_negatives, permuted_negatives, uniform_negatives
from forward_forward.optimiser import SmoothedSGD
from forward_forward.pair_module import Decay, PairModule, check_positive
from forward_forward.peer import Peer, PeerNormalisation

log = logging.getLogger(__name__)

Objective = Literal["sigmoid", "entropy", "entropy_raw"]


class ForwardForward(PairModule):
    """Forward-forward with or without layer collaboration.

    Args:
        hidden: widths of the layers.
        gamma: which layers collaborate: `none` (plain FF), `prev`, `all`, `next`, `neighbours`, or a k x k list of 0/1.
        gamma_weight: factor on gamma (the paper has none: 1).
        schedule: `greedy`, `alternate` or `simultaneous`; `stale_gamma` (alternate only): gamma with the parameters
            from before the sweep.
        theta, theta_unit: threshold, absolute or in units of the layer's width.
        tau: temperature in units of 1, or of the width with `tau_unit: width`. Default 1; width / 10 for `alternate`
            on normalised layers with summed goodness: there tau = 1 collapses (a step is large against the
            sigmoid, so layers updated in turn race each other).
        norm, kind, init, strength: see `ForwardForwardNet`.
        negatives: `uniform`, `hard` (needs the read-out; Hinton's scheme) or `permute`.
        objective: `sigmoid`, or `entropy` (scale-free) / `entropy_raw` (section 2.7).
        optimiser: `adam`, `sgd` or `smoothed` (Hinton's), one state per layer; lr, weight_decay.
        head: train the softmax read-out on neutral-label activities; head_lr, head_decay.
        peer: peer normalisation: `none`, `hinton` or `loss`.
        freeze_after: epoch from which each layer stops learning (None: never).
        dropout: share of the hidden activities dropped on their way to the next layer, in training.
        fused_step: weight gradient and optimiser in one pass (kernel K2b) for every layer but the first; one process,
            `adam` or `smoothed`, no peer normalisation.
        cuda_graph: replay the step as one CUDA graph (one GPU, Adam); see `captured`.

    Raises:
        UserError: any setting that the method does not allow, named with what it may be.
    """

    def __init__(
        self,
        hidden: list[int],
        gamma: str | list[list[int]] = "all",
        gamma_weight: float = 1.0,
        schedule: Schedule = "simultaneous",
        stale_gamma: bool = False,
        theta: float = 1.0,
        theta_unit: Literal["absolute", "width"] = "width",
        tau: float | None = None,
        tau_unit: Literal["absolute", "width"] = "absolute",
        norm: Norm = "rms",
        kind: Goodness = "sum",
        init: Init = "uniform",
        strength: float = 1.0,
        negatives: Negatives = "uniform",
        objective: Objective = "sigmoid",
        optimiser: Literal["adam", "sgd", "smoothed"] = "adam",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        decay: Decay = "second_half",
        head: bool = False,
        head_lr: float = 1e-3,
        head_decay: float = 0.0,
        peer: Peer = "none",
        freeze_after: list[int | None] | None = None,
        dropout: float = 0.0,
        fused_step: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__(hidden, decay)
        if fused_step and (optimiser == "sgd" or peer != "none"):
            raise UserError("fused_step is for the optimisers `adam` and `smoothed`, without peer normalisation")
        if cuda_graph and optimiser != "adam":
            raise UserError(f"cuda_graph needs the optimiser `adam`: the step size of `{optimiser}` is a number")
        if tau is None:
            if tau_unit == "width":
                raise UserError("tau_unit is given without tau: name the temperature, for example tau: 0.1")
            sharp = schedule == "alternate" and norm != "none" and kind == "sum"
            tau, tau_unit = (0.1, "width") if sharp else (1.0, "absolute")
        check_positive(theta=theta, tau=tau, lr=lr, strength=strength)
        if not 0 <= dropout < 1:
            raise UserError(f"dropout is {dropout}: it has to be in [0, 1)")
        mask = gamma_mask(gamma, len(hidden))
        check_schedule(schedule, mask)
        self.register_buffer("mask", mask, persistent=False)  # where the step is: it copies nothing to the device
        self.seen = [[i, *torch.nonzero(row).flatten().tolist()] for i, row in enumerate(mask)]
        if stale_gamma and schedule != "alternate":
            raise UserError("stale_gamma is an ablation of the schedule `alternate` only")
        if stale_gamma and (negatives == "hard" or dropout):
            raise UserError(
                "stale_gamma needs the same pairs in both passes: use negatives `uniform` or `permute`, dropout 0"
            )
        if freeze_after is not None and schedule == "greedy":
            raise UserError("freeze_after: the schedule `greedy` freezes the earlier layers by itself")
        if negatives == "hard" and not head:
            raise UserError("negatives `hard` are drawn from the softmax read-out: set head to true")
        if freeze_after is not None and len(freeze_after) != len(hidden):
            raise UserError(f"freeze_after has {len(freeze_after)} entries for {len(hidden)} layers (null: never)")
        if objective != "sigmoid" and schedule != "simultaneous":
            raise UserError("the entropy objective is over all layers at once: use the schedule `simultaneous`")
        self.gamma_weight, self.schedule, self.stale_gamma = gamma_weight, schedule, stale_gamma
        thresholds = torch.tensor([absolute_theta(theta, theta_unit, w, kind) for w in hidden])
        self.register_buffer("theta", thresholds, persistent=False)
        self.tau = tau * hidden[0] if tau_unit == "width" and kind == "sum" else tau
        self.norm, self.kind, self.init, self.strength = norm, kind, init, strength
        self.negatives, self.objective, self.dropout = negatives, objective, dropout
        self.optimiser, self.lr, self.weight_decay = optimiser, lr, weight_decay
        self.with_head, self.head_lr, self.head_decay = head, head_lr, head_decay
        self.peer_form, self.freeze_after = peer, freeze_after
        self.fused_step = fused_step
        self.cuda_graph, self.captured = cuda_graph, dict[tuple[int, ...], CapturedStep]()
        self.dropout_draws: torch.Generator | None = None

    mask: Tensor
    theta: Tensor

    def configure_model(self) -> None:
        if hasattr(self, "net"):
            return
        data = self.pair_data
        sizes = (data.image_size, self.hidden, data.classes)
        self.net = ForwardForwardNet(*sizes, self.norm, self.kind, self.init, self.strength)
        if self.peer_form != "none":
            self.peer = PeerNormalisation(self.hidden, self.peer_form)

    def setup(self, stage: str) -> None:
        data = self.pair_data
        data.streams = len(self.hidden) if self.schedule == "alternate" else 1
        if self.objective != "sigmoid" and self.trainer.world_size > 1:
            raise UserError("the entropy objective needs the whole minibatch in one process: use --trainer.devices 1")
        if self.fused_step and self.trainer.world_size > 1:
            raise UserError("fused_step never has the gradient that processes would add up: use --trainer.devices 1")
        if self.cuda_graph and stage == "fit":
            check_capturable(self.trainer.strategy.root_device, self.trainer.world_size)
        epochs = self.trainer.max_epochs or 1
        dry = getattr(self.trainer, "fast_dev_run", False)
        if self.schedule == "greedy" and epochs % len(self.hidden) and not dry:
            raise UserError(
                f"greedy shares the epochs among the layers: max_epochs has to be a multiple of {len(self.hidden)}"
            )

    @property
    def layer_epochs(self) -> int:
        epochs = int(self.trainer.max_epochs or 1)
        if self.schedule == "greedy" and not getattr(self.trainer, "fast_dev_run", False):
            return max(1, epochs // len(self.hidden))
        return epochs

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        def build(params: list[Tensor], lr: float, decay: float) -> torch.optim.Optimizer:
            if self.optimiser == "adam":
                rate = torch.tensor(lr, device=params[0].device) if self.cuda_graph else lr
                return torch.optim.Adam(params, rate, weight_decay=decay, fused=True, capturable=self.cuda_graph)
            if self.optimiser == "sgd":
                return torch.optim.SGD(params, lr=lr, weight_decay=decay)
            return SmoothedSGD(params, lr=lr, weight_decay=decay)

        layers = zip(self.net.weights, self.net.biases)
        built = [build([w, b], self.lr, self.weight_decay) for w, b in layers]
        return [*built, build([self.net.head], self.head_lr, self.head_decay)] if self.with_head else built

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.objective == "sigmoid":
            data = self.pair_data
            images = data.network_part(data.train_images[:500])
            with torch.no_grad():
                total = self.net.pairs(images, data.train_labels[None, :500]).goodness.sum(1).mean()
            threshold = float(self.theta.max())
            if self.mask.any() and float(total) > 3 * threshold:
                log.warning(
                    "the initial total goodness %.3g exceeds 3 theta = %.3g: all negatives are saturated and it may "
                    "collapse to an error of 80-90 %%; raise theta", float(total), 3 * threshold,
                )  # fmt: skip

    def active_layers(self) -> list[int]:
        layers = range(len(self.hidden))
        if self.schedule == "greedy":
            return [min(self.current_epoch // self.layer_epochs, len(self.hidden) - 1)]
        stops = self.freeze_after or [None] * len(self.hidden)
        return [i for i, stop in zip(layers, stops) if stop is None or self.current_epoch < stop]

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.schedule == "greedy":
            self.set_step_size(self.current_epoch % self.layer_epochs, self.layer_epochs)
        if self.dropout:
            self.dropout_draws = self.dropout_draws or torch.Generator(self.device)
            self.dropout_draws.manual_seed((torch.initial_seed() * 1_000_003 + self.current_epoch) % 2**63)
        self.reset_counts()

    def reset_counts(self) -> None:
        """Zero what is counted over an epoch, where it lies: a captured step adds to these very tensors."""
        if not hasattr(self, "_rows"):
            k, device = len(self.hidden), self.device
            self._loss, self._saturated, self._rows = (torch.zeros(k, device=device) for _ in range(3))
            self._fired = [torch.zeros(w, dtype=torch.bool, device=device) for w in self.hidden]
        for counted in (self._loss, self._saturated, self._rows, *self._fired):
            counted.zero_()

    # One minibatch ---------------------------------------------------------------------------------------------
    @torch.no_grad()
    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        if not self.cuda_graph:
            self.one_step(batch)
            return
        active = tuple(self.active_layers())
        if active not in self.captured:
            draws = [self.dropout_draws] if self.dropout_draws is not None else []
            self.captured[active] = CapturedStep(lambda *tensors: self.one_step(tensors), draws, self.count_steps)
        self.captured[active](*batch)

    def count_steps(self) -> None:
        """Tell Lightning of the optimiser steps that a replay has made."""
        optimisers = self.all_optimisers()
        for i in [*self.active_layers(), *([len(self.hidden)] if self.with_head else [])]:
            optimisers[i]._on_before_step()
            optimisers[i]._on_after_step()

    def one_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """What happens with a minibatch; captured or not, it is this. Nothing in it waits for the device."""
        if self.schedule == "alternate":
            self.sweep(batch)
            return
        passed, n = self.forward_pairs(
            *batch, up_to=None if self.schedule == "simultaneous" else self.active_layers()[0] + 1
        )
        logits = self.logits(passed.goodness)
        head = self.head_gradient(*self.part(batch), n) if self.with_head else None
        for i in self.active_layers():
            self.update(passed, i, logits[:, i], n)
        if head is not None:
            self.step(len(self.hidden), [(self.net.head, head)])

    def sweep(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        """`alternate` (the paper's Algorithm 2): for every layer its own minibatch, then its update."""
        batches = list(zip(*(t.unbind() for t in batch)))
        stale = [self.forward_pairs(x, y, u)[0].goodness for x, y, u in batches] if self.stale_gamma else None
        for i in self.active_layers():
            x, y, u = batches[i]
            passed, n = self.forward_pairs(x, y, u, up_to=max(self.seen[i]) + 1)
            logits = self.logits(passed.goodness)[:, i]
            if stale is not None:
                logits = self.logits(stale[i])[:, i] - stale[i][:, i] + passed.goodness[:, i]
            head = self.head_gradient(*self.part((x, y)), n) if self.with_head else None
            self.update(passed, i, logits, n)
            if head is not None:
                self.step(len(self.hidden), [(self.net.head, head)])

    def part(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """This process's rows of the minibatch (every process draws the whole one, so all agree on the draws)."""
        rows = slice(self.global_rank, None, self.trainer.world_size)
        return batch[0][rows], batch[1][rows]

    def forward_pairs(self, images: Tensor, labels: Tensor, u: Tensor, up_to: int | None = None) -> tuple[Pass, int]:
        if self.negatives == "uniform":
            wrong = uniform_negatives(labels, u, self.net.classes)
        elif self.negatives == "permute":
            wrong = permuted_negatives(labels, u)
        else:
            wrong = hard_negatives(self.net.neutral_activities(images) @ self.net.head, labels, u)
        rows = slice(self.global_rank, None, self.trainer.world_size)
        both = torch.stack([labels[rows], wrong[rows]])
        return self.net.pairs(images[rows], both, up_to, self.dropout, self.dropout_draws), labels.shape[0]

    def logits(self, g: Tensor) -> Tensor:
        k = g.shape[1]
        return collaborate(g, self.mask[:k, :k], self.gamma_weight, self.theta[:k])

    def update(self, passed: Pass, layer: int, logit: Tensor, n: int) -> None:
        """Closed-form gradient (section 2.2) and optimiser step of one layer; n is N of the whole minibatch."""
        positives = passed.labels.shape[1]
        if self.objective == "sigmoid":
            r = residuals(logit, positives, self.tau, batch=n)
            loss, largest = losses(logit[:, None], positives, self.tau)[0], torch.tensor(1 / (2 * n * self.tau))
        else:
            scale_free = self.objective == "entropy"
            r = entropy_residuals(passed.goodness, positives, scale_free)[:, layer]
            loss, largest = entropy_objective(passed.goodness, positives, scale_free), r.abs().max()
        ungated = None
        if self.peer_form != "none":
            active = self.sum_over_processes(passed.h[layer][:positives].sum(0))
            ungated = self.peer.gradient(layer, active, n)
        if self.fused_step and layer > 0:
            self.fused_update(passed, layer, r)
        else:
            dw, db = self.net.layer_gradient(passed, layer, r, ungated)
            self.step(layer, [(self.net.weights[layer], dw), (self.net.biases[layer], db)])
        self._loss[layer] += loss * len(logit)
        self._saturated[layer] += (r.abs() < 1e-3 * largest).sum()
        self._fired[layer] |= (passed.h[layer] > 0).any(0)
        self._rows[layer] += len(logit)

    def fused_update(self, passed: Pass, layer: int, r: Tensor) -> None:
        """Gradient and update of a layer in one pass, on the optimiser's own state (a run may switch either way)."""
        optimiser = self.all_optimisers()[layer]
        rule: Rule = "adam" if self.optimiser == "adam" else "smoothed"
        names = ("exp_avg", "exp_avg_sq") if rule == "adam" else ("v", "v")
        moments = []
        for parameter in (self.net.weights[layer], self.net.biases[layer]):
            state = optimiser.state[parameter]
            if not state:
                state.update({name: torch.zeros_like(parameter) for name in names})
                if rule == "adam":
                    state["step"] = torch.zeros((), device=parameter.device)
            if rule == "adam":
                state["step"] += 1
            moments += [state[name] for name in names]
        step = optimiser.state[self.net.weights[layer]].get("step", torch.zeros((), device=r.device))
        cr = goodness_slope(passed.h[layer].shape[1], self.kind) * r
        optimiser._on_before_step()
        m_weight, v_weight, m_bias, v_bias = moments
        ff_wgrad_step_(
            passed.fed[layer], passed.h[layer], cr * passed.s[layer], cr,
            self.net.weights[layer].data, self.net.biases[layer].data, m_weight, v_weight, m_bias, v_bias,
            numbers_of(optimiser.param_groups[0], step, rule, r.device), rule,
        )  # fmt: skip
        optimiser._on_after_step()

    def step(self, optimiser: int, gradients: list[tuple[torch.nn.Parameter, Tensor]]) -> None:
        for parameter, gradient in gradients:
            parameter.grad = self.sum_over_processes(gradient)
        self.all_optimisers()[optimiser].step()

    def head_gradient(self, images: Tensor, labels: Tensor, n: int) -> Tensor:
        """Cross entropy of the read-out, mean over N; its input (normalised activities) is a constant."""
        z = self.net.neutral_activities(images)
        p = (z @ self.net.head).softmax(1)
        p[torch.arange(len(labels), device=p.device), labels] -= 1
        return z.T @ p / n

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        rows = self._rows.clamp_min(1)
        for i in self.active_layers():
            self.log(f"train/loss_layer{i + 1}", self._loss[i] / rows[i])
            self.log(f"train/saturated_layer{i + 1}", 100 * self._saturated[i] / rows[i])
            self.log(f"train/dead_units_layer{i + 1}", 100 * (~self._fired[i]).float().mean())

    # Evaluation ------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        images, labels = batch
        if split not in self._metrics:
            self._metrics[split] = GoodnessMetrics().to(self.device)
        self._metrics[split].update(self.net.goodness_all_labels(images), labels)
        if self.with_head:
            self._softmax.setdefault(split, []).append(
                torch.stack([(self.net.neutral_activities(images) @ self.net.head).argmax(1), labels])
            )

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._softmax: dict[str, list[Tensor]] = {}

    on_test_epoch_start = on_validation_epoch_start

    def computed(self) -> dict[str, dict[str, Any]]:
        out = super().computed()
        for split, parts in self._softmax.items():
            guess, labels = torch.cat(parts, 1)
            out[split]["error_softmax"] = 100 * (guess != labels).double().mean()
        return out
