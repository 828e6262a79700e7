"""Networks from files, ready to look at an image: our own checkpoints, and released weights of the classifier."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int64
from shared.errors import UserError
from torch import Tensor, nn

from autofocusformer.backbone import VARIANTS, AutoFocusFormer, Backbone
from autofocusformer.checkpoint import load_weights, read_checkpoint, weights_of
from autofocusformer.heads.mask2former import panoptic, semantic
from autofocusformer.mask_module import IGNORE, MaskSegmenter
from autofocusformer.module import Classifier, Segmenter, Trained

KINDS: dict[str, type[Trained]] = {kind.__name__: kind for kind in (Segmenter, Classifier, MaskSegmenter)}


class Labels(NamedTuple):
    """Of an image's pixels: the class (255: none), and where instances were learned their number (0: none)."""

    classes: Int64[Tensor, "h w"]
    instances: Int64[Tensor, "h w"] | None


class Loaded(NamedTuple):
    """A network in evaluation.

    Attributes:
        module: what was trained; None for released weights.
        backbone: its points come from here.
        names: of the classes; empty where the file does not say.
        things: trained on instances: most pixels belong to none.
    """

    module: Trained | None
    backbone: Backbone
    names: tuple[str, ...]
    things: bool

    @property
    def segments(self) -> bool:
        return isinstance(self.module, Segmenter | MaskSegmenter)

    def labels(self, image: Float[Tensor, "1 3 h w"]) -> Labels:
        """What each pixel is; where instances were learned, only of those that the network is sure of."""
        if not self.things:
            return Labels(self.scores(image)[0].argmax(0), None)
        assert isinstance(self.module, MaskSegmenter), "only masks are trained on instances"
        size = (image.shape[2], image.shape[3])
        (found,) = panoptic(self.module(image)[0][-1], size, things=range(len(self.names)))
        kinds = torch.tensor([IGNORE, *found.labels], device=found.segments.device)
        return Labels(kinds[found.segments], found.segments)

    def scores(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes h w"]:
        """Of every pixel."""
        if isinstance(self.module, Segmenter):
            return self.module(images)[0]
        assert isinstance(self.module, MaskSegmenter), "a classifier has no scores of pixels"
        return semantic(self.module(images)[0][-1], (images.shape[2], images.shape[3]))


def load(path: Path, variant: str | None = None, sampling: str | None = None, average: bool = False) -> Loaded:
    """The network of a checkpoint.

    Args:
        path: `final.ckpt` of a run, or a released file (then `variant` says of which network).
        variant: of a released file.
        average: of a released file, the average of its weights (`model_ema`) instead.
        sampling: instead of the mode it was trained with (an oracle needs labels, so such a network needs another).

    Raises:
        UserError: unreadable file, another network's weights, or no variant where one is needed.
    """
    found = read_checkpoint(path)
    module: Trained | None
    backbone: Backbone
    things = False
    if "autofocusformer" in found and not average:
        about = found["autofocusformer"]
        module = KINDS[about["kind"]](**about["settings"])
        names, small, things = tuple(about["names"]), tuple(about["small"]), about["things"]
        if isinstance(module, Classifier):
            module.build(len(names))
        elif isinstance(module, Segmenter | MaskSegmenter):
            module.build(len(names), small=small, names=names)
        module.load_state_dict(found["state_dict"])
        backbone = cast(Backbone, module.backbone)
    else:
        if variant is None:
            raise UserError(
                f"{path} is no checkpoint of a run here: say of which network its weights are, by --variant"
            )
        if variant not in VARIANTS:
            raise UserError(f"unknown variant {variant!r}: there are {', '.join(VARIANTS)}")
        weights = weights_of(found, average, path)
        classes = len(weights["head.bias"]) if "head.bias" in weights else 1000
        module, names = None, ()
        backbone = AutoFocusFormer(VARIANTS[variant], classes)
        load_weights(backbone, weights, path)
    if sampling is not None:
        backbone.resample(sampling=sampling)
    if backbone.config.sampling == "oracle":
        raise UserError(f"{path} was trained by an oracle, which needs labels: choose another mode, by --sampling")
    whole: nn.Module = backbone if module is None else module
    whole.eval().requires_grad_(False)
    return Loaded(module, backbone, names, things)
