"""The multimodal transformer with spatially aware layers (sections 3.2 and 3.3 of the paper; section 4.3 here).

Positions [question | objects | OCR tokens | decoder]. A layer is a post-LN BERT layer. Layer string "nnssss": `n` sees
everything that the base mask allows, head h of an `s` layer looks along its own spatial relations only. Since no one
but the decoder sees decoder positions, the rest is encoded once and decoded from (`encode` and `step`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from shared.errors import UserError
from torch import Tensor, nn

from .kernels.relation_attention import HEADS, RELATIONS, Layout, reference, relation_attention, subset_bits, use_triton

EPS = 1e-12
ATTENTIONS = ("spatial", "neighbours", "full", "top_k", "relative")
EDGES = (1 << RELATIONS) - 2  # every relation but "none"
EVERYTHING = (1 << RELATIONS) - 1
Mask = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sight:
    """What the heads of one layer see.

    Args:
        bits: for each head the relations along which an entity sees another, as bits.
        masked_quadrants: blocks query x key that nobody sees, 1..9.
        top_k: an entity sees only so many entities, those with the largest scores.
    """

    bits: tuple[int, ...]
    masked_quadrants: tuple[int, ...] = ()
    top_k: int | None = None


def sight(kind: str, context: int, heads: int, attention: str, masked_quadrants: Sequence[int], top_k: int) -> Sight:
    """Of a layer of kind `n` or `s`; the controls replace the rule of `s` (section 10).

    `neighbours`: every head sees every edge of the graph. `full`: as `n`, for a learned bias alone. `top_k` and
    `relative` see all pairs: the first keeps the k best, the second has a bias from the geometry.
    """
    if kind == "n" or attention in ("full", "relative"):
        return Sight((EVERYTHING,) * heads)
    if attention == "top_k":
        return Sight((EVERYTHING,) * heads, top_k=top_k)
    bits = subset_bits(context) if attention == "spatial" else (EDGES,) * heads
    return Sight(bits, tuple(sorted(masked_quadrants)))


class Scene:
    """The graph and the masks of a batch, each prepared once and shared by the layers.

    Args:
        relations: R [B, N, N], objects then OCR tokens.
        key_valid: [B, T + N]; the decoder's positions are always valid.
        boxes: [B, N, 4], for relative attention only.
    """

    def __init__(
        self,
        relations: UInt8[Tensor, "b n n"],
        key_valid: Bool[Tensor, "b t_plus_n"],
        question: int,
        boxes: Float[Tensor, "b n 4"] | None = None,
    ) -> None:
        self.relations, self.prefix_valid, self.question, self.boxes = relations, key_valid, question, boxes
        self.cache: dict[object, Mask] = {}
        self.valid: dict[int, Tensor] = {}

    def rows(self, rows: Int[Tensor, " rows"]) -> Scene:
        """Of other rows of the batch, as many as wanted (beams)."""
        boxes = None if self.boxes is None else self.boxes[rows]
        return Scene(self.relations[rows], self.prefix_valid[rows], self.question, boxes)

    def layout(self, decoder: int) -> Layout:
        return Layout(self.question, self.relations.shape[-1], decoder)

    def key_valid(self, decoder: int) -> Bool[Tensor, "b l"]:
        if decoder not in self.valid:
            self.valid[decoder] = F.pad(self.prefix_valid, (0, decoder), value=True)
        return self.valid[decoder]

    def mask(self, view: Sight, decoder: int) -> Mask:
        """What `reference.attend` needs, [B, H or 1, L, L]."""
        key = (view.bits, view.masked_quadrants, decoder)
        if key not in self.cache:
            layout, valid = self.layout(decoder), self.key_valid(decoder)
            if set(view.bits) == {EVERYTHING}:  # the same for all heads
                seen = (reference.base_mask(layout, view.masked_quadrants, valid.device) & valid[:, None]).unsqueeze(1)
            else:
                seen = reference.allowed(self.relations, valid, layout, view.bits, view.masked_quadrants)
            self.cache[key] = reference.softmax_mask(seen)
        return self.cache[key]

    def step_mask(self, view: Sight, past: int) -> Mask:
        """For one decoder position that sees the question, the entities and `past` decoder positions (its own too)."""
        key = ("step", view.masked_quadrants, past)
        if key not in self.cache:
            seen = F.pad(self.prefix_valid, (0, past), value=True)
            for number, part in zip((7, 8, 9), self.layout(past).parts):
                if number in view.masked_quadrants:
                    seen[:, part] = False
            self.cache[key] = reference.softmax_mask(seen[:, None, None])
        return self.cache[key]


class Attention(nn.Module):
    """Heads that see what `view` says (Eq. 4 of the paper), before the output's linear.

    Args:
        relation_bias: a learned term beta[h, R[i, j]] of the scores of entities, 0 at first. Not in the paper.
        relative: a learned term from the boxes' geometry: an MLP of (dx, dy, log w_i/w_j, log h_i/h_j).
    """

    def __init__(
        self, dim: int, heads: int, dropout: float, view: Sight, relation_bias: bool = False, relative: bool = False
    ) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.heads, self.dropout, self.view = heads, dropout, view
        self.beta = nn.Parameter(torch.zeros(heads, RELATIONS)) if relation_bias else None
        self.geometry = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, heads)) if relative else None

    def split(self, x: Float[Tensor, "b l dim"]) -> Float[Tensor, "b h l d"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def projected(self, x: Float[Tensor, "b l dim"]) -> tuple[Tensor, Tensor, Tensor]:
        return self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))

    def entity_bias(self, scene: Scene) -> Float[Tensor, "b h n n"] | None:
        if self.beta is not None:
            return reference.entity_bias(self.beta, scene.relations)
        if self.geometry is None:
            return None
        assert scene.boxes is not None
        low, high = scene.boxes[..., :2], scene.boxes[..., 2:]
        centre, size = (low + high) / 2, (high - low).clamp_min(1e-3).log()
        pair = torch.cat([centre[:, :, None] - centre[:, None], size[:, :, None] - size[:, None]], -1)
        return self.geometry(pair).permute(0, 3, 1, 2)

    def scores(self, q: Tensor, k: Tensor, scene: Scene, decoder: int) -> tuple[Float[Tensor, "b h l l"], Mask]:
        """Scores of all pairs, and the mask to be added."""
        mask, layout = scene.mask(self.view, decoder), scene.layout(decoder)
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT
        bias = self.entity_bias(scene)
        if bias is not None:
            around = (layout.question, decoder) * 2
            scores = scores + F.pad(bias, around)
        if self.view.top_k is not None:
            entities = layout.parts[1]
            term = mask[0].expand(scores.shape).clone()
            inner = (scores + term).detach()[:, :, entities, entities]
            kept = min(self.view.top_k, layout.entities)
            if kept:
                least = inner.topk(kept, -1).values[..., -1:]
                term[:, :, entities, entities] += reference.FAR * (inner < least)
            mask = (term, mask[1])
        return scores, mask

    def forward(self, x: Float[Tensor, "b l dim"], scene: Scene, decoder: int) -> tuple[Tensor, Tensor, Tensor]:
        """Attention's output [B, L, dim], and the keys and values [B, H, L, d] for steps to come."""
        q, k, v = self.projected(x)
        dropout = self.dropout if self.training else 0.0
        if use_triton(q) and self.view.top_k is None and self.geometry is None:
            out = relation_attention(
                q, k, v, scene.relations, scene.key_valid(decoder), scene.layout(decoder), self.view.bits,
                self.beta, self.view.masked_quadrants, dropout,
            )  # fmt: skip
        elif self.view.top_k is None and dropout == 0 and self.beta is None and self.geometry is None:
            out = reference.attend(q, k, v, scene.mask(self.view, decoder))
        else:
            scores, mask = self.scores(q, k, scene, decoder)
            out = F.dropout(reference.probabilities(scores, mask), dropout) @ v
        return out.transpose(1, 2).flatten(2), k, v

    def maps(self, x: Float[Tensor, "b l dim"], scene: Scene, decoder: int) -> Float[Tensor, "b h l l"]:
        """The probabilities themselves, for explanations."""
        q, k, _ = self.projected(x)
        return reference.probabilities(*self.scores(q, k, scene, decoder)).expand(-1, self.heads, -1, -1)

    def step(self, x: Float[Tensor, "b 1 dim"], scene: Scene, past: KeysAndValues) -> Float[Tensor, "b 1 dim"]:
        """One decoder position against everything before it."""
        q, k, v = self.projected(x)
        keys, values = past.append(k, v)
        term, occupied = scene.step_mask(self.view, past.steps)
        out = F.scaled_dot_product_attention(q, keys, values, reference.added_in(term, q.dtype))
        return (out * occupied.to(q.dtype)).transpose(1, 2).flatten(2)


