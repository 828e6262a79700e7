"""From coordinate-signal pairs to tokens (section 3), with the coordinate part computed once per grid.

    e_t = GELU(LN(Linear(tau(t)))),  e_x = GELU(LN(Linear(gamma(x)))),  e_y = GELU(LN(Linear(y)))
    token = GELU(LN(W [e_x, e_y, e_t] + b)),  W = [W_x, W_y, W_t]

By linearity W [e_x, e_y, e_t] = W_x e_x + W_y e_y + W_t e_t: the first term belongs to the grid, the last to the field,
and neither is computed for every pair (section 8.4). A class label adds a fourth term, W_l e_l.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_fields.errors import FieldError
from diffusion_fields.models.features import Normalize, TrainableEmbedding, fourier_features, timestep_features

Which = Literal["context", "query"]
SHORT: dict[Which, Literal["ctx", "qry"]] = {"context": "ctx", "query": "qry"}


class Feature(nn.Module):
    """GELU(LN(Linear(x))): the block that every input goes through."""

    def __init__(self, source: int, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(source, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.norm(self.linear(x)))


class LabelFeature(nn.Module):
    """GELU(LN(embedding)) of a class, with one class more than there are: the null class of guidance."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(num_classes + 1, width), nn.LayerNorm(width)

    def forward(self, label: Tensor) -> Tensor:
        return F.gelu(self.norm(self.embedding(label)))


