"""Networks for points: two clusters on a line (5.1), Gaussians in the plane (5.2)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from rpgan_landscape.nets.common import Generator


class Points(nn.Sequential, Generator):
    """A stack of layers; `latent` is the number of entries of its input, `last` its last layer."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.latent = int(layers[0].in_features)  # type: ignore[arg-type]

    @property
    def last(self) -> nn.Linear:
        layer = self[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        return super().forward(x)


def two_cluster(width: int = 10, g_width: int | None = None) -> tuple[Points, Points]:
    """(G, D) on a line. D: 1 - w - w - 1 with sigmoids, 141 parameters for w = 10. G: with tanh, w/2, 46 parameters."""
    w, v = width, g_width or max(1, width // 2)
    # D first: with a seeded generator its weights are drawn as in the reference's script and in `population.draw`.
    critic = Points(nn.Linear(1, w), nn.Sigmoid(), nn.Linear(w, w), nn.Sigmoid(), nn.Linear(w, 1))
    generator = Points(nn.Linear(1, v), nn.Tanh(), nn.Linear(v, v), nn.Tanh(), nn.Linear(v, 1))
    return generator, critic


def gaussians(width: int = 128) -> tuple[Points, Points]:
    """(G, D) in the plane: two hidden layers of `width`, ReLU in G (17,154 parameters for 128), LeakyReLU 0.2 in D."""
    w = width
    generator = Points(nn.Linear(2, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, 2))
    critic = Points(nn.Linear(2, w), nn.LeakyReLU(0.2), nn.Linear(w, w), nn.LeakyReLU(0.2), nn.Linear(w, 1, bias=False))
    return generator, critic
