"""`FD_small`: the Frechet distance in the features of a small classifier of the 8 x 8 digits.

It is trained on the spot and knows nothing but these digits: a distance in its features compares with the four
`baselines` beside it, and never with an FID.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion_fields.errors import FieldError
from diffusion_fields.metrics import frechet

SIDE = 8
STEPS, BATCH, RATE, NOISE = 600, 128, 2e-3, 0.05


class SmallClassifier(nn.Module):
    """64-128-32-10 with ReLU; the 32 activations are the features. Knows its `accuracy` once it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = 0.0
        self.body = nn.Sequential(nn.Linear(SIDE**2, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, images: Float[Tensor, "n 64"]) -> Float[Tensor, "n 10"]:
        return self.head(self.body(images))

    @torch.no_grad()
    def features(self, images: Float[Tensor, "n ..."]) -> Float[Tensor, "n 32"]:
        """Of digits in [-1, 1], flat or as 8 x 8 (a channel of 1 may come anywhere).

        Raises:
            FieldError: other sizes.
        """
        if images.ndim < 2 or images[0].numel() != SIDE**2:
            raise FieldError(
                f"images of shape {tuple(images.shape)}: {SIDE} x {SIDE} digits are expected; "
                "bring finer ones down with area_average"
            )
        return self.body(images.reshape(len(images), -1).to(self.head.weight))

    def fd_small(self, samples: Float[Tensor, "n ..."], reference: Float[Tensor, "m ..."]) -> float:
        """`FD_small` of samples (the specification: 500) against digits that nothing saw (the 500 of test)."""
        return frechet(self.features(samples), self.features(reference))


def train_small_classifier(
    images: Float[Tensor, "n ..."],
    labels: Int[Tensor, " n"],
    test_images: Float[Tensor, "m ..."],
    test_labels: Int[Tensor, " m"],
    seed: int = 0,
) -> SmallClassifier:
    """By Adam (2e-3), 600 steps of 128, noise of 0.05 on the input; the same one for the same data and seed.

    The global random numbers are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SmallClassifier()
        flat = images.reshape(len(images), -1).float().cpu()
        optimiser = torch.optim.Adam(net.parameters(), RATE)
        for _ in range(STEPS):
            rows = torch.randint(len(flat), (BATCH,))
            noisy = flat[rows] + NOISE * torch.randn(BATCH, flat.shape[1])
            loss = nn.functional.cross_entropy(net(noisy), labels.cpu()[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval().requires_grad_(False)
    logits = net(test_images.reshape(len(test_images), -1).float().cpu())
    net.accuracy = float((logits.argmax(1) == test_labels.cpu()).double().mean())
    return net


def baselines(
    net: SmallClassifier, images: Float[Tensor, "n ..."], reference: Float[Tensor, "m ..."], seed: int = 0
) -> dict[str, float]:
    """`FD_small` of what needs no model, as many as there are in `reference`: the scale of every other figure.

    Args:
        images: the training digits. reference: the test digits.

    Returns:
        `train`: training digits; `gaussian`: mean and covariance + 1e-3 I of all of them, clipped to [-1, 1];
        `pixels`: the same without covariances between pixels; `noise`: standard normal.
    """
    generator = torch.Generator().manual_seed(seed)
    flat, n = images.reshape(len(images), -1).double().cpu(), len(reference)
    covariance = torch.cov(flat.T) + 1e-3 * torch.eye(flat.shape[1], dtype=torch.float64)
    train = flat[torch.randperm(len(flat), generator=generator)[:n]]
    white, noise = torch.randn(2, n, flat.shape[1], generator=generator, dtype=torch.float64)
    drawn = {
        "train": train,
        "gaussian": (flat.mean(0) + white @ torch.linalg.cholesky(covariance).T).clamp(-1, 1),
        "pixels": (flat.mean(0) + white * covariance.diagonal().sqrt()).clamp(-1, 1),
        "noise": noise,
    }
    return {name: net.fd_small(each, reference) for name, each in drawn.items()}


def area_average(images: Float[Tensor, "n fine fine ..."], side: int = SIDE) -> Float[Tensor, "n side side ..."]:
    """Means over the blocks of pixels that a pixel of the coarse grid covers.

    Raises:
        FieldError: not square, or not a multiple of `side`.
    """
    if images.ndim < 3 or images.shape[1] != images.shape[2] or images.shape[1] % side:
        raise FieldError(
            f"images of shape {tuple(images.shape)}: (n, k*{side}, k*{side}, ...) is expected, "
            f"a whole number of pixels for each of the {side} x {side}"
        )
    block = images.shape[1] // side
    return images.unflatten(2, (side, block)).unflatten(1, (side, block)).mean((2, 4))


def resolution_transfer(
    net: SmallClassifier,
    sample_at: Callable[[int], Float[Tensor, "n pixels"]],
    reference: Float[Tensor, "m ..."],
    resolutions: tuple[int, ...] = (SIDE, 2 * SIDE, 4 * SIDE),
) -> dict[int, float]:
    """`FD_small` of one model sampled at n x n, brought back to 8 x 8 by area.

    Args:
        sample_at: n -> images in [-1, 1] at n x n pixel centres, rows first.
    """
    found: dict[int, float] = {}
    for n in resolutions:
        images: Any = sample_at(n)
        found[n] = net.fd_small(area_average(images.reshape(len(images), n, n).clamp(-1, 1)), reference)
    return found