class Tokeniser(nn.Module):
    """Tokens of the context and of the query set, each with its own weights; see the module's docstring.

    Args:
        coord_dim, signal_dim: widths c and s of coordinates and signals.
        num_freq: bands F of the coordinate features (``coord_embedding="fourier"``).
        d_model: width D of a token.
        signal_embedding: ``reference`` is e_y as above; ``raw`` puts y itself into the concatenation.
        coord_embedding: ``fourier``; ``trainable`` (a three-layer network); ``none`` (they are features already).
        freq_scale, normalize: see :func:`fourier_features`.
        num_classes: number of classes; None for a network without labels.
    """

    def __init__(
        self,
        coord_dim: int,
        signal_dim: int,
        num_freq: int,
        d_model: int,
        signal_embedding: Literal["reference", "raw"] = "reference",
        coord_embedding: Literal["fourier", "trainable", "none"] = "fourier",
        freq_scale: float = 1.0,
        normalize: Normalize = "none",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        choices = {
            "signal_embedding": (signal_embedding, ("reference", "raw")),
            "coord_embedding": (coord_embedding, ("fourier", "trainable", "none")),
            "normalize": (normalize, ("none", "per_set")),
        }
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise FieldError(f"{name} is {value!r}: use one of {', '.join(map(repr, allowed))}")
        sizes = {"coord_dim": coord_dim, "signal_dim": signal_dim, "d_model": d_model, "num_classes": num_classes}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise FieldError(f"{name} is {size}: it has to be 1 or more")
        if num_freq < 0:
            raise FieldError(f"num_freq is {num_freq}: a number of frequency bands is 0 or more")
        self.coord_dim, self.signal_dim, self.num_freq, self.num_classes = coord_dim, signal_dim, num_freq, num_classes
        self.freq_scale, self.coord_embedding, self.normalize = freq_scale, coord_embedding, normalize
        self.raw = signal_embedding == "raw"
        width = {"fourier": coord_dim * (1 + 2 * num_freq), "trainable": 128, "none": coord_dim}[coord_embedding]
        self.width, self.signal_width = width, signal_dim if self.raw else width
        if coord_embedding == "trainable":
            self.coords = TrainableEmbedding(coord_dim, width)
        self.t = Feature(width, width)
        if num_classes is not None:
            self.label = LabelFeature(num_classes, width)
        parts = [width, self.signal_width, width] + ([width] if num_classes is not None else [])
        for side in SHORT.values():
            self.add_module(f"{side}_x", Feature(width, width))
            # Built with raw signals too, frozen and unused: both forms then have the same weight names, and the
            # specification's count (35 992 for the quick network) includes these 2 p (s + 3) numbers.
            self.add_module(f"{side}_y", Feature(signal_dim, width).requires_grad_(not self.raw))
            self.add_module(f"{side}_cat", Feature(sum(parts), d_model))

    def embed(
        self, coords: Float[Tensor, "*batch point coord"], which: Which, mask: Bool[Tensor, "batch point"] | None = None
    ) -> Float[Tensor, "*batch point dim"]:
        """W_x e_x + b: all that the token of a point owes to where it is, for a grid (N, c) or points (B, N, c)."""
        self._check_coords(coords, which)
        side = SHORT[which]
        cat, feature = self._feature(f"{side}_cat"), self._feature(f"{side}_x")
        dtype = feature.linear.weight.dtype
        x = coords.to(dtype)
        if self._fuses(x):
            from diffusion_fields.kernels import fourier_linear

            h = fourier_linear(x.flatten(0, 1), feature.linear.weight, feature.linear.bias, self.freq_scale)
            e_x = F.gelu(feature.norm(h.unflatten(0, x.shape[:2])))
        else:
            e_x = feature(self._gamma(x, mask))
        return F.linear(e_x, cat.linear.weight[:, : self.width], cat.linear.bias)

    def signal(self, y: Float[Tensor, "batch point signal"], which: Which) -> Float[Tensor, "batch point width"]:
        """e_y, or y itself (``signal_embedding="raw"``)."""
        if y.dim() != 3 or y.shape[-1] != self.signal_dim:
            raise FieldError(
                f"{which}_signal has shape {tuple(y.shape)}: expected (batch, points, {self.signal_dim}), "
                f"since signal_dim is {self.signal_dim}"
            )
        feature = None if self.raw else self._feature(f"{SHORT[which]}_y")
        y = y.to(self.t.linear.weight.dtype)
        return y if feature is None else feature(y)

    def field(self, t: Tensor, batch: int, label: Int[Tensor, " batch"] | None) -> Float[Tensor, "batch field"]:
        """[e_t, e_l]: what all pairs of one field share."""
        if t.dim() > 1 or (t.dim() == 1 and t.shape[0] not in (1, batch)):
            raise FieldError(f"t has shape {tuple(t.shape)}: expected one diffusion step for each of {batch} fields")
        t = t.expand(batch)
        e_t = self.t(timestep_features(t, self.width).to(self.t.linear.weight.dtype))
        if self.num_classes is None:
            if label is not None:
                raise FieldError("label is given to a network without classes: build it with num_classes")
            return e_t
        if label is None:
            label = torch.full((batch,), self.num_classes, device=t.device)
        if label.shape != (batch,):
            raise FieldError(f"label has shape {tuple(label.shape)}: expected one class for each of {batch} fields")
        return torch.cat((e_t, self.label(label)), -1)

    def tokens(self, a_x: Tensor, e_y: Tensor, e_field: Tensor, which: Which) -> Float[Tensor, "batch point dim"]:
        """GELU(LN(W_x e_x + b + W_y e_y + W_t e_t)), the coordinate part ``a_x`` from :meth:`embed`."""
        cat = self._feature(f"{SHORT[which]}_cat")
        w_y = cat.linear.weight[:, self.width : self.width + self.signal_width]
        w_field = cat.linear.weight[:, self.width + self.signal_width :]
        a = F.linear(e_y, w_y) + F.linear(e_field, w_field).unsqueeze(1) + a_x
        return F.gelu(cat.norm(a))

    def _feature(self, name: str) -> Feature:
        feature = getattr(self, name)
        assert isinstance(feature, Feature)
        return feature

    def _gamma(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.coord_embedding == "fourier":
            return fourier_features(x, self.num_freq, self.freq_scale, self.normalize, mask)
        return self.coords(x) if self.coord_embedding == "trainable" else x

    def _fuses(self, x: Tensor) -> bool:
        """Points that differ from field to field, on a GPU: gamma(x) is then worth never writing to memory (8.1)."""
        plain = self.coord_embedding == "fourier" and self.normalize == "none"
        return plain and x.dim() == 3 and x.is_cuda and not x.requires_grad

    def _check_coords(self, coords: Tensor, which: Which) -> None:
        if coords.dim() not in (2, 3) or coords.shape[-1] != self.coord_dim or coords.shape[-2] == 0:
            raise FieldError(
                f"{which}_coords has shape {tuple(coords.shape)}: expected (points, {self.coord_dim}) or "
                f"(batch, points, {self.coord_dim}) with at least one point, since coord_dim is {self.coord_dim}"
            )
