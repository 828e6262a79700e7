"""The two networks the paper compares PerceiverIO with: same tokeniser, same head, same three calls (section 3, end).

`TransformerNetwork` lets the context tokens attend to each other and every query to all of them; its cost grows with
the square of the context. `MixerNetwork` mixes the concatenated set by a learned matrix over positions: it knows sets
of the trained size and order only, and says so when it meets another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffusion_fields.errors import FieldError
from diffusion_fields.models.attention import Layer
from diffusion_fields.models.perceiver import FieldNetwork


class TransformerNetwork(FieldNetwork):
    """An encoder over the context tokens, whose outputs the queries read by cross-attention.

    Args:
        coord_dim, signal_dim, num_freq, d_model: as in :class:`ScoreNetwork`.
        num_blocks: self-attention layers over the context.
        heads: attention heads.
        dropout: dropout of attention weights, in training only.
        tokens: the tokeniser's options (``signal_embedding``, ``coord_embedding``, ...).
    """

    def __init__(
        self,
        coord_dim: int,
        signal_dim: int,
        num_freq: int,
        d_model: int,
        num_blocks: int,
        heads: int,
        dropout: float = 0.0,
        **tokens: Any,
    ) -> None:
        super().__init__(coord_dim, signal_dim, num_freq, d_model, **tokens)
        self.enc = nn.ModuleList(Layer(d_model, heads, None, dropout) for _ in range(num_blocks))
        self.dec = nn.ModuleDict(
            {"cross": Layer(d_model, heads, d_model, dropout), "proj": nn.Linear(d_model, d_model)}
        )

    def _read(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """The encoded tokens; with a mask, one more column that says which of them exist (1) and which do not (0)."""
        for layer in self.enc:
            tokens = layer(tokens, mask=mask)
        return tokens if mask is None else torch.cat((tokens, mask.unsqueeze(-1).to(tokens.dtype)), -1)

    def _decode(self, z: Tensor, queries: Tensor) -> Tensor:
        width, mask = queries.shape[-1], None
        if z.shape[-1] > width:
            z, mask = z[..., :width], z[..., width] > 0
        out: Tensor = self.dec["cross"](queries, z, mask)
        return out


class MixerLayer(nn.Module):
    """x <- x + MLP over positions of LN(x); x <- x + MLP over channels of LN(x)."""

    def __init__(self, num_tokens: int, dim: int, d_tokens: int) -> None:
        super().__init__()
        self.norm_tokens, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(nn.Linear(num_tokens, d_tokens), nn.GELU(), nn.Linear(d_tokens, num_tokens))
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm_tokens(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp(self.norm_mlp(x))


class MixerNetwork(FieldNetwork):
    """An MLP-mixer over the context and query tokens together: for sets of one size only.

    Args:
        coord_dim, signal_dim, num_freq, d_model: as in :class:`ScoreNetwork`.
        num_blocks: mixer layers.
        num_context, num_query: the set sizes N_c and N_q that it is built for.
        d_tokens: hidden width of the mixing over positions.
        tokens: the tokeniser's options (``signal_embedding``, ``coord_embedding``, ...).
    """

    def __init__(
        self,
        coord_dim: int,
        signal_dim: int,
        num_freq: int,
        d_model: int,
        num_blocks: int,
        num_context: int,
        num_query: int,
        d_tokens: int = 256,
        **tokens: Any,
    ) -> None:
        super().__init__(coord_dim, signal_dim, num_freq, d_model, **tokens)
        self.num_context, self.num_query = num_context, num_query
        self.enc = nn.ModuleList(MixerLayer(num_context + num_query, d_model, d_tokens) for _ in range(num_blocks))
        self.dec = nn.ModuleDict({"proj": nn.Linear(d_model, d_model)})

    def _read(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            raise FieldError("context_mask is given to the MLP-mixer, which mixes by position: use another network")
        self._check_size("context", tokens.shape[1], self.num_context)
        return tokens

    def _decode(self, z: Tensor, queries: Tensor) -> Tensor:
        self._check_size("query", queries.shape[1], self.num_query)
        x = torch.cat((z, queries), 1)
        for layer in self.enc:
            x = layer(x)
        return x[:, self.num_context :]

    def _check_size(self, name: str, size: int, expected: int) -> None:
        if size != expected:
            raise FieldError(
                f"the {name} set has {size} points: this MLP-mixer is built for {expected} "
                "(it mixes by position; sample with the trained sizes and without query chunks)"
            )
