"""The network. It knows neither how it is trained nor on what."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Net(nn.Module):
    """One hidden layer.

    Args:
        inputs, hidden, classes: sizes.
        dropout: share of the hidden activities that is dropped in training.
    """

    def __init__(self, inputs: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
        )

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n classes"]:
        return self.layers(x)
