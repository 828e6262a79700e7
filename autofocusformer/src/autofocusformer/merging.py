"""A kept point takes up its neighbourhood (AutoFocusFormer, "neighbourhood merging").

    W_ij = GELU(LN(A phi_ij + a)) s_j in R^4      f_i = sum_j W_ij (x) x_j in R^(4 c)      x_i' = B LN(f_i) + b

s_j in the weights is the only way by which a gradient reaches the importance. Names of parameters are those of the
released weights.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from autofocusformer.kernels.point_merge import point_merge
from autofocusformer.neighbourhood import Neighbourhood, neighbours_of
from autofocusformer.positions import FEATURES

INNER = 4


class Merging(nn.Module):
    """Neighbours of each kept point -> its features in the next stage.

    Args:
        width, next_width: channels before and after.
    """

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.weight_net = nn.ModuleList([nn.Linear(FEATURES, INNER), nn.LayerNorm(INNER)])
        self.norm = nn.LayerNorm(INNER * width)
        self.linear = nn.Linear(INNER * width, next_width)

    def forward(
        self,
        x: Float[Tensor, "batch n c"],
        importance: Float[Tensor, "batch n"],
        kept: Int[Tensor, "batch kept"],
        around: Neighbourhood,
    ) -> Float[Tensor, "batch kept c_next"]:
        """Args: importance: s, with its gradient; kept: rows of the points that stay."""
        idx, valid = neighbours_of(around, kept)
        parameters = [parameter for layer in self.weight_net for parameter in (layer.weight, layer.bias)]
        merged = point_merge(x, importance, around.positions, kept, idx, valid, *parameters)  # type: ignore[arg-type]
        return self.linear(self.norm(merged.flatten(2)))  # the inner index is the slow one, the channel the fast
