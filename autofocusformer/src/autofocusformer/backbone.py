"""The network off the grid: four stages over points, as a classifier or as a pyramid for segmentation heads.

image -> patch embedding -> [cluster, attend, keep the important, merge] x 3 -> [cluster, attend]

Positions are integers (x, y) on the stride-4 canvas of all stages. Names of parameters are those of the released
weights. Nothing is remembered between calls: sizes and batches may change from one to the next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from shared.errors import UserError
from torch import Tensor, nn

from autofocusformer.attention import Block
from autofocusformer.clustering import Canvas, balanced_clusters
from autofocusformer.merging import Merging
from autofocusformer.neighbourhood import Neighbourhood, neighbourhood
from autofocusformer.positions import canvas_positions
from autofocusformer.sampling import budget, importance_at, keep
from autofocusformer.variants import STAGES, STRIDES, VARIANTS, BackboneConfig

__all__ = ["VARIANTS", "AutoFocusFormer", "BackboneConfig", "Level", "Pyramid"]

log = logging.getLogger(__name__)

PATCH = 4  # pixels of an image to a cell of the canvas
LEVELS = ("res2", "res3", "res4", "res5")


class Level(NamedTuple):
    """The points of one stage, after its blocks and before its downsampling.

    Attributes:
        features: of each point, in the stage's cluster order.
        positions: (x, y) on the canvas.
        importance: s in (0, 1), by which the next stage's points were chosen; None at the last stage.
        canvas: (h, w), the same for all levels.
    """

    features: Float[Tensor, "batch n c"]
    positions: Int[Tensor, "batch n 2"]
    importance: Float[Tensor, "batch n"] | None
    canvas: Canvas


def check_images(images: Tensor, channels: int) -> None:
    """Raises UserError for what is not a batch of images of numbers."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise UserError(
            f"images of shape {list(images.shape)}: the network takes [batch, {channels}, height, width]"
            + (", grey or transparent images have to be converted to RGB first" if channels == 3 else "")
        )
    if 0 in images.shape:
        raise UserError(f"images of shape {list(images.shape)} hold no pixel: leave empty batches out")
    if not images.is_floating_point():
        raise UserError(f"images of type {images.dtype}: convert to float and normalise them first")
    if not torch.compiler.is_compiling() and not torch.isfinite(images).all():
        bad = [i for i, image in enumerate(images) if not torch.isfinite(image).all()]
        raise UserError(f"image {bad[0]} of the batch holds NaN or infinite values: see how it was read or normalised")


