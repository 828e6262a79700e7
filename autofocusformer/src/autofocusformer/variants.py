"""The backbones of the paper as settings: widths, depths, neighbourhoods (AutoFocusFormer, table of variants)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from shared.errors import UserError

from autofocusformer.clustering import Curve
from autofocusformer.sampling import Mode, check_sampling

STRIDES = (2, 4, 8)  # S at the ends of stages 1, 2, 3, in canvas cells
STAGES = 4


@dataclass(frozen=True)
class BackboneConfig:
    """Settings of a four-stage backbone; one entry a stage where there are four.

    Attributes:
        widths: channels of a point (c).
        depths: blocks.
        heads: attention heads (H), each of width c / H.
        mlp_ratio: width of an MLP's hidden layer, in units of c.
        cluster: members of a cluster (m).
        nbhd: neighbours of a point, rounded to whole clusters; a stage with no more points than that attends globally.
        rate: share of the points kept at the ends of stages 1 to 3.
        alpha: weight of the importance beside the grid prior (4; 8 for Cityscapes).
        sampling: which points are kept; `grid` ignores the rate.
        drop_path: share of residual branches dropped at the last block, rising linearly from 0 at the first.
        layer_scale: start of the per-channel scale of each branch; 0: none.
        shared_neighbourhood: one list of neighbours for each cluster instead of each point. Not the paper's.
        merge_bias_init: `zero` as in the paper, where a kept point's own feature starts with the weight 0; `normal`
            gives it one from the start. Not the paper's.
        curve: along which points are cut into clusters; the paper's is `snake`, the others are for its ablation.
        in_channels: channels of an image.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    mlp_ratio: float = 3.0
    cluster: tuple[int, int, int, int] = (8, 8, 8, 8)
    nbhd: tuple[int, int, int, int] = (48, 48, 48, 49)
    rate: float = 0.25
    alpha: float = 4.0
    sampling: Mode = "adaptive"
    drop_path: float = 0.0
    layer_scale: float = 0.0
    shared_neighbourhood: bool = False
    merge_bias_init: str = "zero"
    curve: Curve = "snake"
    in_channels: int = 3

    def __post_init__(self) -> None:
        for name in ("widths", "depths", "heads", "cluster", "nbhd"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)  # lists, as they come from YAML, become tuples
            if len(values) != STAGES or any(not isinstance(v, int) or v < (name != "depths") for v in values):
                raise UserError(f"{name} is {list(values)}: four whole numbers are needed, one a stage")
        for width, heads in zip(self.widths, self.heads):
            if width % heads:
                raise UserError(f"a width of {width} cannot be shared among {heads} heads: choose a multiple")
        if self.widths[0] % 2:
            raise UserError(f"the first width is {self.widths[0]}: the patch embedding needs an even one")
        if not 0 <= self.drop_path < 1:
            raise UserError(f"drop_path is {self.drop_path}: it must be at least 0 and below 1")
        if self.merge_bias_init not in ("zero", "normal"):
            raise UserError(f"merge_bias_init is {self.merge_bias_init!r}: choose zero or normal")
        if self.curve not in get_args(Curve):
            raise UserError(f"curve is {self.curve!r}: choose one of {', '.join(get_args(Curve))}")
        if self.in_channels < 1:
            raise UserError(f"in_channels is {self.in_channels}: an image has at least one")
        check_sampling(self.rate, self.alpha, self.sampling)

    def hidden(self, stage: int) -> int:
        """Width of the MLP's hidden layer."""
        return int(self.widths[stage] * self.mlp_ratio)

    def clusters_seen(self, stage: int, n: int) -> int:
        """nnc, the clusters that each of n points attends to; 0: the stage is global."""
        size, nbhd = self.cluster[stage], self.nbhd[stage]
        if nbhd >= n:
            return 0
        return min(max(1, round(nbhd / size)), -(-n // size))


_BASE = BackboneConfig((128, 256, 512, 1024), (3, 4, 18, 2), (4, 8, 16, 32), drop_path=0.2, layer_scale=1e-5)

VARIANTS: dict[str, BackboneConfig] = {
    # ours, for tests and short trainings
    "nano": BackboneConfig((16, 32, 48, 64), (1, 2, 1, 1), (2, 2, 3, 4), 2.0, nbhd=(24, 24, 24, 49)),
    "mini": BackboneConfig((32, 128, 256, 384), (2, 2, 6, 2), (2, 4, 8, 16), 2.0),
    "tiny": BackboneConfig((64, 128, 256, 512), (3, 4, 18, 5), (2, 4, 8, 16), drop_path=0.2),
    "small": BackboneConfig((96, 192, 384, 768), (3, 4, 18, 2), (3, 6, 12, 24), drop_path=0.3, layer_scale=1e-5),
    "base": _BASE,
    "base384": BackboneConfig(
        _BASE.widths, _BASE.depths, _BASE.heads, cluster=(24,) * 4, nbhd=(144,) * 4, drop_path=0.2, layer_scale=1e-5
    ),
}
