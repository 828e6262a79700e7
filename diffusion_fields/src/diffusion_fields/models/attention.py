"""One layer of the score network: attention and a width-1 MLP, both pre-normalised and residual (section 3).

    a = MHA(q = Linear(LN(x)), k, v = Linear(LN_kv(kv)));   x <- x + Linear(a);   x <- x + MLP(LN(x))

Cross-attention works at the width of the key/value side; self-attention normalises once for queries, keys and values.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_fields.errors import FieldError

#: Up to so many keys, attention on a CPU is faster as plain products than as the library's kernel: with 48 queries on
#: 12 keys 2.1 against 4.5 ms (forward and backward, batch 64), 3 to 7 % of the quick network's training step.
FEW_KEYS = 16


class Layer(nn.Module):
    """x (B, n, dim) reads kv (B, m, kv_dim); without ``kv_dim`` it reads itself.

    Args:
        dim: width of the residual stream x.
        heads: attention heads; they divide the attention's width.
        kv_dim: width of what is read, which is then the attention's width too; None for self-attention.
        dropout: dropout of the attention weights, in training only.
    """

    def __init__(self, dim: int, heads: int, kv_dim: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        source, width = kv_dim or dim, kv_dim or dim
        if heads < 1 or width % heads:
            raise FieldError(f"heads is {heads}: it has to divide the attention's width {width}")
        self.heads, self.dropout, self.crosses = heads, dropout, kv_dim is not None
        self.norm_q = nn.LayerNorm(dim)
        if self.crosses:
            self.norm_kv = nn.LayerNorm(source)
        self.q, self.k, self.v = nn.Linear(dim, width), nn.Linear(source, width), nn.Linear(source, width)
        self.o = nn.Linear(width, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(
        self,
        x: Float[Tensor, "batch point dim"],
        kv: Float[Tensor, "batch key kv_dim"] | None = None,
        mask: Bool[Tensor, "batch key"] | None = None,
    ) -> Float[Tensor, "batch point dim"]:
        """x after one reading of kv (or of itself), keys outside ``mask`` left out.

        x may have a batch axis of 1 (latents that no field has touched yet): its queries are then computed once.
        """
        h = self.norm_q(x)
        if self.crosses:
            assert kv is not None
            q, (k, v) = self.q(h), _project(self.norm_kv(kv), self.k, self.v)
        else:
            q, k, v = _project(h, self.q, self.k, self.v)
        x = x + self.o(self._attend(q, k, v, mask))
        return x + self.mlp(self.norm_mlp(x))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        q = q.expand(k.shape[0], -1, -1)
        if k.shape[1] <= FEW_KEYS and mask is None and dropout == 0.0 and not k.is_cuda:
            return _few_keys(q, k, v, self.heads)
        q, k, v = (u.unflatten(-1, (self.heads, -1)).transpose(1, 2) for u in (q, k, v))
        if q.is_cuda and mask is None and dropout == 0.0 and not torch.is_grad_enabled():
            from diffusion_fields.kernels import split_kv_cross_attention

            a = split_kv_cross_attention(q, k, v)  # which splits the keys where that is worth it (section 8.3)
        else:
            a = F.scaled_dot_product_attention(q, k, v, None if mask is None else mask[:, None, None, :], dropout)
        return a.transpose(1, 2).flatten(2)


def _few_keys(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of many queries on few keys, scores held as (key, query): the softmax then runs along vectors."""
    batch, queries, width = q.shape
    q, k, v = (u.transpose(1, 2).reshape(batch * heads, width // heads, -1) for u in (q, k, v))
    weights = torch.softmax(torch.bmm(k.transpose(1, 2), q) * (width // heads) ** -0.5, 1)
    return torch.bmm(v, weights).view(batch, width, queries).transpose(1, 2)


def _project(x: Tensor, *linears: nn.Linear) -> tuple[Tensor, ...]:
    """Several linear maps of one tensor as one product."""
    weight, bias = torch.cat([m.weight for m in linears]), torch.cat([m.bias for m in linears])
    return F.linear(x, weight, bias).chunk(len(linears), -1)