class PatchEmbedding(nn.Module):
    """Two convolutions of stride 2: a point for each 4 x 4 pixels, the image padded at the right and at the bottom."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.proj1 = nn.Conv2d(channels, width // 2, 3, 2, 1)
        self.bn = nn.BatchNorm2d(width // 2)
        self.proj2 = nn.Conv2d(width // 2, width, 3, 2, 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> tuple[Tensor, Canvas]:
        """-> features [batch, h w, width] in row-major order, canvas (h, w)."""
        check_images(images, self.channels)
        height, width = (int(side) for side in images.shape[2:])  # tensors while torch.jit.trace runs
        images = nn.functional.pad(images, (0, -width % PATCH, 0, -height % PATCH))
        x = self.proj2(nn.functional.gelu(self.bn(self.proj1(images))))
        h, w = (int(side) for side in x.shape[2:])
        return self.norm(x.flatten(2).transpose(1, 2)), (h, w)


class Stage(nn.Module):
    """Clusters its points, attends, and passes on the important ones.

    Args:
        config: of the whole backbone.
        index: 0 to 3; the last stage has no downsampling.
    """

    def __init__(self, config: BackboneConfig, index: int) -> None:
        super().__init__()
        width, before = config.widths[index], sum(config.depths[:index])
        last = max(1, sum(config.depths) - 1)  # drops rise linearly from the first block of the network to the last
        self.index = index
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.heads[index],
                config.hidden(index),
                config.drop_path * (before + j) / last,
                config.layer_scale,
            )
            for j in range(config.depths[index])
        )
        self.told: set[tuple[int, int, int, float]] = set()
        if index + 1 < STAGES:
            self.downsample = Merging(width, config.widths[index + 1])
            self.prob_net = nn.Linear(width, 1)

    def attend(
        self,
        x: Float[Tensor, "batch n c"],
        positions: Int[Tensor, "images n 2"],
        canvas: Canvas,
        config: BackboneConfig,
    ) -> tuple[Tensor, Neighbourhood]:
        """Points in cluster order after all blocks. `images` is 1 where all images have the same points."""
        batch, n, c = x.shape
        nnc = config.clusters_seen(self.index, n)
        size = config.cluster[self.index]
        if nnc:
            clusters = balanced_clusters(positions, size, canvas, config.curve)
            order = clusters.order[..., None]
            x = x.gather(1, order.expand(batch, n, c))
            positions = positions.gather(1, order.expand(-1, -1, 2))
            around = neighbourhood(positions, clusters, nnc, config.shared_neighbourhood)
            near = around.near
            around = around._replace(near=None if near is None else near.expand(batch, -1, -1))
        else:
            around = Neighbourhood(positions, None, size)
        around = around._replace(positions=positions.expand(batch, -1, -1))
        for block in self.blocks:
            x = block(x, around)
        return x, around

    def importance(self, x: Float[Tensor, "batch n c"]) -> Float[Tensor, "batch n"]:
        """s = sigmoid(w . x + b), always in fp32: in half precision different points would tie."""
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.prob_net.weight, self.prob_net.bias
            dtype = torch.promote_types(x.dtype, torch.float32)
            return nn.functional.linear(x.to(dtype), weight.to(dtype), bias.to(dtype))[..., 0].sigmoid()

    def choose(
        self,
        importance: Float[Tensor, "batch n"],
        positions: Int[Tensor, "batch n 2"],
        canvas: Canvas,
        config: BackboneConfig,
    ) -> Int[Tensor, "batch kept"]:
        """Rows of the points kept. Says once for each size and rate when more are reserved than were asked for."""
        n, stride = positions.shape[1], STRIDES[self.index]
        kept, reserved, asked = budget(n, canvas, stride, config.rate, config.sampling)
        if asked < reserved and (*canvas, n, config.rate) not in self.told:
            self.told.add((*canvas, n, config.rate))
            log.warning(
                "stage %d, canvas %d x %d: a rate of %g would keep %d of %d points, "
                "fewer than the %d reserved; keeping %d",
                *(self.index + 1, *canvas, config.rate, asked, n, reserved, kept),
            )
        return keep(importance, positions, stride, canvas, config.rate, config.alpha, config.sampling)

    def merge(
        self, x: Float[Tensor, "batch n c"], importance: Float[Tensor, "batch n"], kept: Tensor, around: Neighbourhood
    ) -> tuple[Float[Tensor, "batch kept c_next"], Int[Tensor, "batch kept 2"]]:
        """The kept points with what they took up from their neighbours, and where they are."""
        merged = self.downsample(x, importance, kept, around)
        return merged, around.positions.gather(1, kept[..., None].expand(-1, -1, 2))


def initialise(module: nn.Module) -> None:
    """Linear: normal of deviation 0.02 cut at 2, bias 0. LayerNorm 1 and 0, convolutions: PyTorch's own."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Backbone(nn.Module):
    """Patch embedding and four stages: what the classifier and the pyramid have in common.

    `config` may be replaced between calls by one that differs in `rate`, `alpha` or `sampling` (see `resample`).
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config.in_channels, config.widths[0])
        self.layers = nn.ModuleList(Stage(config, i) for i in range(STAGES))

    def _start(self) -> None:
        """Initial weights, after every part is there."""
        self.apply(initialise)
        if self.config.merge_bias_init == "normal":
            for stage in self._stages()[:-1]:
                nn.init.normal_(stage.downsample.weight_net[0].bias, std=0.02)  # type: ignore[arg-type]

    def _stages(self) -> list[Stage]:
        return list(self.layers)  # type: ignore[arg-type]

    def resample(self, **changes: Any) -> None:
        """Other `rate`, `alpha` or `sampling` from now on; the weights stay."""
        if unknown := set(changes) - {"rate", "alpha", "sampling"}:
            raise UserError(
                f"only rate, alpha and sampling can be changed afterwards, not {', '.join(sorted(unknown))}"
            )
        self.config = replace(self.config, **changes)

    def stages(
        self, images: Float[Tensor, "batch channels height width"], oracle: Float[Tensor, "batch h w"] | None = None
    ) -> list[Level]:
        """All four levels, unnormalised.

        Args:
            images: of any size; padded to whole cells.
            oracle: importance in [0, 1] on the canvas, by which `sampling: oracle` chooses instead of the learned one.
        """
        config = self.config
        x, canvas = self.patch_embed(images)
        if config.sampling == "oracle":
            _check_oracle(oracle, x.shape[0], canvas)
        positions = canvas_positions(canvas[0], canvas[1], x.device)[None]
        levels = []
        for stage in self._stages():
            x, around = stage.attend(x, positions, canvas, config)
            if stage.index + 1 == STAGES:
                levels.append(Level(x, around.positions, None, canvas))
                break
            importance = stage.importance(x)
            levels.append(Level(x, around.positions, importance, canvas))
            chosen_by = importance
            if config.sampling == "oracle" and oracle is not None:
                chosen_by = importance_at(oracle.to(importance.dtype), around.positions)
            kept = stage.choose(chosen_by, around.positions, canvas, config)
            x, positions = stage.merge(x, importance, kept, around)
        return levels


def _check_oracle(oracle: Tensor | None, batch: int, canvas: Canvas) -> None:
    expected = [batch, *canvas]
    if oracle is None or list(oracle.shape) != expected:
        found = "none" if oracle is None else f"one of shape {list(oracle.shape)}"
        raise UserError(f"sampling: oracle needs an importance of shape {expected} (the canvas), {found} was given")


class AutoFocusFormer(Backbone):
    """The classifier: LayerNorm, mean over the last stage's points, Linear.

    Args:
        config: one of `VARIANTS`, or your own.
        classes: number of logits.
    """

    def __init__(self, config: BackboneConfig, classes: int = 1000) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(config.widths[-1])
        self.head = nn.Linear(config.widths[-1], classes)
        self._start()

    def forward(
        self, images: Float[Tensor, "batch channels height width"], oracle: Float[Tensor, "batch h w"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        return self.head(self.norm(self.stages(images, oracle)[-1].features).mean(1))


class Pyramid(Backbone):
    """The backbone of segmentation heads: each level through its own LayerNorm (res2, res3, res4, res5).

    Args:
        config: one of `VARIANTS`, or your own.
        read: the levels (0 to 3) whose features are used; those of the others are not normalised. All weights are there
            in any case, under their published names; what no level that is read depends on is frozen.
    """

    def __init__(self, config: BackboneConfig, read: Sequence[int] = range(STAGES)) -> None:
        super().__init__(config)
        self.read = set(read)
        for i, width in enumerate(config.widths):
            setattr(self, f"norm{i}", nn.LayerNorm(width))
        self._start()
        for part in self._unread():  # DistributedDataParallel waits for a gradient of all that is not frozen
            part.requires_grad_(False)

    def _unread(self) -> Iterator[nn.Module]:
        """Norms of levels that are not read, and whatever comes after the last level that is."""
        last = max(self.read)
        yield from (getattr(self, f"norm{i}") for i in range(STAGES) if i not in self.read)
        yield from self._stages()[last + 1 :]
        if last + 1 < STAGES:
            yield from (self._stages()[last].prob_net, self._stages()[last].downsample)

    def forward(
        self, images: Float[Tensor, "batch channels height width"], oracle: Float[Tensor, "batch h w"] | None = None
    ) -> list[Level]:
        levels = self.stages(images, oracle)
        return [
            level._replace(features=getattr(self, f"norm{i}")(level.features)) if i in self.read else level
            for i, level in enumerate(levels)
        ]
