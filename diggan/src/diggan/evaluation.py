"""What is looked at during training and after it (section 9): G by its samples, D by its gradients and logits.

Looking changes nothing: buffers that a pass in training mode moves are put back, and random numbers are of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

import torch
from jaxtyping import Float
from shared.errors import UserError
from shared.metrics.coverage import nearest_neighbours
from shared.metrics.distances import frechet_distance
from torch import Tensor, nn

from diggan.data.draws import stream
from diggan.data.images import spread
from diggan.features import quantised
from diggan.kernels.grad_gap import norms
from diggan.nets.layers import BatchNorm
from diggan.scores import inception_score, kernel_distance, leaks, nearest_training_distance

EvalBN = Literal["batch", "running", "standing"]
STANDING_PASSES = 16
NEIGHBOURS = 5
TAIL = 3  # looks that a tail mean is over
FINITE = 1e6  # features beyond have diverged


class Extractor(Protocol):
    """What makes features (and class probabilities, or None) of images in [-1, 1], and says which it is."""

    accuracy: float

    @property
    def title(self) -> str: ...

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor | None]: ...


def check_eval_bn(mode: str) -> None:
    if mode not in get_args(EvalBN):
        raise UserError(f"unknown eval_bn {mode!r}: there are {', '.join(get_args(EvalBN))}")


@contextmanager
def untouched(net: nn.Module, mode: EvalBN, passes: Callable[[], Any] | None = None) -> Iterator[None]:
    """A generator as it samples, put back to the last bit afterwards.

    Args:
        mode: normalise by the `batch` (the authors'), by the `running` averages, or by statistics collected over
            passes made now (`standing`).
        passes: one pass of `standing`.
    """
    check_eval_bn(mode)
    training = net.training
    kept = {name: value.clone() for name, value in net.named_buffers()}
    norms_ = [m for m in net.modules() if isinstance(m, BatchNorm | nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms_]
    try:
        if mode == "standing" and norms_:
            assert passes is not None
            net.train()
            for i in range(STANDING_PASSES):  # the mean of all passes, by momentum 1, 1/2, 1/3, ...
                for m in norms_:
                    m.momentum = 1 / (i + 1)
                passes()
        net.train(mode == "batch")
        yield
    finally:
        for m, momentum in zip(norms_, momenta):
            m.momentum = momentum
        with torch.no_grad():
            for name, value in net.named_buffers():
                value.copy_(kept[name])
        net.train(training)


def latents(g: nn.Module, count: int, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """What `sample` makes images of: normal latents, and uniform classes of a conditional generator."""
    random = stream(seed, "samples")
    z = torch.randn(count, int(g.latent), generator=random)  # type: ignore[arg-type]
    return z, torch.randint(int(g.classes), (count,), generator=random) if g.classes else None  # type: ignore[arg-type]


@torch.no_grad()
def sample(
    g: nn.Module, count: int, eval_bn: EvalBN = "batch", batch: int = 50, seed: int = 0
) -> Float[Tensor, "count c h w"]:
    """Images of a generator on the CPU, as a file would hold them, in batches (which matter to `batch`).

    Classes are uniform, latents and classes of a fixed stream.

    Raises:
        UserError: an unknown eval_bn (the known are listed).
    """
    device = next(g.parameters()).device
    z, y = latents(g, count, seed)

    def make(rows: slice) -> Tensor:
        own = z[rows].to(device)
        return g(own) if y is None else g(own, y[rows].to(device))

    others = stream(seed, "standing statistics")

    def fresh() -> Tensor:
        """A pass on latents of its own, for statistics that are collected."""
        own = torch.randn(batch, int(g.latent), generator=others).to(device)  # type: ignore[arg-type]
        if y is None:
            return g(own)
        return g(own, torch.randint(int(g.classes), (batch,), generator=others).to(device))  # type: ignore[arg-type]

    with untouched(g, eval_bn, fresh):
        parts = [make(slice(i, min(i + batch, count))).float().cpu() for i in range(0, count, batch)]
    return quantised(torch.cat(parts))


def d_statistics(
    d: nn.Module,
    train: Tensor,
    held_out: Tensor,
    fake: Tensor,
    labels: Sequence[Tensor | None] = (None, None, None),
    axis: int = 0,
    batch: int = 2500,
) -> dict[str, Tensor]:
    """D's gradient norms and logits on training images, held-out images and fakes [..., n, *]; one number a network.

    `gap` = |mean norm on training images - mean norm on fakes|; accuracies on reals are shares of logits
    above 0; `overfitting` is the difference of D's accuracies on training and on held-out images.
    """
    training = d.training
    d.eval()
    frozen = [p for p in d.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    out = {}
    try:
        for name, images, y in zip(("real", "held_out", "fake"), (train, held_out, fake), labels):
            sizes, logits = [], []
            for start in range(0, images.shape[axis], batch):
                x = images.narrow(axis, start, min(batch, images.shape[axis] - start)).detach().requires_grad_()
                with torch.enable_grad():
                    value = d(x) if y is None else d(x, y[start : start + batch])
                    (grad,) = torch.autograd.grad(value.sum(), x)
                sizes.append(norms(grad, axis + 1))
                logits.append(value.detach().flatten(axis))
            out[f"norm_{name}"] = torch.cat(sizes, axis).mean(-1)
            joined = torch.cat(logits, axis)
            out[f"logit_{name}"] = joined.mean(-1)
            if name != "fake":
                out[f"accuracy_{name}"] = (joined > 0).float().mean(-1)
    finally:
        d.train(training)
        for p in frozen:
            p.requires_grad_(True)
    out["gap"] = (out["norm_real"] - out["norm_fake"]).abs()
    out["overfitting"] = out["accuracy_real"] - out["accuracy_held_out"]
    return out


class Judge:
    """Compares samples with reference images by an extractor's features.

    Args:
        reference: what results are measured against.
    """

    def __init__(self, extractor: Extractor, reference: Tensor) -> None:
        self.extractor = extractor
        self.reference = extractor.extract(reference)[0]

    def frechet(self, fake: Tensor, reference: Tensor | None = None) -> float:
        """Distance of features [n, d] to the reference's; infinite where samples have diverged."""
        if not fake.isfinite().all() or fake.abs().max() > FINITE:
            return math.inf
        return frechet_distance(self.reference if reference is None else reference, fake)

    def scores(self, samples: Tensor, training: Tensor, subsets: int = 100) -> dict[str, float]:
        """Everything that is asked of a finished generator; `training` are the images that it was trained on."""
        fake, probabilities = self.extractor.extract(samples)
        out = {f"features/{self.extractor.title}": self.extractor.accuracy, "fid": self.frechet(fake)}
        # As many of either set: the distances are quadratic, and the shares depend on the numbers.
        n = min(len(self.reference), len(fake))
        reference = self.reference[spread(len(self.reference), n)]
        out["kid"], deviation = kernel_distance(reference, fake[:n], subsets)
        if deviation is not None:
            out["kid_sd"] = deviation
        near = nearest_neighbours(reference, fake[:n], NEIGHBOURS)
        out |= {"precision": near.precision, "recall": near.recall, "density": near.density, "coverage": near.coverage}
        if probabilities is not None:
            out["is"], out["is_sd"] = inception_score(probabilities)
        out["nearest_training"] = float(nearest_training_distance(samples, training).mean())
        out["leak"], out["leak_training"] = float(leaks(samples).mean()), float(leaks(training).mean())
        return out


def summary(curves: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Best and last FID, and tail means of FID, validation FID, gap and overfitting (the mean of the last three looks).

    The best is over looks at the reference set itself, so it is optimistic; the last and the tail are not. `growth/gap`
    is the gap's tail mean minus its mean over the first three looks after the start, where there are so many.
    """
    fid = curves["fid"]
    tail = {name: sum(curves[name][-TAIL:]) / len(curves[name][-TAIL:]) for name in TAILED if name in curves}
    out = {"best/fid": min(fid), "last/fid": fid[-1], **{f"tail/{name}": value for name, value in tail.items()}}
    if len(fid) > 2 * TAIL:
        early = curves["gap"][1 : TAIL + 1]
        out["growth/gap"] = tail["gap"] - sum(early) / len(early)
    return out


def thumbnails(
    samples: Float[Tensor, "n c h w"], training: Float[Tensor, "m c h w"], count: int, most: int = 2000
) -> dict[str, list[float]]:
    """The first samples for a picture, and the training image nearest to each, as whole numbers 0 to 255.

    Reduced to 16 pixels a side where they are larger. Nothing for a `count` of 0; fewer where there would be more than
    `most` numbers, but at least 4.
    """
    if not count:
        return {}
    size = samples.shape[-1]
    samples = samples[:count]
    nearest = training[torch.cdist(samples.flatten(1), training.flatten(1)).argmin(1)]
    if size > 16:
        factor = -(-size // 16)
        samples, nearest = (
            torch.nn.functional.avg_pool2d(v, factor, ceil_mode=True, count_include_pad=False)
            for v in (samples, nearest)
        )
    count = max(4, min(count, most // samples[0].numel()))
    pixels, near = (((v[:count] + 1) * 127.5).round() for v in (samples, nearest))
    return {
        "samples/shape": [float(v) for v in pixels.shape], "samples/pixels": pixels.flatten().tolist(),
        "samples/nearest": near.flatten().tolist(),
    }  # fmt: skip


def rounded(values: Sequence[float]) -> list[float]:
    """For pictures and tail means: six digits; infinities of diverged runs stay out, as a result holds none."""
    return [float(f"{v:.6g}") for v in values if math.isfinite(v)]


TAILED = ("fid", "val_fid", "gap", "norm_real", "norm_fake", "overfitting", "accuracy_held_out")
