"""The networks of section 4 as functions of explicit weights. The papers' exact sizes are not known: ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor, nn

from logsobolev_bounds.layers import MANY, Bayes, BayesConv2d, BayesLinear, Weights

Name = Literal["linear", "mlp", "lenet", "resnet20"]
Draw = list[Weights]  # one explicit set of weights, layer by layer


class BayesNet(nn.Module):
    """A network of Bayesian layers: `run` is the architecture, whatever the layers compute."""

    layers: Sequence[Bayes]

    def run(self, x: Tensor, layer: Callable[[int, Tensor], Tensor]) -> Tensor:
        raise TypeError("a network states its architecture")

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        """Logits with weights sampled for each example: training only, see `layers`."""
        return self.run(x, lambda i, h: self.layers[i](h))

    def at(self, draw: Draw, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        """Logits with one explicit draw for all examples."""
        return self.run(x, lambda i, h: self.layers[i].at(h, draw[i]))

    def kl(self) -> Float[Tensor, ""]:
        """KL(posterior || prior), the sum over all layers; in float64 throughout where there are many weights."""
        wide = self.weights() > MANY
        return torch.stack([layer.kl(wide).double() for layer in self.layers]).sum()

    def draws(self, k: int, generator: torch.Generator, prior: bool = False) -> list[Weights]:
        """k explicit draws from the posterior (or the prior): of every layer stacked weights [k, ...].

        A draw takes all its numbers before the next one does: k draws at once are the same as in several calls.
        """
        each = [
            [layer.prior_draws(1, generator) if prior else layer.draws(1, generator) for layer in self.layers]
            for _ in range(k)
        ]
        return [
            Weights(torch.cat([w.weight for w in layer]), torch.cat([w.bias for w in layer if w.bias is not None]))
            if layer[0].bias is not None
            else Weights(torch.cat([w.weight for w in layer]), None)
            for layer in zip(*each)
        ]

    def weights(self) -> int:
        """How many weights have a posterior."""
        return sum(layer.mu.numel() + (0 if layer.bias_mu is None else layer.bias_mu.numel()) for layer in self.layers)


def one(stacked: Sequence[Weights], k: int) -> Draw:
    """Draw k of stacked ones."""
    return [Weights(w.weight[k], None if w.bias is None else w.bias[k]) for w in stacked]


class MLP(BayesNet):
    """d -> h -> ... -> classes with `depth` hidden layers of ReLUs; depth 0 is the linear model."""

    def __init__(
        self, inputs: int, classes: int, depth: int, width: int, sigma_p: float, bias: bool, init_scale: float
    ) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth, classes]
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            BayesLinear(a, b, sigma_p, bias, init_scale) for a, b in itertools.pairwise(sizes)
        )

    def run(self, x: Tensor, layer: Callable[[int, Tensor], Tensor]) -> Tensor:
        x = x.flatten(1)
        for i in range(len(self.layers)):
            x = layer(i, F.relu(x) if i else x)
        return x


class LeNet(BayesNet):
    """conv 5x5 to 16, ReLU, mean pool, conv 5x5 to 32, ReLU, mean pool, linear; for 28 x 28 images."""

    def __init__(self, classes: int, sigma_p: float, bias: bool, init_scale: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            [
                BayesConv2d(1, 16, 5, sigma_p, 2, bias=bias, init_scale=init_scale),
                BayesConv2d(16, 32, 5, sigma_p, 2, bias=bias, init_scale=init_scale),
                BayesLinear(32 * 7 * 7, classes, sigma_p, bias, init_scale),
            ]
        )

    def run(self, x: Tensor, layer: Callable[[int, Tensor], Tensor]) -> Tensor:
        x = x.view(len(x), 1, 28, 28)
        for i in range(2):
            x = F.avg_pool2d(F.relu(layer(i, x)), 2)
        return layer(2, x.flatten(1))


BLOCKS, WIDTHS = 3, (16, 32, 64)


class ResNet20(BayesNet):
    """Three stages of three basic blocks, parameter-free shortcuts, for 32 x 32 images.

    Never batch normalisation: it couples examples, and the bound's exponent is one of independent ones.

    Args:
        norm: `none` (every branch is scaled by 1/3, the root of the number of blocks) or `group` (8 groups, no gain).
    """

    def __init__(
        self, classes: int, sigma_p: float, bias: bool, init_scale: float, norm: Literal["none", "group"] = "none"
    ) -> None:
        super().__init__()
        if norm not in ("none", "group"):
            raise UserError(f"unknown norm {norm!r}: there are none, group (batch normalisation couples examples)")
        self.norm = norm

        def conv(a: int, b: int, stride: int = 1) -> BayesConv2d:
            return BayesConv2d(a, b, 3, sigma_p, 1, stride, init_scale=init_scale)

        layers: list[Bayes] = [conv(3, WIDTHS[0])]
        before = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for block in range(BLOCKS):
                layers += [conv(before, width, 2 if stage and not block else 1), conv(width, width)]
                before = width
        layers.append(BayesLinear(before, classes, sigma_p, bias, init_scale))
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]

    def _normed(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 8) if self.norm == "group" else x

    def run(self, x: Tensor, layer: Callable[[int, Tensor], Tensor]) -> Tensor:
        x = F.relu(self._normed(layer(0, x.view(len(x), 3, 32, 32))))
        at = 1
        for stage, width in enumerate(WIDTHS):
            for block in range(BLOCKS):
                h = F.relu(self._normed(layer(at, x)))
                h = self._normed(layer(at + 1, h))
                if stage and not block:  # every second pixel, and zeros for the new channels
                    x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, width - x.shape[1]))
                x = F.relu(x + (h if self.norm == "group" else h / (BLOCKS * len(WIDTHS)) ** 0.5))
                at += 2
        return layer(at, x.mean((2, 3)))


def build(
    name: Name,
    inputs: int,
    classes: int = 10,
    sigma_p: float = 0.1,
    depth: int = 1,
    width: int = 64,
    bias: bool = False,
    init_scale: float = 0.5,
    norm: Literal["none", "group"] = "none",
) -> BayesNet:
    """A network by name.

    Args:
        inputs: pixels (times channels) of an image.
        depth, width: hidden layers of the mlp, and their width.
        norm: of resnet20.

    Raises:
        UserError: a name that does not exist (the known are listed); a size that the network does not take.
    """
    if name not in get_args(Name):
        raise UserError(f"unknown network {name!r}: there are {', '.join(get_args(Name))}")
    if name == "linear":
        return MLP(inputs, classes, 0, 0, sigma_p, bias, init_scale)
    if name == "mlp":
        if depth < 1 or width < 1:
            raise UserError(f"depth is {depth} and width {width}: an mlp has at least one hidden layer of one unit")
        return MLP(inputs, classes, depth, width, sigma_p, bias, init_scale)
    wanted = {"lenet": 28 * 28, "resnet20": 3 * 32 * 32}[name]
    if inputs != wanted:
        raise UserError(f"{name} takes images of {wanted} numbers, these have {inputs}: choose linear or mlp")
    if name == "lenet":
        return LeNet(classes, sigma_p, bias, init_scale)
    return ResNet20(classes, sigma_p, bias, init_scale, norm)
