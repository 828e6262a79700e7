"""The same attention by other means, for the benchmarks: the authors' chain, dense attention, FlexAttention.

All take the arguments of `cluster_attention` and give the same result, gradients included.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..offsets import features
from ..point_ops import av, qk
from .reference import everyone, members


def lists_of(positions: Tensor, near: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    batch, n, _ = positions.shape
    return everyone(batch, n, positions.device) if near is None else members(near, size, n)


def unfused(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor,
    blank_k: Tensor, blank_v: Tensor, size: int,
) -> Tensor:  # fmt: skip
    """qk, bias, padding's -100, blank, softmax, av: each writes a tensor of all pairs, as the published code does."""
    idx, valid = lists_of(positions, near, size)
    at = positions.gather(1, idx.flatten(1)[..., None].expand(-1, -1, 2)).view(*idx.shape, 2)
    dx, dy = (at - positions[:, :, None]).to(pos_weight.dtype).unbind(-1)
    bias = torch.einsum("hf,fbnm->bhnm", pos_weight, features(dx, dy)) + pos_bias[:, None, None]
    logits = qk(q, k, idx) + bias - 100.0 * ~valid[:, None]
    blank = (q * blank_k[:, None]).sum(-1, keepdim=True)
    weights = torch.cat([logits, blank.to(logits.dtype)], -1).softmax(-1).to(v.dtype)
    return av(weights[..., :-1].contiguous(), v, idx) + weights[..., -1:] * blank_v[:, None]


def neighbours(positions: Tensor, near: Tensor | None, size: int) -> Tensor:
    """[b, n, n]: whether j is in i's neighbourhood."""
    idx, valid = lists_of(positions, near, size)
    batch, n, _ = positions.shape
    table = torch.zeros(batch, n, n + 1, dtype=torch.bool, device=positions.device)
    return table.scatter_(2, torch.where(valid, idx, n), True)[..., :n]


def with_blank(q: Tensor, x: Tensor, blank: Tensor) -> Tensor:
    """[b, H, n + 1, e]: the blank token behind the others."""
    return torch.cat([x, blank[None, :, None].expand(len(q), -1, -1, -1).to(x.dtype)], 2)


def dense(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor,
    blank_k: Tensor, blank_v: Tensor, size: int,
) -> Tensor:  # fmt: skip
    """PyTorch's scaled dot product attention with a mask of [b, H, n, n + 1]: for few tokens only."""
    dx, dy = (positions[:, None] - positions[:, :, None]).to(pos_weight.dtype).unbind(-1)
    bias = torch.einsum("hf,fbnm->bhnm", pos_weight, features(dx, dy)) + pos_bias[:, None, None]
    bias = bias.masked_fill(~neighbours(positions, near, size)[:, None], float("-inf"))
    bias = torch.nn.functional.pad(bias, (0, 1)).to(q.dtype)
    keys, values = with_blank(q, k, blank_k), with_blank(q, v, blank_v)
    return scaled_dot_product_attention(q, keys, values, attn_mask=bias, scale=1.0)


@cache
def compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex_blocks(positions: Tensor, near: Tensor | None, size: int) -> Any:
    """FlexAttention's block mask of these points: the same for every block of a stage."""
    from torch.nn.attention.flex_attention import create_block_mask

    batch, n = positions.shape[:2]
    seen = torch.nn.functional.pad(neighbours(positions, near, size), (0, 1), value=True)

    def mask(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return seen[b, i, j]

    return create_block_mask(mask, batch, None, n, n + 1, device=str(positions.device))


def flex(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor,
    blank_k: Tensor, blank_v: Tensor, size: int, blocks: Any = None,
) -> Tensor:  # fmt: skip
    """FlexAttention: the position's logits as a score modifier, the neighbourhood as a block mask.

    Compiled on a GPU; on the CPU as plain operations, to compare values. `blocks`: `flex_blocks`, where it is there.
    """
    from torch.nn.attention.flex_attention import flex_attention

    n = positions.shape[1]
    at = torch.nn.functional.pad(positions, (0, 0, 0, 1)).to(pos_weight.dtype)

    def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        dx, dy = at[b, j, 0] - at[b, i, 0], at[b, j, 1] - at[b, i, 1]
        d = (dx * dx + dy * dy).sqrt()
        inverse = 1 / d.clamp_min(1.0)
        w = pos_weight
        bias = w[h, 0] * dx + w[h, 1] * dy + w[h, 2] * d + (w[h, 3] * dy + w[h, 4] * dx) * inverse + pos_bias[h]
        return torch.where(j < n, s + bias, s)

    blocks = flex_blocks(positions, near, size) if blocks is None else blocks
    function = compiled_flex() if q.is_cuda else flex_attention
    keys, values = with_blank(q, k, blank_k), with_blank(q, v, blank_v)
    return function(q.contiguous(), keys, values, score_mod=score, block_mask=blocks, scale=1.0)


RIVALS = {"unfused": unfused, "dense SDPA": dense, "FlexAttention": flex}
