"""The score network eps_theta(C_t, t, Q_t) of the paper: PerceiverIO over coordinate-signal pairs (section 3).

    z = latents;  for each block: z reads the context tokens, then itself        (encoder)
    queries read z                                                               (decoder)
    output = Linear([Linear(decoded), e_y of the query])                         (head)

The network comes in three calls that sampling uses one by one: :meth:`FieldNetwork.embed` once per grid,
:meth:`~FieldNetwork.encode_context` once per diffusion step, :meth:`~FieldNetwork.decode` once per chunk of queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_fields.errors import FieldError
from diffusion_fields.models.attention import Layer
from diffusion_fields.models.tokeniser import Tokeniser, Which


class FieldNetwork(nn.Module):
    """What every score network of this reproduction has: a tokeniser, a reading of the context, a decoder and a head.

    A subclass sets ``enc`` and ``dec`` and says what the tokens of the context become (:meth:`_read`) and what the
    tokens of the queries become in their light (:meth:`_decode`), up to the projection ``dec.proj``.
    """

    dec: nn.ModuleDict  # ends in "proj"

    def __init__(self, coord_dim: int, signal_dim: int, num_freq: int, d_model: int, **tokens: Any) -> None:
        super().__init__()
        self.tok = Tokeniser(coord_dim, signal_dim, num_freq, d_model, **tokens)
        self.head = nn.Linear(d_model + self.tok.signal_width, signal_dim)
        self.coord_dim, self.signal_dim, self.num_classes = coord_dim, signal_dim, self.tok.num_classes

    def forward(
        self,
        context_coords: Float[Tensor, "*batch context coord"],
        context_signal: Float[Tensor, "batch context signal"],
        t: Tensor,
        query_coords: Float[Tensor, "*batch query coord"],
        query_signal: Float[Tensor, "batch query signal"],
        label: Int[Tensor, " batch"] | None = None,
        context_mask: Bool[Tensor, "batch context"] | None = None,
    ) -> Float[Tensor, "batch query signal"]:
        """The network's output at the queries.

        Args:
            context_coords, query_coords: points, (N, c) when all fields share them, else (B, N, c).
            context_signal, query_signal: the noisy values there.
            t: diffusion steps, one per field.
            label: classes, ``num_classes`` standing for the null class; None is the null class for all.
            context_mask: True where a context pair exists; the others have no influence at all.
        """
        z = self.encode_context(context_coords, context_signal, t, label, context_mask)
        return self.decode(z, t, query_coords, query_signal, label)

    def embed(self, coords: Float[Tensor, "*batch point coord"], which: Which) -> Float[Tensor, "*batch point dim"]:
        """The part of the tokens that depends on coordinates alone; pass it as ``embedded``."""
        return self.tok.embed(coords, which)

    def encode_context(
        self,
        context_coords: Float[Tensor, "*batch context coord"],
        context_signal: Float[Tensor, "batch context signal"],
        t: Tensor,
        label: Int[Tensor, " batch"] | None = None,
        context_mask: Bool[Tensor, "batch context"] | None = None,
        embedded: Float[Tensor, "*batch context dim"] | None = None,
    ) -> Float[Tensor, "batch latent width"]:
        """The context as the decoder sees it (for PerceiverIO: the latents z), the same for every query."""
        mask = context_mask
        if mask is not None:
            if mask.shape != context_signal.shape[:2] or mask.dtype != torch.bool:
                raise FieldError(
                    f"context_mask has shape {tuple(mask.shape)} and type {mask.dtype}: "
                    f"expected booleans of shape {tuple(context_signal.shape[:2])}"
                )
            hidden = ~mask.unsqueeze(-1)  # what stands at a masked place may be anything, NaN included
            context_signal = context_signal.masked_fill(hidden, 0.0)
            if context_coords.dim() == 3:
                context_coords = context_coords.masked_fill(hidden, 0.0)
        e_y = self.tok.signal(context_signal, "context")
        e_field = self.tok.field(t, e_y.shape[0], label)
        a_x = self.tok.embed(context_coords, "context", mask) if embedded is None else embedded
        return self._read(self._tokens(a_x, e_y, e_field, "context"), mask)

    def decode(
        self,
        z: Float[Tensor, "batch latent width"],
        t: Tensor,
        query_coords: Float[Tensor, "*batch query coord"],
        query_signal: Float[Tensor, "batch query signal"],
        label: Int[Tensor, " batch"] | None = None,
        embedded: Float[Tensor, "*batch query dim"] | None = None,
    ) -> Float[Tensor, "batch query signal"]:
        """The output at the queries, given :meth:`encode_context`'s result for the same fields and steps."""
        e_y = self.tok.signal(query_signal, "query")
        if z.shape[0] != e_y.shape[0]:
            raise FieldError(
                f"query_signal has {e_y.shape[0]} fields: expected {z.shape[0]}, as many as the context has"
            )
        e_field = self.tok.field(t, e_y.shape[0], label)
        a_x = self.tok.embed(query_coords, "query") if embedded is None else embedded
        x = self._decode(z, self._tokens(a_x, e_y, e_field, "query"))
        # head([proj(x), e_y]) with the two linear maps of x multiplied first: s x D numbers instead of N x D a field
        proj, (w_x, w_y) = self.dec["proj"], self.head.weight.split([x.shape[-1], e_y.shape[-1]], 1)
        out = F.linear(x, w_x @ proj.weight, w_x @ proj.bias + self.head.bias)
        return out + F.linear(e_y, w_y)

    def num_parameters(self) -> int:
        """How many numbers the network has (with raw signals, 2 p (s + 3) of them are frozen)."""
        return sum(p.numel() for p in self.parameters())

    def load_reference(self, arrays: Mapping[str, Any]) -> None:
        """Take the ``w/<name>`` arrays of a golden file as weights; the other entries are ignored.

        Raises:
            FieldError: (a ValueError) a weight is missing, surplus or has another shape; the message names it.
        """
        given = {name.removeprefix("w/"): np.asarray(arrays[name]) for name in arrays if name.startswith("w/")}
        own = self.state_dict()
        if missing := sorted(own.keys() - given.keys()):
            raise FieldError(f"the reference has no weight {missing[0]!r} ({len(missing)} missing): check the sizes")
        if surplus := sorted(given.keys() - own.keys()):
            raise FieldError(f"the network has no weight {surplus[0]!r} ({len(surplus)} surplus): check the sizes")
        for name, value in own.items():
            if given[name].shape != tuple(value.shape):
                raise FieldError(f"weight {name!r} has shape {given[name].shape}: expected {tuple(value.shape)}")
        self.load_state_dict({name: torch.from_numpy(array) for name, array in given.items()})

    def _tokens(self, a_x: Tensor, e_y: Tensor, e_field: Tensor, which: Which) -> Tensor:
        if a_x.shape[-2] != e_y.shape[1] or (a_x.dim() == 3 and a_x.shape[0] != e_y.shape[0]):
            raise FieldError(
                f"{which}_coords has {tuple(a_x.shape[:-1])} points and {which}_signal {tuple(e_y.shape[:-1])}: "
                "expected a coordinate for every value"
            )
        return self.tok.tokens(a_x, e_y, e_field, which)

    def _read(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _decode(self, z: Tensor, queries: Tensor) -> Tensor:
        raise NotImplementedError


class ScoreNetwork(FieldNetwork):
    """PerceiverIO as in the paper; the defaults are the reference's.

    Args:
        coord_dim, signal_dim: widths c and s of coordinates and signals.
        num_freq: bands F of the coordinate features.
        d_model: width D of the tokens.
        num_latents, d_latents: number L and width d of the latents.
        num_blocks, self_per_block: encoder blocks, each one reading of the context and so many self-attentions.
        heads: attention heads H.
        signal_embedding, coord_embedding, freq_scale, normalize, num_classes: see :class:`Tokeniser`.
        dropout: dropout of attention weights, in training only.
    """

    def __init__(
        self,
        coord_dim: int,
        signal_dim: int,
        num_freq: int,
        d_model: int,
        num_latents: int,
        d_latents: int,
        num_blocks: int,
        self_per_block: int,
        heads: int,
        signal_embedding: str = "reference",
        coord_embedding: str = "fourier",
        freq_scale: float = 1.0,
        normalize: str = "none",
        num_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            coord_dim,
            signal_dim,
            num_freq,
            d_model,
            signal_embedding=signal_embedding,
            coord_embedding=coord_embedding,
            freq_scale=freq_scale,
            normalize=normalize,
            num_classes=num_classes,
        )
        sizes = {"num_latents": num_latents, "d_latents": d_latents, "num_blocks": num_blocks}
        for name, size in sizes.items():
            if size < 1:
                raise FieldError(f"{name} is {size}: it has to be 1 or more")
        if not 0 <= dropout < 1:
            raise FieldError(f"dropout is {dropout}: a probability below 1")
        self.latents = nn.Parameter(0.02 * torch.randn(num_latents, d_latents))
        cross = [Layer(d_latents, heads, d_model, dropout) for _ in range(num_blocks)]
        own = [[Layer(d_latents, heads, None, dropout) for _ in range(self_per_block)] for _ in range(num_blocks)]
        self.enc = nn.ModuleDict(
            {"cross": nn.ModuleList(cross), "self": nn.ModuleList(nn.ModuleList(layers) for layers in own)}
        )
        self.dec = nn.ModuleDict(
            {"cross": Layer(d_model, heads, d_latents, dropout), "proj": nn.Linear(d_model, d_model)}
        )

    def _read(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        z = self.latents.unsqueeze(0)
        for cross, own in self.blocks():
            z = cross(z, tokens, mask)
            for layer in own:
                z = layer(z)
        return z

    def _decode(self, z: Tensor, queries: Tensor) -> Tensor:
        out: Tensor = self.dec["cross"](queries, z)
        return out

    def blocks(self) -> Iterator[tuple[Layer, list[Layer]]]:
        """The encoder's blocks: the layer that reads the context, and those that read the latents themselves."""
        crosses, owns = self.enc["cross"], self.enc["self"]
        assert isinstance(crosses, nn.ModuleList)
        assert isinstance(owns, nn.ModuleList)
        for cross, own in zip(crosses, owns, strict=True):
            yield cast(Layer, cross), cast(list[Layer], own)
