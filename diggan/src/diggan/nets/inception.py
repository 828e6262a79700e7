"""The Inception network behind published FIDs, for weights that come as a state dict (section 9).

Inception v3 (Szegedy et al. 2016) as it was frozen for FID and the inception score: 1008 classes, average pooling that
leaves the border's zeros out of the mean, and a maximum in the last block's pooling. Parameters have torchvision's
names, as in the file `pt_inception-2015-12-05-*.pth` that is common in PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from shared.errors import UserError
from torch import Tensor, nn

CLASSES, SIDE = 1008, 299
Kernel = tuple[int, int]
# A branch: one convolution after another, (name, outputs, kernel). Those in a list stand side by side.
Convolution = tuple[str, int, Kernel]
Branch = Sequence[Convolution | list[Convolution]]


class Normalised(nn.Module):
    """Convolution, batch normalisation, ReLU.

    Args:
        padded: the result is as large as the image; with `stride` 2 it never is.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded and stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Block(nn.Module):
    """Branches side by side, and one that pools.

    Args:
        pooled: channels of the convolution behind the pooling; None: the block halves the image, by the stride of each
            branch's last convolution and of a maximum.
        maximum: instead of the mean.
    """

    def __init__(self, inputs: int, branches: Sequence[Branch], pooled: int | None, maximum: bool = False) -> None:
        super().__init__()
        self.pooled, self.maximum = pooled, maximum
        self.branches: list[list[list[str]]] = []
        self.outputs = inputs if pooled is None else pooled
        for branch in branches:
            width, names = inputs, []
            for place, step in enumerate(branch):
                beside = step if isinstance(step, list) else [step]
                stride = 2 if pooled is None and place == len(branch) - 1 else 1
                for name, outputs, kernel in beside:
                    self.add_module(name, Normalised(width, outputs, kernel, stride))
                width = sum(outputs for _, outputs, _ in beside)
                names.append([name for name, _, _ in beside])
            self.branches.append(names)
            self.outputs += width
        if pooled is not None:
            self.branch_pool = Normalised(inputs, pooled, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for branch in self.branches:
            h = x
            for beside in branch:
                h = torch.cat([getattr(self, name)(h) for name in beside], 1)
            out.append(h)
        if self.pooled is None:
            out.append(F.max_pool2d(x, 3, 2))
        elif self.maximum:
            out.append(self.branch_pool(F.max_pool2d(x, 3, 1, 1)))
        else:
            out.append(self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)))
        return torch.cat(out, 1)


def _chain(name: str, *steps: tuple[int, Kernel], first: int = 1) -> list[Convolution]:
    """`name_1`, `name_2`, ... with these outputs and kernels."""
    return [(f"{name}_{place}", *step) for place, step in enumerate(steps, first)]


def _block_5(pooled: int) -> tuple[list[Branch], int]:
    double = _chain("branch3x3dbl", (64, (1, 1)), (96, (3, 3)), (96, (3, 3)))
    return [[("branch1x1", 64, (1, 1))], _chain("branch5x5", (48, (1, 1)), (64, (5, 5))), double], pooled


def _block_6(c: int) -> tuple[list[Branch], int]:
    along, across = (1, 7), (7, 1)
    double = (c, (1, 1)), (c, across), (c, along), (c, across), (192, along)
    single = (c, (1, 1)), (c, along), (192, across)
    return [[("branch1x1", 192, (1, 1))], _chain("branch7x7", *single), _chain("branch7x7dbl", *double)], 192


def _block_7() -> tuple[list[Branch], int]:
    def fork(name: str) -> list[Convolution]:
        return [(f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))]

    single: Branch = [("branch3x3_1", 384, (1, 1)), fork("branch3x3_2")]
    double: Branch = [*_chain("branch3x3dbl", (448, (1, 1)), (384, (3, 3))), fork("branch3x3dbl_3")]
    return [[("branch1x1", 320, (1, 1))], single, double], 192


def _halving_6() -> tuple[list[Branch], None]:
    double = _chain("branch3x3dbl", (64, (1, 1)), (96, (3, 3)), (96, (3, 3)))
    return [[("branch3x3", 384, (3, 3))], double], None


def _halving_7() -> tuple[list[Branch], None]:
    long = (192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3))
    return [_chain("branch3x3", (192, (1, 1)), (320, (3, 3))), _chain("branch7x7x3", *long)], None


class FIDInception(nn.Module):
    """`net(images)`: features [n, 2048] (the mean over places before the classifier) and logits [n, 1008]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Normalised(3, 32, (3, 3), 2)
        self.Conv2d_2a_3x3 = Normalised(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = Normalised(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Normalised(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Normalised(80, 192, (3, 3), padded=False)
        blocks: dict[str, tuple[list[Branch], int | None]] = {
            "5b": _block_5(32), "5c": _block_5(64), "5d": _block_5(64), "6a": _halving_6(), "6b": _block_6(128),
            "6c": _block_6(160), "6d": _block_6(160), "6e": _block_6(192), "7a": _halving_7(), "7b": _block_7(),
            "7c": _block_7(),
        }  # fmt: skip
        width = 192
        self.blocks = [f"Mixed_{name}" for name in blocks]
        for name, (branches, pooled) in blocks.items():
            block = Block(width, branches, pooled, maximum=name == "7c")
            self.add_module(f"Mixed_{name}", block)
            width = block.outputs
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n 2048"], Float[Tensor, "n 1008"]]:
        x = F.interpolate(images.float() / 255, (SIDE, SIDE), mode="bilinear", align_corners=False) * 2 - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in self.blocks:
            x = getattr(self, name)(x)
        features = x.mean((2, 3))
        return features, self.fc(features)


def from_state(state: Mapping[str, Any]) -> FIDInception:
    """The network with these weights, to measure with. What torchvision has beside them (`AuxLogits`) is left out.

    Raises:
        UserError: weights of another network, such as torchvision's own of 1000 classes, whose features are others.
    """
    net = FIDInception()
    state = {name: value for name, value in state.items() if not name.startswith("AuxLogits.")}
    fc = state.get("fc.weight")
    if isinstance(fc, Tensor) and len(fc) != CLASSES:
        raise UserError(
            f"weights of {len(fc)} classes: FID's own Inception has {CLASSES} (pt_inception-2015-12-05), and distances "
            "by other features are no FID"
        )
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"weights of another network ({' '.join(str(error).split())[:200]})") from None
    return net.eval().requires_grad_(False)
