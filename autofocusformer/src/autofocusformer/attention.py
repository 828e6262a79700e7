"""A block of local attention over points (AutoFocusFormer, "attention block").

    x = x + g1 * Attn(LN(x))        s_ij = q_i . k_j + Wpos phi_ij + bpos, and the blank's q_i . blank_k
    x = x + g2 * MLP(LN(x))         y_i = sum_j a_ij v_j + a_i,blank blank_v, a the softmax over j and the blank

Names of parameters are those of the released weights.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autofocusformer.kernels.cluster_attention import cluster_attention
from autofocusformer.neighbourhood import Neighbourhood
from autofocusformer.positions import FEATURES


class Attention(nn.Module):
    """Multi-head attention of each point to its neighbours and to a blank token that all of them share.

    Args:
        width: channels (c).
        heads: H; each head is c / H wide.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.blank_k = nn.Parameter(torch.randn(width))
        self.blank_v = nn.Parameter(torch.randn(width))
        self.pos_embed = nn.Linear(FEATURES, heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch n c"], around: Neighbourhood) -> Float[Tensor, "batch n c"]:
        batch, n, c = x.shape
        e = c // self.heads
        q = self.q(x).view(batch, n, self.heads, e).transpose(1, 2) * e**-0.5
        # of each head first the keys, then the values
        k, v = self.kv(x).view(batch, n, self.heads, 2, e).permute(3, 0, 2, 1, 4)
        y = cluster_attention(
            q,
            k,
            v,
            around.positions,
            around.near,
            self.pos_embed.weight,
            self.pos_embed.bias,
            self.blank_k.view(self.heads, e),
            self.blank_v.view(self.heads, e),
            around.size,
        )
        return self.proj(y.transpose(1, 2).reshape(batch, n, c))


class MLP(nn.Module):
    """c -> hidden -> c."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "batch n c"]) -> Float[Tensor, "batch n c"]:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


def drop_path(branch: Float[Tensor, "batch n c"], share: float, training: bool) -> Float[Tensor, "batch n c"]:
    """Leaves out a residual branch for a share of the images in training, and scales up what remains."""
    if not training or share == 0:
        return branch
    kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= share
    return branch * (kept.to(branch.dtype) / (1 - share))


class Block(nn.Module):
    """Attention and MLP, each after its LayerNorm and on a residual branch.

    Args:
        width, heads, hidden: sizes.
        drop: share of the images whose branch is left out in training.
        layer_scale: start of the branches' per-channel scales g1, g2; 0: none.
    """

    def __init__(self, width: int, heads: int, hidden: int, drop: float, layer_scale: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, hidden)
        self.gamma1 = self.gamma2 = None
        if layer_scale:
            self.gamma1 = nn.Parameter(torch.full((width,), layer_scale))
            self.gamma2 = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Float[Tensor, "batch n c"], around: Neighbourhood) -> Float[Tensor, "batch n c"]:
        for norm, branch, scale in (
            (self.norm1, lambda z: self.attn(z, around), self.gamma1),
            (self.norm2, self.mlp, self.gamma2),
        ):
            y = branch(norm(x))
            x = x + drop_path(y if scale is None else scale * y, self.drop, self.training)
        return x
