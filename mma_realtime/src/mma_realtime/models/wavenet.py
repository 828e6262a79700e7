"""WaveNet: gated, dilated, causal convolutions, one tower for each detector, joined by 1x1 convolutions (section 5).

A layer of dilation d looks at samples t and t - d:
    z = tanh(W_f * x) sigmoid(W_g * x),   skip += V z,   x <- x + U z.
The logit at sample t is known when sample t is, from the `reach` samples up to it. A window's statistic is that of its
last sample. `unfolded` gives the logit of every sample of a stretch; `WaveNetStream` gives the same while the samples
come in, each layer keeping the last d samples of its input in a ring, so that a hop of h samples costs O(h).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError
from mma_realtime.models.network import SearchNetwork

PIECE = 4096  # samples of a stretch that are scored at once


class Layer(nn.Module):
    """One gated layer of all towers: the towers are groups, which do not see each other."""

    def __init__(self, towers: int, width: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.dilation, self.width = dilation, width
        self.gate = nn.Conv1d(towers * width, towers * 2 * width, 2, dilation=dilation, groups=towers)
        self.skip = nn.Conv1d(towers * width, towers * skip, 1, groups=towers)
        self.residual = nn.Conv1d(towers * width, towers * width, 1, groups=towers)

    def gated(self, before: Tensor, x: Tensor) -> Tensor:
        """z of samples x and those that lie `dilation` samples before them."""
        towers = self.gate.groups
        weight = self.gate.weight.view(towers, 2 * self.width, self.width, 2)
        b, _, time = x.shape
        shape = (b, towers, self.width, time)
        y = weight[..., 0] @ before.view(shape) + weight[..., 1] @ x.view(shape)
        y = y + cast(Tensor, self.gate.bias).view(towers, -1, 1)
        signal, gate = y.split(self.width, dim=2)
        return (torch.tanh(signal) * torch.sigmoid(gate)).reshape(b, -1, time)


class WaveNet(SearchNetwork):
    """Towers of gated layers, one for each detector.

    Args:
        input_length: samples of a window; at least `reach`.
        channels: detectors.
        outputs: 1 logit (or 2).
        width: channels of a tower.
        skip: channels that each layer hands on to the output.
        depth: dilations 1, 2, 4, ..., 2^(depth - 1) in each stack (10: up to 512).
        stacks: how often they are gone through.

    Raises:
        SearchError: the window is shorter than what one logit looks at.
    """

    def __init__(
        self,
        input_length: int = 2048,
        channels: int = 2,
        outputs: int = 1,
        width: int = 16,
        skip: int = 32,
        depth: int = 10,
        stacks: int = 2,
    ) -> None:
        super().__init__(input_length, channels, outputs)
        dilations = [2**k for _ in range(stacks) for k in range(depth)]
        self.reach, self.width = 1 + sum(dilations), width
        if input_length < self.reach:
            raise SearchError(
                f"input_length is {input_length}: this WaveNet looks at {self.reach} samples; take less depth"
            )
        self.first = nn.Conv1d(channels, channels * width, 1, groups=channels)
        self.layers = nn.ModuleList([Layer(channels, width, skip, d) for d in dilations])
        self.fuse = nn.Sequential(  # the detectors meet here
            nn.ReLU(), nn.Conv1d(channels * skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, outputs, 1)
        )

    @property
    def gated_layers(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    def settled(
        self, x: Float32[Tensor, "batch channels time"], last: int | None = None
    ) -> Float32[Tensor, "batch outputs settled"]:
        """Logits of all samples that have `reach` - 1 samples before them in x (or of the `last` of them)."""
        wanted = x.shape[-1] - self.reach + 1 if last is None else last
        x = self.first(x)
        total: Tensor | None = None
        for layer in self.gated_layers:
            d = layer.dilation
            z = layer.gated(x[..., :-d].contiguous(), x[..., d:].contiguous())
            skip = layer.skip(z[..., -wanted:])
            total = skip if total is None else total[..., -wanted:] + skip
            x = x[..., d:] + layer.residual(z)
        out: Tensor = self.fuse(total)
        return out

    def forward(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, "batch outputs"]:
        return self.settled(x[..., -self.reach :], 1)[..., 0]

    def unfolded(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, "batch outputs time"]:
        """Logits of every sample, with zeros before the first in every layer: those of a stream that begins here."""
        x = self.first(x)
        total: Any = 0.0
        for layer in self.gated_layers:
            before = F.pad(x, (layer.dilation, 0))[..., : x.shape[-1]]
            z = layer.gated(before, x)
            total = total + layer.skip(z)
            x = x + layer.residual(z)
        out: Tensor = self.fuse(total)
        return out

    def dense(self, x: Float32[Tensor, "batch channels time"], hop: int) -> Float32[Tensor, "batch outputs windows"]:
        """Outputs of all windows: every layer once for each sample, in pieces; any hop.

        Raises:
            SearchError: a hop below 1 sample, or a stretch shorter than one window.
        """
        self.check_series(x.shape[-1], hop)
        pieces = []
        first = self.input_length - self.reach  # no window ends before `input_length`
        for begin in range(first, x.shape[-1] - self.reach + 1, PIECE):
            pieces.append(self.settled(x[..., begin : begin + PIECE + self.reach - 1]))
        return torch.cat(pieces, dim=-1)[..., ::hop]


class WaveNetStream:
    """A WaveNet that is given its samples hop by hop.

    Args:
        net: the network; not changed.

    Attributes:
        seen: samples that were pushed.
    """

    def __init__(self, net: WaveNet) -> None:
        self.net = net
        device = net.first.weight.device
        channels = net.channels * net.width
        self.rings = [torch.zeros(channels, layer.dilation, device=device) for layer in net.gated_layers]
        self.seen = 0

    @property
    def settled(self) -> bool:
        """Whether the next logit looks at pushed samples only; the first `reach` - 1 are to be left aside."""
        return self.seen >= self.net.reach - 1

    @torch.no_grad()
    def push(self, x: Float32[Tensor, "channels hop"]) -> Float32[Tensor, "outputs hop"]:
        """Logits of the new samples."""
        net, hop = self.net, x.shape[-1]
        y = net.first(x[None])
        total: Any = 0.0
        for layer, ring in zip(net.gated_layers, self.rings, strict=True):
            before = self._exchange(ring, y[0])[None]
            z = layer.gated(before, y)
            total = total + layer.skip(z)
            y = y + layer.residual(z)
        self.seen += hop
        out: Tensor = net.fuse(total)[0]
        return out

    def _exchange(self, ring: Tensor, x: Tensor) -> Tensor:
        """The samples one dilation before x, and x into the ring in their place: sample t lies at t mod d."""
        d, hop = ring.shape[1], x.shape[1]
        n = min(d, hop)
        old = (torch.arange(n, device=x.device) + self.seen) % d
        before = torch.cat([ring[:, old], x[:, : hop - n]], dim=1)
        ring[:, (old + hop - n) % d] = x[:, hop - n :]
        return before

    def state_dict(self) -> dict[str, Any]:
        """All that the next push depends on."""
        return {"seen": self.seen, "rings": [ring.clone() for ring in self.rings]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream of the same network was.

        Raises:
            SearchError: the state is of another network.
        """
        if [ring.shape for ring in state["rings"]] != [ring.shape for ring in self.rings]:
            raise SearchError("this stream's state is of another network: start the stream anew")
        self.seen, self.rings = int(state["seen"]), [ring.clone() for ring in state["rings"]]


def __getattr__(name: str) -> Any:
    """`WaveNetEnsemble` (section 5), which is built on this module."""
    if name != "WaveNetEnsemble":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("mma_realtime.models.ensemble").WaveNetEnsemble
