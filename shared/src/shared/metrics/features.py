"""Feature extractors: a classifier trained on the spot, or Inception weights from a file. Each names itself.

A distance means nothing without its extractor: `title` is the name and the first 8 hex digits of the hash of what was
loaded or trained, and it belongs in the column's title.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from shared.errors import UserError

BATCH = 250


class Extractor(Protocol):
    """What makes features of images, and says which extractor it is."""

    @property
    def title(self) -> str: ...

    def extract(self, images: UInt8[Tensor, "n 3 h w"]) -> tuple[Tensor, Tensor | None]:
        """(features [n, d], logits [n, classes] or None) in float32 on the CPU."""
        ...


class Classifier(nn.Module):
    """Three convolutions and a hidden layer of 128, whose activations are the features.

    Args:
        name: of the data it was trained on.
        classes: how many.
        side: of the images; a multiple of 8.
    """

    def __init__(self, name: str, classes: int, side: int) -> None:
        super().__init__()
        self.name, self.accuracy = name, 0.0
        widths = (3, 16, 32, 64)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (side // 8) ** 2, 128), nn.ReLU())
        self.head = nn.Linear(128, classes)

    def forward(self, images: Float[Tensor, "n 3 side side"]) -> Float[Tensor, "n classes"]:
        return self.head(self.body(images))

    @property
    def title(self) -> str:
        digest = hashlib.sha256()
        for value in self.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return f"{self.name}-cnn-{digest.hexdigest()[:8]}"

    @torch.no_grad()
    def extract(self, images: UInt8[Tensor, "n 3 side side"]) -> tuple[Tensor, Tensor]:
        device = self.head.weight.device
        features = [self.body(scaled(part.to(device))) for part in images.split(BATCH)]
        joined = torch.cat(features)
        return joined.cpu(), self.head(joined).cpu()


def scaled(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return images.float() / 127.5 - 1


def train_classifier(
    name: str,
    images: UInt8[Tensor, "n 3 side side"],
    labels: Int[Tensor, " n"],
    test_images: UInt8[Tensor, "m 3 side side"],
    test_labels: Int[Tensor, " m"],
    *,
    steps: int = 300,
    device: torch.device | str = "cpu",
) -> Classifier:
    """A classifier of these images, by Adam; the same one for the same data, machine and torch. Knows its `accuracy`.

    Labels are class numbers from 0. The global random numbers are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Classifier(name, int(labels.max()) + 1, images.shape[-1]).to(device)
        order = torch.cat([torch.randperm(len(images)) for _ in range(-(-steps * 64 // len(images)))])
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        for step, rows in enumerate(order[: steps * 64].split(64)):
            for group in optimiser.param_groups:
                group["lr"] = 2e-3 * (1 - step / steps)
            loss = nn.functional.cross_entropy(net(scaled(images[rows].to(device))), labels[rows].to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval()
    _, logits = net.extract(test_images)
    net.accuracy = float((logits.argmax(1) == test_labels.cpu()).double().mean())
    return net


class Inception:
    """Inception weights from a TorchScript file that takes uint8 images [n, 3, h, w] and returns features [n, 2048].

    The file that is common for this resizes to 299 x 299 itself. It is code: load only one that you trust.

    Raises:
        UserError: no such file, or not TorchScript.
    """

    def __init__(self, path: Path | str, device: torch.device | str = "cpu") -> None:
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path} is missing: give the TorchScript file of Inception weights, or leave it out")
        try:
            self.net = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise UserError(f"{path} is no TorchScript file ({str(error).splitlines()[0]})") from None
        self.device = device
        self.name = f"inception-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"

    @property
    def title(self) -> str:
        return self.name

    @torch.no_grad()
    def extract(self, images: UInt8[Tensor, "n 3 h w"]) -> tuple[Tensor, None]:
        parts = [self.net(part.to(self.device)).flatten(1).float().cpu() for part in images.split(BATCH)]
        return torch.cat(parts), None
