"""The same attention for the CPU: dense products over tiles of tokens, a block of tiles at a time.

Nothing of the size of the pairs outlives its block: the backward pass computes the weights again. Layout inside a
block, with G tiles of T tokens, each facing its U clusters of m members and one more "cluster" that holds the blank
token: logits [H, G, T, (U + 1) m]. The position's share of the logits is one product of [H, 7] with the features of
the pairs [7, G, T, (U + 1) m]: five of the offset, one constant for the bias, and a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..offsets import FEATURES, write_features
from .tiles import TILE, unions

ROWS = FEATURES + 2  # features of a pair: the offset's, 1 for the bias, the mask
MASKED = -1e30  # finite, so that it can be a factor in a product
BLOCK = 2**16  # pairs of tokens and keys that are worked on at a time


def computing(x: Tensor) -> torch.dtype:
    """Logits and sums are in float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def fresh(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous copy: what an operator returns shares memory with nothing."""
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Block:
    """G tiles: their rows of queries, the clusters that they face, and the features of their pairs.

    Args:
        first, last: tiles [first, last) of all images' tiles.
        rows: G (U + 1) rows of the clusters' memory.
        features: [7, G, T, (U + 1) m].
    """

    first: int
    last: int
    rows: Tensor
    features: Tensor


class Layout:
    """Where tokens and clusters lie in memory, the same forwards and backwards."""

    def __init__(self, positions: Tensor, near: Tensor | None, size: int, dtype: torch.dtype) -> None:
        batch, n, _ = positions.shape
        self.batch, self.n, self.size, self.dtype = batch, n, size, dtype
        self.device = positions.device
        self.device = positions.device
        self.clusters = -(-n // size)
        self.tile = TILE if near is not None else min(n, 8 * TILE)
        self.tiles = -(-n // self.tile)
        if near is None:
            union = torch.arange(self.clusters, device=self.device).expand(batch, self.tiles, -1)
            self.near = None
        else:
            union, count = unions(near, self.tile)
            union = union[..., : int(count.max())]
            self.near = self.tiled(near.transpose(1, 2)[..., None]).squeeze(-1).movedim(0, -1)  # [B tiles, T, nnc]
        self.union = union.flatten(0, 1)
        image = torch.arange(batch, device=self.device).repeat_interleave(self.tiles)[:, None] * self.clusters
        blank = torch.full((len(self.union), 1), batch * self.clusters, device=self.device)
        self.rows = torch.cat([self.union.clamp_min(0) + image, blank], 1)
        at = positions.to(dtype)
        self.at = self.tiled(at.transpose(1, 2)[..., None]).squeeze(-1)  # [2, B tiles, T]
        self.cluster_at = pad(at, (0, 0, 0, self.clusters * size - n)).view(batch * self.clusters, size, 2)
        self.keys = self.rows.shape[1] * size

    def tiled(self, x: Tensor) -> Tensor:
        """[B, H, n, e] as [H, B tiles, T, e]."""
        batch, heads, n, width = x.shape
        whole = pad(x, (0, 0, 0, self.tiles * self.tile - n)).transpose(0, 1)
        return whole.reshape(heads, batch * self.tiles, self.tile, width)

    def untiled(self, x: Tensor) -> Tensor:
        """[H, B tiles, T, e] as [B, H, n, e]."""
        heads, _, _, width = x.shape
        return x.view(heads, self.batch, self.tiles * self.tile, width)[:, :, : self.n].transpose(0, 1)

    def clustered(self, x: Tensor, blank: Tensor) -> Tensor:
        """[B, H, n, e] as [H, B k + 1, m e]; the last row begins with the blank token, the rest of it is zero."""
        batch, heads, n, width = x.shape
        out = x.new_zeros(heads, batch * self.clusters + 1, self.size * width)
        out[:, :-1].view(heads, batch, self.clusters * self.size, width)[:, :, :n] = x.transpose(0, 1)
        out[:, -1, :width] = blank
        return out

    def unclustered(self, x: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """The tokens' and the blank's part of [H, B k + 1, m e]."""
        heads = len(x)
        tokens = x[:, :-1].view(heads, self.batch, self.clusters * self.size, width)[:, :, : self.n]
        return tokens.transpose(0, 1), x[:, -1, :width]

    def blocks(self) -> Iterator[Block]:
        """Blocks of about `BLOCK` pairs."""
        step = max(1, BLOCK // (self.tile * self.keys))
        total = len(self.rows)
        entries = ROWS * min(step, total) * self.tile * self.keys
        memory = torch.empty(entries, dtype=self.dtype, device=self.device)
        for first in range(0, total, step):
            last = min(first + step, total)
            phi = memory[: ROWS * (last - first) * self.tile * self.keys]
            phi = phi.view(ROWS, last - first, self.tile, self.keys)
            self.write(first, last, phi)
            yield Block(first, last, self.rows[first:last].flatten(), phi)

    def write(self, first: int, last: int, phi: Tensor) -> None:
        """Features of the pairs of tiles [first, last)."""
        tokens = phi.view(ROWS, last - first, self.tile, -1, self.size)
        pairs = phi[..., : -self.size]  # all but the blank's
        at = self.cluster_at.index_select(0, self.rows[first:last, :-1].flatten()).view(last - first, 1, -1, 2)
        mine = self.at[:, first:last, :, None]
        write_features(at[..., 0] - mine[0], at[..., 1] - mine[1], pairs[:FEATURES])
        phi[FEATURES, ..., : -self.size] = 1
        union = self.union[first:last, None]
        if self.near is None:
            phi[FEATURES + 1] = 0
        else:
            lists = self.near[first:last]
            other = (lists[:, :, :, None] != union[:, :, None]).all(2)  # clusters that are not the token's own
            tokens[FEATURES + 1, :, :, :-1] = (other * MASKED)[..., None]
        missing = self.clusters * self.size - self.n
        if missing:
            tail = (union == self.clusters - 1).to(phi.dtype)[..., None] * MASKED
            tokens[FEATURES + 1, :, :, :-1, self.size - missing :] += tail
        # The blank has neither position nor bias, and is in the first of its cluster's slots.
        tokens[:, :, :, -1] = 0
        tokens[FEATURES + 1, :, :, -1, 1:] = MASKED


def weights_of(block: Block, q: Tensor, keys: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """`(a, K)`: weights [H G, T, keys], and the keys gathered [H G, keys, e].

    s_ij = q_i . k_j + W phi_ij + b, the blank among the keys; a = softmax(s).
    """
    heads, groups, tile, width = len(q), block.last - block.first, q.shape[2], q.shape[3]
    gathered = keys.index_select(1, block.rows).view(heads * groups, -1, width)
    logits = (position @ block.features.view(ROWS, -1)).view(heads * groups, tile, -1)
    queries = q[:, block.first : block.last].reshape(heads * groups, tile, width)
    logits.baddbmm_(queries, gathered.transpose(1, 2))
    return torch.softmax(logits, -1), gathered


def position_weights(pos_weight: Tensor, pos_bias: Tensor, dtype: torch.dtype) -> Tensor:
    """[H, 7]: what the features of a pair are multiplied with."""
    return torch.cat([pos_weight, pos_bias[:, None], torch.ones_like(pos_bias)[:, None]], 1).to(dtype)


def forward(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor,
    blank_k: Tensor, blank_v: Tensor, size: int,
) -> Tensor:  # fmt: skip
    dtype = computing(q)
    layout = Layout(positions, near, size, dtype)
    queries = layout.tiled(q.to(dtype))
    keys, values = layout.clustered(k.to(dtype), blank_k), layout.clustered(v.to(dtype), blank_v)
    position = position_weights(pos_weight, pos_bias, dtype)
    heads, _, tile, width = queries.shape
    out = torch.empty_like(queries)
    for block in layout.blocks():
        weights, _ = weights_of(block, queries, keys, position)
        gathered = values.index_select(1, block.rows).view(len(weights), -1, width)
        out[:, block.first : block.last] = torch.bmm(weights, gathered).view(heads, -1, tile, width)
    return fresh(layout.untiled(out), q.dtype)


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor,
    pos_bias: Tensor, blank_k: Tensor, blank_v: Tensor, size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients by q, k, v, pos_weight, pos_bias, blank_k, blank_v."""
    dtype = computing(q)
    layout = Layout(positions, near, size, dtype)
    queries, given = layout.tiled(q.to(dtype)), layout.tiled(grad.to(dtype))
    keys, values = layout.clustered(k.to(dtype), blank_k), layout.clustered(v.to(dtype), blank_v)
    position = position_weights(pos_weight, pos_bias, dtype)
    heads, _, tile, width = queries.shape
    by_q, by_keys, by_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
    by_position = torch.zeros_like(position)
    for block in layout.blocks():
        part = slice(block.first, block.last)
        weights, gathered_k = weights_of(block, queries, keys, position)
        upstream = given[:, part].reshape(len(weights), tile, width)
        shape = (heads, len(block.rows), size * width)
        by_values.index_add_(1, block.rows, torch.bmm(weights.transpose(1, 2), upstream).view(shape))
        gathered_v = values.index_select(1, block.rows).view(len(weights), -1, width)
        by_logits = torch.bmm(upstream, gathered_v.transpose(1, 2))  # ds = a (da - <a, da>)
        by_logits -= torch.linalg.vecdot(weights, by_logits)[..., None]
        by_logits *= weights
        by_q[:, part] = torch.bmm(by_logits, gathered_k).view(heads, -1, tile, width)
        query = queries[:, part].reshape(len(weights), tile, width)
        by_keys.index_add_(1, block.rows, torch.bmm(by_logits.transpose(1, 2), query).view(shape))
        by_position += by_logits.view(heads, -1) @ block.features.view(ROWS, -1).T
    (dk, d_blank_k), (dv, d_blank_v) = layout.unclustered(by_keys, width), layout.unclustered(by_values, width)
    return (
        fresh(layout.untiled(by_q), q.dtype),
        fresh(dk, k.dtype),
        fresh(dv, v.dtype),
        fresh(by_position[:, :FEATURES], pos_weight.dtype),
        fresh(by_position[:, FEATURES], pos_bias.dtype),
        fresh(d_blank_k, blank_k.dtype),
        fresh(d_blank_v, blank_v.dtype),
    )
