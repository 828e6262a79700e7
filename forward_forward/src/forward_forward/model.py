"""The forward-forward network (section 2.1): ReLU layers on normalised inputs, each with its goodness.

Weights are [in, out]. The first layer's weight is `[label rows (C) | image rows]`: positive and negative pairs share
the image product (`base`), and so do the C pairs of an image at evaluation.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forward_forward.goodness import Goodness, Norm, goodness, goodness_slope, row_scale
from forward_forward.kernels.ff_label_expand import ff_label_expand
from forward_forward.kernels.ff_linear import ff_linear_fwd
from forward_forward.kernels.ff_shared_first import ff_shared_first_fwd, ff_shared_first_wgrad
from forward_forward.kernels.ff_wgrad import ff_wgrad

Init = Literal["uniform", "fan_in"]


@dataclass
class Pass:
    """One forward pass of R label sets over N images; rows are label set by label set (positives first)."""

    images: Tensor  # [N, D] image part
    labels: Tensor  # [R, N]
    h: list[Tensor]  # activities of each layer, [R * N, width]
    s: list[Tensor]  # scale of each layer's INPUT: [N] for the first (the same for all labels), then [R * N]
    fed: list[Tensor]  # what each later layer was fed before scaling (activities after dropout); fed[0] is the image
    goodness: Float[Tensor, "rows k"]


class ForwardForwardNet(nn.Module):
    """`hidden` ReLU layers over `[label code | image part]`, and the optional softmax read-out (section 2.6).

    Args:
        image_size: entries of the image part (pixels, less C where the code overwrites pixels).
        hidden: width of each layer.
        norm, kind: normalisation between layers and form of the goodness.
        init: `uniform` U(+-1/sqrt(fan_in)) for weights and biases, or `fan_in` N(0, 1/fan_in) with zero biases.
        strength: height of the one-hot label code.
    """

    def __init__(
        self,
        image_size: int,
        hidden: list[int],
        classes: int = 10,
        norm: Norm = "rms",
        kind: Goodness = "sum",
        init: Init = "uniform",
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        self.classes, self.norm, self.kind, self.strength = classes, norm, kind, strength
        sizes = [classes + image_size, *hidden]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, width in itertools.pairwise(sizes):
            bound = 1 / math.sqrt(fan_in)
            w, b = torch.empty(fan_in, width), torch.zeros(width)
            if init == "uniform":
                w.uniform_(-bound, bound)
                b.uniform_(-bound, bound)
            else:
                w.normal_(0, bound)
            # The gradients are computed in closed form and written to .grad by the trainer.
            self.weights.append(nn.Parameter(w))
            self.biases.append(nn.Parameter(b))
        self.head = nn.Parameter(torch.zeros(sum(self.head_widths), classes))  # from 0, no trained bias

    @property
    def widths(self) -> list[int]:
        return [b.shape[0] for b in self.biases]

    @property
    def head_widths(self) -> list[int]:
        """The read-out sees all layers but the first (the only layer, where there is one)."""
        return self.widths[1:] or self.widths

    def parameter_count(self) -> int:
        """Weights and biases of the layers, without the read-out (table of section 3)."""
        return sum(p.numel() for p in [*self.weights, *self.biases])

    def _goodness(self, q: Tensor, layer: int) -> Tensor:
        return goodness(q, self.widths[layer], self.kind)

    def _scale(self, q: Tensor, layer: int) -> Tensor:
        return row_scale(q, self.widths[layer], self.norm)

    def input_scale(self, images: Float[Tensor, "n d"], code_norm2: float) -> Float[Tensor, " n"]:
        """Row scale of the network's input; all one-hot codes have one norm, so it does not depend on the label."""
        q = images.square().sum(1) + code_norm2
        return row_scale(q, self.weights[0].shape[0], self.norm)

    def pairs(
        self,
        images: Float[Tensor, "n d"],
        labels: Int[Tensor, "r n"],
        up_to: int | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Pass:
        """Forward pass of the pairs (image, label) for every row of `labels`, through the first `up_to` layers."""
        w0, b0 = self.weights[0], self.biases[0]
        s = self.input_scale(images, self.strength**2)
        base = images @ w0[self.classes :]
        h, q = ff_shared_first_fwd(base, s, w0[: self.classes], b0, self.strength, labels)
        out = Pass(images, labels, [h], [s], [images], torch.empty(0))
        values = [self._goodness(q, 0)]
        for i in range(1, up_to or len(self.weights)):
            s = self._scale(q, i - 1)
            if dropout:
                keep = torch.rand(h.shape, generator=generator, device=h.device) >= dropout
                h = h * keep / (1 - dropout)
            out.fed.append(h)
            h, q = ff_linear_fwd(h, s, self.weights[i], self.biases[i])
            out.h.append(h)
            out.s.append(s)
            values.append(self._goodness(q, i))
        out.goodness = torch.stack(values, 1)
        return out

    def layer_gradient(
        self,
        passed: Pass,
        layer: int,
        r: Float[Tensor, " rows"],
        ungated: Float[Tensor, " width"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`dW = z^T (c r h)`, `db = sum_n c r_n h_n` (section 2.2), without forming `dL/da`.

        `ungated`: a vector added to `dL/da` of every positive row whatever its ReLU (peer normalisation); its part of
        `dW` has rank one.
        """
        h, s, fed = passed.h[layer], passed.s[layer], passed.fed[layer]
        cr = goodness_slope(h.shape[1], self.kind) * r
        n = passed.labels.shape[1]
        if layer == 0:
            args = (passed.images, s, h, cr, passed.labels, self.strength, self.classes)
            dw_image, dw_label, db = ff_shared_first_wgrad(*args)
            dw = torch.cat([dw_label, dw_image])
            if ungated is not None:
                code = torch.zeros(self.classes, dtype=s.dtype, device=s.device)
                code.index_add_(0, passed.labels[0], self.strength * s)
                dw += torch.outer(torch.cat([code, s @ fed]), ungated)
        else:
            dw, db = ff_wgrad(fed, h, cr * s, cr)
            if ungated is not None:
                dw += torch.outer(s[:n] @ fed[:n], ungated)
        if ungated is not None:
            db = db + n * ungated
        return dw, db

    def goodness_all_labels(self, images: Float[Tensor, "n d"]) -> Float[Tensor, "n c k"]:
        """Goodness of every layer for all C labels; the image product of the first layer is done once per image."""
        w0, b0 = self.weights[0], self.biases[0]
        base = images @ w0[self.classes :]
        h, q = ff_label_expand(base, self.input_scale(images, self.strength**2), w0[: self.classes], b0, self.strength)
        values = [self._goodness(q, 0)]
        for i in range(1, len(self.weights)):
            h, q = ff_linear_fwd(h, self._scale(q, i - 1), self.weights[i], self.biases[i])
            values.append(self._goodness(q, i))
        return torch.stack(values, 1).view(images.shape[0], self.classes, -1)

    def neutral_activities(self, images: Float[Tensor, "n d"]) -> Float[Tensor, "n widths"]:
        """Normalised activities of the read-out's layers for the label code that names no class."""
        w0 = self.weights[0]
        s = self.input_scale(images, self.strength**2 / self.classes)
        code = w0[: self.classes].sum(0) * (self.strength / self.classes)
        h = torch.relu(s[:, None] * (images @ w0[self.classes :] + code) + self.biases[0])
        q, seen = h.square().sum(1), []
        for i in range(1, len(self.weights)):
            h, q = ff_linear_fwd(h, self._scale(q, i - 1), self.weights[i], self.biases[i])
            seen.append(h * self._scale(q, i)[:, None])
        return torch.cat(seen or [h * self._scale(q, 0)[:, None]], 1)


class LabelNet(nn.Module):
    """Baseline "backprop, label": the same hidden layers and a linear head, no label code, no normalisation."""

    def __init__(self, image_size: int, hidden: list[int], classes: int = 10) -> None:
        super().__init__()
        sizes = [image_size, *hidden]
        layers: list[nn.Module] = []
        for fan_in, width in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, width), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def forward(self, images: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return self.net(images)