class KeysAndValues:
    """Keys and values of one layer: of question, entities and the decoder's first step, with room for all `steps`."""

    def __init__(self, k: Float[Tensor, "b h t_n_1 d"], v: Float[Tensor, "b h t_n_1 d"], steps: int) -> None:
        self.prefix, self.steps = k.shape[2] - 1, 1
        self.k, self.v = (F.pad(x, (0, 0, 0, steps - 1)) for x in (k, v))

    def append(self, k: Float[Tensor, "b h 1 d"], v: Float[Tensor, "b h 1 d"]) -> tuple[Tensor, Tensor]:
        place = self.prefix + self.steps
        self.k[:, :, place : place + 1], self.v[:, :, place : place + 1] = k, v
        self.steps += 1
        return self.k[:, :, : place + 1], self.v[:, :, : place + 1]

    def reorder(self, rows: Tensor) -> None:
        """Continue from other rows of the batch, as many as wanted (beams)."""
        self.k, self.v = self.k[rows], self.v[rows]


class Layer(nn.Module):
    """x = LN(x + Drop(W_o a)); x = LN(x + Drop(W_b gelu(W_a x)))."""

    def __init__(self, dim: int, ffn: int, dropout: float, attention: Attention) -> None:
        super().__init__()
        self.attention = attention
        self.output, self.output_norm = nn.Linear(dim, dim), nn.LayerNorm(dim, EPS)
        self.expand, self.contract, self.norm = nn.Linear(dim, ffn), nn.Linear(ffn, dim), nn.LayerNorm(dim, EPS)
        self.drop = nn.Dropout(dropout)

    def rest(self, x: Float[Tensor, "b l dim"], a: Float[Tensor, "b l dim"]) -> Float[Tensor, "b l dim"]:
        x = self.output_norm(x + self.drop(self.output(a)))
        return self.norm(x + self.drop(self.contract(F.gelu(self.expand(x)))))

    def forward(self, x: Float[Tensor, "b l dim"], scene: Scene, decoder: int) -> Float[Tensor, "b l dim"]:
        return self.rest(x, self.attention(x, scene, decoder)[0])


