"""How image samples are judged (section 8): Frechet distance, scores, coverage, classes and modes.

`kind` says what is asked: `images` (scores and distances), `classes` (which classes samples fall into), `stacked`
(modes of StackedMNIST). Every result names its features: the key `features/<title>` holds the classifier's accuracy on
real test images (1 for Inception weights from a file).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from shared.errors import UserError
from shared.metrics.coverage import class_shares, modes_and_kl, nearest_neighbours, precision_recall_curve
from shared.metrics.distances import frechet_distance, inception_score, kernel_distance
from shared.metrics.features import Classifier, Extractor, Inception, train_classifier
from torch import Tensor, nn

from rpgan_landscape.data import GanData, Points
from rpgan_landscape.nets import Generator

Kind = Literal["images", "classes", "stacked"]
BATCH = 500  # of samples; with batch statistics it matters
NEIGHBOURS = 5000  # samples of either set in precision and recall: the distances are quadratic


def to_bytes(images: Float[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n 3 h w"]:
    """[-1, 1] to 0..255: (x/2 + 0.5) 255, truncated, as in the reference."""
    return ((images / 2 + 0.5) * 255).clamp(0, 255).to(torch.uint8)


@contextmanager
def normalising_by(generator: nn.Module, bn_mode: Literal["eval", "batch"]) -> Iterator[None]:
    """Batch normalisation by running statistics (`eval`) or by the batch's (`batch`); the module is left as it was."""
    training = generator.training
    kept = [(layer, layer.track_running_stats) for layer in generator.modules() if isinstance(layer, nn.BatchNorm2d)]
    generator.train(bn_mode == "batch")
    if bn_mode == "batch":
        for layer, _ in kept:
            layer.track_running_stats = False  # with it a forward pass in training mode updates them
    try:
        yield
    finally:
        for layer, tracked in kept:
            layer.track_running_stats = tracked
        generator.train(training)


@torch.no_grad()
def sample(
    generator: Generator, n: int, bn_mode: Literal["eval", "batch"] = "eval", seed: int = 0
) -> UInt8[Tensor, "n 3 h w"]:
    """n images on the CPU, in batches of 500 (the reference's, which normalises by them: `bn_mode` batch).

    Raises:
        UserError: unknown bn_mode.
    """
    if bn_mode not in ("eval", "batch"):
        raise UserError(f"unknown bn_mode {bn_mode!r}: there are eval, batch")
    device = next(generator.parameters()).device
    random = torch.Generator().manual_seed(seed)
    with normalising_by(generator, bn_mode):
        parts = [
            to_bytes(generator(torch.randn(min(BATCH, n - start), generator.latent, generator=random).to(device))).cpu()
            for start in range(0, n, BATCH)
        ]
    return torch.cat(parts)


def real_images(points: Points, n: int) -> UInt8[Tensor, "n 3 h w"]:
    """The first n of a part, as they are compared with samples."""
    return to_bytes(points.x(torch.arange(min(n, len(points)), device=points.rows.device))).cpu()


def classifier(data: GanData, device: torch.device | str = "cpu") -> Classifier:
    """Of the training part's classes; of StackedMNIST's single digits. Trained here and now.

    Raises:
        UserError: the data have no classes.
    """
    if data.train.labels is None:
        raise UserError(f"{data.dataset} has no classes to train features on: give a file of Inception weights")
    parts = []
    for points in (data.train, data.reference):
        if points.stacks is not None:  # the digits that the stacks are made of
            index = points.stacks[:20_000].flatten()
            grey = points.rows[index].expand(-1, 3, -1, -1)
            labels = points.labels[:20_000]  # type: ignore[index]
            parts.append((grey.cpu(), torch.stack([labels // 100, labels // 10 % 10, labels % 10], 1).flatten().cpu()))
        else:
            parts.append((real_images(points, len(points)), points.labels.cpu()))  # type: ignore[union-attr]
    (images, labels), (test_images, test_labels) = parts
    return train_classifier(data.dataset, images, labels, test_images[:10_000], test_labels[:10_000], device=device)


def evaluate(
    generator: Generator,
    data: GanData,
    kind: Kind = "images",
    samples: int = 10_000,
    score_samples: int = 50_000,
    bn_mode: Literal["eval", "batch"] = "eval",
    inception: str | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """What `kind` asks of `samples` images of the generator.

    Args:
        samples: of Frechet distance, precision and recall, classes; `score_samples`: of the inception score, 10 splits.
        bn_mode: how the generator normalises, `eval` or `batch` (the reference's).
        inception: TorchScript file of Inception weights (None: a classifier trained on the data).
        seed: of the latents.

    Raises:
        UserError: unknown kind, missing weights, data without classes.
    """
    if kind not in ("images", "classes", "stacked"):
        raise UserError(f"unknown evaluation {kind!r}: there are images, classes, stacked")
    device = next(generator.parameters()).device
    net = classifier(data, device) if inception is None or kind != "images" else None
    extractor: Extractor = Inception(inception, device) if inception and kind == "images" else net  # type: ignore[assignment]
    fakes = sample(generator, samples, bn_mode, seed)
    how = {"normalised by batch": float(bn_mode == "batch")}  # outputs differ visibly: no number without it
    if kind == "stacked":
        assert net is not None
        digits = net.extract(fakes.flatten(0, 1)[:, None].expand(-1, 3, -1, -1))[1].argmax(1).view(-1, 3)
        modes, kl = modes_and_kl(digits @ torch.tensor([100, 10, 1]), 1000)
        return {"modes": float(modes), "kl": kl, f"features/{net.title}": net.accuracy, **how}
    reals = real_images(data.reference, samples)
    (real, _), (fake, logits) = extractor.extract(reals), extractor.extract(fakes)
    out = {
        f"features/{extractor.title}": net.accuracy if net else 1.0,
        "frechet": frechet_distance(real, fake),
        "kernel": kernel_distance(real, fake),
        **how,
    }
    if kind == "classes":
        assert logits is not None
        assert data.train.labels is not None
        classes, counts = data.train.labels.unique(return_counts=True)
        shares = class_shares(logits.argmax(1), classes.tolist())
        out |= {f"share_{label}": share for label, share in zip(classes.tolist(), shares)}
        out["minority_share"] = shares[int(counts.argmin())]
        return out
    near = nearest_neighbours(real[:NEIGHBOURS], fake[:NEIGHBOURS])
    curve = precision_recall_curve(real, fake)
    out |= {"precision": near.precision, "recall": near.recall, "density": near.density, "coverage": near.coverage}
    out |= {"prd_f8": curve.f8, "prd_f1_8": curve.f1_8}
    many = sample(generator, score_samples, bn_mode, seed + 1)
    logits = extractor.extract(many)[1]
    if logits is not None:
        out["inception_score"], out["inception_score_sd"] = inception_score(logits)
    return out
