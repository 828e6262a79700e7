"""What a network saw of one test image, as a picture for W&B: what it kept at each stage, why, and what it said."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from shared.figures import COLOURS, use_house_style
from torch import Tensor

from autofocusformer.backbone import Level
from autofocusformer.data.augment import denormalise
from autofocusformer.pictures import coloured, faded, show, tokens_over

DOTS = (1.6, 2.6, 4.0)  # points, for stages 2 to 4
STAGE_COLOURS = ("ours", "orange", "green")


def panel(
    levels: list[Level],
    image: Float[Tensor, "3 h w"],
    scores: Float[Tensor, "classes h w"],
    truth: Int64[Tensor, "h w"],
) -> Figure:
    """Image, importance of stage 1, its distribution at stages 1 to 3, tokens of stages 2 to 4, prediction and truth.

    Args:
        levels: of a batch; the first image is drawn.
        image: of that batch, normalised.
        truth: 255: ignored, drawn black.
    """
    use_house_style()
    shown = (denormalise(image.float().cpu()).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    classes = len(scores)
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
    show(axes[0, 0], shown, "image")
    first = levels[0]
    assert first.importance is not None
    importance, (x, y) = first.importance[0].float().cpu().numpy(), first.positions[0].cpu().numpy().T
    canvas = np.full(first.canvas, np.nan)
    canvas[y, x] = importance
    axes[0, 1].imshow(canvas, cmap="magma", interpolation="nearest", vmin=0, vmax=1)
    axes[0, 1].set_axis_off()
    axes[0, 1].set_title(f"importance, stage 1: {importance.min():.2f} to {importance.max():.2f}", fontsize=8)
    for number, (level, colour) in enumerate(zip(levels[:3], STAGE_COLOURS), start=1):
        assert level.importance is not None
        values = level.importance[0].float().cpu().numpy()
        axes[0, 2].hist(values, bins=40, range=(0, 1), histtype="step", density=True, color=COLOURS[colour],
                        label=f"stage {number}")  # fmt: skip
    axes[0, 2].set_xlabel("importance", fontsize=8)
    axes[0, 2].set_ylabel("density", fontsize=8)
    axes[0, 2].legend(fontsize=6, frameon=False)
    for place, number, dot in zip((axes[0, 3], axes[1, 0], axes[1, 1]), (2, 3, 4), DOTS):
        positions = levels[number - 1].positions[0]
        show(place, faded(shown), f"stage {number}: {len(positions)} tokens")
        tokens_over(place, positions, dot)
    show(axes[1, 2], coloured(scores.argmax(0).cpu().numpy(), classes), "prediction")
    show(axes[1, 3], coloured(truth.cpu().numpy(), classes), "truth")
    return figure