class MultimodalTransformer(nn.Module):
    """The layers.

    Args:
        layers: `n` and `s`, from the input on.
        contexts: c of each spatial layer, in their order.
        attention: what stands in the `s` layers (`sight`).

    Raises:
        UserError: an unknown layer, attention or quadrant; a number of heads that the rule can't serve.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        ffn: int,
        layers: str,
        contexts: Sequence[int],
        dropout: float = 0.1,
        masked_quadrants: Sequence[int] = (1, 2),
        relation_bias: bool = False,
        attention: str = "spatial",
        top_k: int = 9,
    ) -> None:
        super().__init__()
        if not layers or set(layers) - {"n", "s"}:
            raise UserError(f"layers is {layers!r}: a word of the letters n (normal) and s (spatial), such as nnssss")
        if attention not in ATTENTIONS:
            raise UserError(f"attention is {attention!r}: use one of {', '.join(ATTENTIONS)}")
        if set(masked_quadrants) - set(range(1, 10)):
            raise UserError(f"masked_quadrants is {list(masked_quadrants)}: numbers from 1 to 9")
        if len(contexts) != layers.count("s"):
            raise UserError(f"context has {len(contexts)} values for {layers.count('s')} spatial layers")
        if dim % heads:
            raise UserError(f"dim is {dim}: a multiple of the {heads} heads")
        if "s" in layers and heads != HEADS and (attention == "spatial" or relation_bias):
            raise UserError(f"heads is {heads}: a spatial layer has {HEADS}, one for each relation")
        remaining = iter(contexts)
        self.kinds = layers
        self.layers = nn.ModuleList()
        for kind in layers:
            spatial = kind == "s"
            context = next(remaining) if spatial else 3
            view = sight(kind, context, heads, attention, masked_quadrants, top_k)
            extra = (relation_bias and spatial, spatial and attention == "relative")
            self.layers.append(Layer(dim, ffn, dropout, Attention(dim, heads, dropout, view, *extra)))

    def stack(self) -> list[Layer]:
        """The layers from the input on, with their type."""
        return cast("list[Layer]", list(self.layers))

    def forward(self, x: Float[Tensor, "b l dim"], scene: Scene, decoder: int) -> Float[Tensor, "b l dim"]:
        """All positions at once; the last `decoder` of them are the decoder's."""
        for layer in self.stack():
            x = layer(x, scene, decoder)
        return x

    def maps(self, x: Float[Tensor, "b l dim"], scene: Scene, decoder: int) -> list[Float[Tensor, "b h l l"]]:
        """Attention's probabilities, layer by layer."""
        out = []
        for layer in self.stack():
            out.append(layer.attention.maps(x, scene, decoder))
            x = layer(x, scene, decoder)
        return out

    def encode(
        self, x: Float[Tensor, "b t_n_1 dim"], scene: Scene, steps: int, wanted: int
    ) -> tuple[Float[Tensor, "b wanted dim"], list[KeysAndValues]]:
        """Question, entities and the decoder's first position, whose input is known: it costs no pass of its own.

        The last `wanted` outputs, and what the rest of `steps` decoder positions need of all.
        """
        past, first = [], x.shape[1] - wanted
        for layer in self.stack():
            a, k, v = layer.attention(x, scene, 1)
            past.append(KeysAndValues(k, v, steps))
            if layer is self.layers[-1]:  # no one attends to what comes out of it
                x, a = x[:, first:], a[:, first:]
            x = layer.rest(x, a)
        return x, past

    def step(self, x: Float[Tensor, "b 1 dim"], scene: Scene, past: list[KeysAndValues]) -> Float[Tensor, "b 1 dim"]:
        """The next decoder position."""
        for layer, before in zip(self.stack(), past):
            x = layer.rest(x, layer.attention.step(x, scene, before))
        return x
