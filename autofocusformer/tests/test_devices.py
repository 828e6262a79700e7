"""What is made during a step lies where its operands lie: watched on the CPU, for machines where they lie elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from autofocusformer.backbone import VARIANTS, Pyramid
from autofocusformer.heads.light import LightHead
from autofocusformer.heads.mask2former import PointMask2Former, Targets, instances, mask2former_losses, panoptic
from autofocusformer.kernels.checks import CHECKS
from autofocusformer.sampling import Mode
from shared.kernels.harness import Check, draw
from torch import Tensor

FACTORIES = ("arange", "empty", "full", "linspace", "ones", "rand", "randint", "randn", "randperm", "tensor", "zeros")


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and whatever the package makes from then on has to say on which device."""

    def watched(name: str, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*given: Any, **options: Any) -> Tensor:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            assert not caller.startswith("autofocusformer.") or "device" in options, f"{caller}: torch.{name}"
            return make(*given, **options)

        return made

    def watch() -> None:
        for name in FACTORIES:
            monkeypatch.setattr(torch, name, watched(name, getattr(torch, name)))

    return watch


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_operators(check: Check, placed: Callable[[], None]) -> None:
    """What runs without Triton, and in float64 on any device."""
    drawn = [draw(check, shape, "cpu", torch.float64) for shape in check.small]
    placed()
    for given in drawn:
        real = [isinstance(x, Tensor) and x.is_floating_point() for x in given]
        out, *_ = check.function(*(x.requires_grad_(check.gradients) if own else x for x, own in zip(given, real)))
        if check.gradients:
            out.sum().backward()


@pytest.mark.parametrize("sampling", ["adaptive", "grid", "random", "oracle"])
def test_the_pyramid_and_the_light_head(sampling: Mode, placed: Callable[[], None]) -> None:
    backbone = Pyramid(replace(VARIANTS["nano"], sampling=sampling, cluster=(8, 8, 8, 8), nbhd=(24, 24, 24, 16)))
    head = LightHead(backbone.config.widths, 3)
    images, oracle = torch.randn(2, 3, 64, 64), torch.rand(2, 16, 16)
    placed()
    levels = backbone(images, oracle)
    head([level.features for level in levels], [level.positions for level in levels], levels[0].canvas).sum().backward()


def test_the_mask_former(placed: Callable[[], None]) -> None:
    backbone = Pyramid(VARIANTS["nano"])
    head = PointMask2Former(backbone.config.widths, 3, 5)
    images = torch.randn(1, 3, 64, 64)
    targets = [Targets(torch.tensor([0, 2]), torch.rand(2, 64, 64) > 0.5)]
    placed()
    predictions = head(backbone(images))
    mask2former_losses(predictions, targets, 16).total.backward()
    instances(predictions[-1], (64, 64), things=[1])
    panoptic(predictions[-1], (64, 64), [1], confident=0.0)
