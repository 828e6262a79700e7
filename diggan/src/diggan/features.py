"""What samples are judged by: features of a small classifier trained on the spot, or of Inception (section 9).

A distance means nothing without its extractor: scores of the first kind are FID-local and IS-local, and every result
carries the extractor's title, which ends in the hash of its weights. Images are [n, c, h, w] in [-1, 1].
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from jaxtyping import Float
from shared.data.root import data_root
from shared.errors import UserError
from shared.metrics.features import Inception
from shared.runs.store import write_atomic
from torch import Tensor, nn

from diggan.data.images import Source, spread
from diggan.nets.inception import from_state

BATCH = 500
ACCURACY_OVER = 10_000  # test images, at most
INCEPTION_BATCH = 100  # of 299 x 299 pixels
NOISE = 0.1  # standard deviation of the noise on the classifier's training images


def quantised(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """As a file would hold them: uint8(floor((x/2 + 1/2) 255 + 1/2)), in [-1, 1] again."""
    return ((images / 2 + 0.5) * 255 + 0.5).floor().clamp(0, 255) / 127.5 - 1


def score_name(what: str, title: str) -> str:
    """`FID-local [a7163b09]` by an extractor's title, `FID [...]` where it is Inception."""
    local = "" if title.startswith("inception-") else "-local"
    return f"{what}{local} [{title.rsplit('-', 1)[-1]}]"


class LocalFeatures(nn.Module):
    """A classifier of two convolutions and a hidden layer, whose activations are the features.

    8 x 8 and 28 x 28 are the specification's; larger images get one more convolution for each halving down to 8.

    Args:
        source: the data it is trained on.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        channels, size, _ = source.shape
        self.name, self.accuracy = source.name, 0.0
        sizes: tuple[int, ...]
        strides: tuple[int, ...]
        if size == 8:
            self.steps, sizes, strides = 300, (channels, 32, 64), (1, 2)
        elif size == 28:
            self.steps, sizes, strides = 1500, (channels, 16, 32), (2, 2)
        else:
            halvings = max(2, (size // 8).bit_length())
            widths = [min(32 * 2**i, 128) for i in range(halvings)]
            self.steps, sizes, strides = 3000, (channels, *widths), (2,) * halvings
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip(sizes, sizes[1:], strides):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU()]
        side = size
        for stride in strides:
            side = -(-side // stride)
        width = 64 if size <= 28 else 128
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(sizes[-1] * side**2, width), nn.ReLU())
        self.head = nn.Linear(width, source.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))

    @property
    def title(self) -> str:
        digest = hashlib.sha256()
        for value in self.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return f"{self.name}-cnn-{digest.hexdigest()[:8]}"

    @torch.no_grad()
    def extract(self, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
        """(features, class probabilities) in float32 on the CPU."""
        device = self.head.weight.device
        features = torch.cat([self.body(part.to(device)) for part in images.split(BATCH)])
        return features.cpu(), self.head(features).softmax(1).cpu()


class InceptionFeatures:
    """Inception weights from a file: a state dict of FID's own network, or TorchScript of (features[, logits]).

    Without logits there are no probabilities, and so no inception score. Grey images are shown as three equal channels.

    Raises:
        UserError: no such file, or none of these.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        if not path.is_file():
            raise UserError(
                f"{path} is missing: give Inception weights (pt_inception-2015-12-05-*.pth, or a TorchScript file), "
                "which are never downloaded, or leave it out for FID-local"
            )
        self.accuracy, self.device = 0.0, device  # of what it was trained on nothing is here
        self.title = f"inception-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        self.net = Inception(path, device).net if _is_torchscript(path) else from_state(_state(path)).to(device)

    @torch.no_grad()
    def extract(self, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor | None]:
        pixels = ((quantised(images) + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
        features, logits = [], []
        for part in pixels.split(INCEPTION_BATCH):
            found = self.net(part.to(self.device))
            both = found if isinstance(found, tuple) else (found, None)
            features.append(both[0].flatten(1).float().cpu())
            if both[1] is not None:
                logits.append(both[1].float().cpu())
        return torch.cat(features), torch.cat(logits).softmax(1) if logits else None


def inception_file(name: str) -> Path:
    """Where a configuration's file lies: as it is named, or under the data root."""
    path = Path(name).expanduser()
    return path if path.is_absolute() or path.is_file() else data_root() / path


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        state = None
    if not isinstance(state, dict):
        raise UserError(f"{path} is neither TorchScript nor a state dict: give pt_inception-2015-12-05-*.pth")
    return state


def train(source: Source, seed: int = 0) -> LocalFeatures:
    """Adam(1e-3) on batches of 64 with noise on the images, to measure on the reference images.

    On the CPU, where it is deterministic: distances by another classifier, if but by its rounding, do not compare. The
    global random numbers are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = LocalFeatures(source)
        n = len(source.labels)
        order = torch.cat([torch.randperm(n) for _ in range(-(-net.steps * 64 // n))])
        optimiser = torch.optim.Adam(net.parameters(), 1e-3)
        for rows in order[: net.steps * 64].split(64):
            x = source.scaled(source.images[rows])
            x = x + NOISE * torch.randn_like(x)
            loss = F.cross_entropy(net(x), source.labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval().requires_grad_(False)
    return net


def local_features(source: Source, folder: Path | None = None, device: torch.device | str = "cpu") -> LocalFeatures:
    """`train`'s classifier, kept in `folder` by the contents that it was trained on, and its accuracy measured.

    Processes that ask for it at a time have the same: one trains, the others wait.

    Raises:
        UserError: the file that keeps it is damaged; the disk is full.
    """
    if folder is None:
        net = train(source)
    else:
        with torch.random.fork_rng(devices=[]):
            net = LocalFeatures(source)
        recipe = f"{source.fingerprint} {source.shape} {source.classes} {net} {net.steps} {NOISE}"
        name = f"features-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            net = _kept(net, source, folder / f"{name}.pt")
    net.to(device)
    rows = spread(len(source.test_labels), ACCURACY_OVER)
    probabilities = net.extract(source.scaled(source.test_images[rows]))[1]
    net.accuracy = float((probabilities.argmax(1) == source.test_labels[rows]).double().mean())
    return net


def _kept(empty: LocalFeatures, source: Source, path: Path) -> LocalFeatures:
    """What the file holds; what it is to hold, where there is none."""
    if not path.is_file():
        net = train(source)
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        write_atomic(path, buffer.getvalue())
        return net
    try:
        empty.load_state_dict(torch.load(path, weights_only=True))
    except Exception as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): delete it and run again") from None
    return empty.eval().requires_grad_(False)
