"""Two detectors looked at together, by towers that are alike and a head that sees both (section 5, late fusion).

Each detector's window passes the same trunk and one linear layer: its embedding. The head reads the embeddings of all
detectors. So a signal has to look the same in both, not only to be loud in each; and a time slide needs no new look at
the strain: it pairs other embeddings, which is as cheap as a slide of scores is exact.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError
from mma_realtime.models.deepfilter import DeepFilterShallow
from mma_realtime.models.network import SearchNetwork, statistic_of


class TwinDeepFilter(SearchNetwork):
    """The shallow Deep Filter as a tower for each detector, and a head of one hidden layer over all of them.

    Args:
        input_length: samples of a window.
        channels: detectors, at least 2.
        outputs: 2 logits (noise, signal) or 1.
        embedding: numbers of each detector that the head sees.
        hidden: width of the head's layer.
    """

    def __init__(
        self, input_length: int = 1024, channels: int = 2, outputs: int = 2, embedding: int = 64, hidden: int = 64
    ) -> None:
        if channels < 2:
            raise SearchError(f"twin looks at several detectors together, {channels} is given: use deepfilter_shallow")
        super().__init__(input_length, channels, outputs)
        self.tower = DeepFilterShallow(input_length, 1, embedding)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(channels * embedding, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, x: Float32[Tensor, "batch detector time"]) -> Float32[Tensor, "batch outputs"]:
        self.check_channels(x.shape[1])
        each = self.tower(x.flatten(0, 1)[:, None]).view(len(x), -1)
        out: Tensor = self.head(each)
        return out

    @torch.no_grad()
    def init_from(self, single: DeepFilterShallow) -> None:
        """Begin as the sum of a trained network's statistics over the detectors, which training then improves on.

        The tower takes over all layers but the last of `single`; two units of the head add and subtract what that last
        layer makes of each detector, the others begin at random, with no say.

        Raises:
            SearchError: the networks do not fit.
        """
        state = single.state_dict()
        last = sorted(key for key in state if key.startswith("head."))[-2:]  # bias, weight
        weight, bias = state[last[1]], state[last[0]]
        kept = {key: value for key, value in state.items() if key not in last}
        own = self.tower.state_dict()
        ends = set(own) - set(kept)
        embedding = weight.shape[1]
        first, final = self.head[1], self.head[3]
        assert isinstance(first, nn.Linear)
        assert isinstance(final, nn.Linear)
        if first.in_features != self.channels * embedding or first.out_features < 2 or single.outputs != 2:
            raise SearchError(f"init_from: a twin of embedding {embedding} and at least 2 hidden units is needed")
        if any(own[key].shape != value.shape for key, value in kept.items()):
            raise SearchError("init_from: the tower and the given network differ: the same window is needed")
        # The tower's last layer is the identity on the 64 units whose ReLU the given network's last layer reads.
        identity = {"weight": torch.eye(embedding), "bias": torch.zeros(embedding)}
        self.tower.load_state_dict({**kept, **{key: identity[key.rsplit(".", 1)[1]] for key in ends}})
        difference = (weight[1] - weight[0]).repeat(self.channels)
        offset = self.channels * (bias[1] - bias[0])
        for unit, sign in ((0, 1.0), (1, -1.0)):
            first.weight[unit], first.bias[unit] = sign * difference, sign * offset
        final.weight[:, 2:] = 0.0
        final.bias.zero_()
        half = torch.tensor([-0.5, 0.5]) if self.outputs == 2 else torch.tensor([1.0])
        final.weight[:, 0], final.weight[:, 1] = half, -half

    def check_channels(self, given: int) -> None:
        if given != self.channels:
            raise SearchError(f"this network looks at {self.channels} detectors together, the strain has {given}")

    def dense(self, x: Float32[Tensor, "batch detector time"], hop: int) -> Float32[Tensor, "batch outputs windows"]:
        """All windows; the tower runs once over each stretch where the hop is a multiple of its stride."""
        self.check_channels(x.shape[1])
        each = self.tower.dense(x.flatten(0, 1)[:, None], hop)  # [B D, E, K]
        rows = each.reshape(len(x), -1, each.shape[-1]).transpose(1, 2)  # [B, K, D E]
        out: Tensor = self.head(rows)
        return out.transpose(1, 2)

    @torch.no_grad()
    def embeddings(self, x: Float32[Tensor, "detector time"], hop: int) -> Float32[Tensor, "detector window embedding"]:
        """Of every window of a stretch, each detector by itself."""
        return self.tower.dense(x[:, None], hop).transpose(1, 2).contiguous()

    @torch.no_grad()
    def paired(self, embeddings: Float32[Tensor, "detector window embedding"]) -> Float32[Tensor, " window"]:
        """The statistic of windows whose embeddings are given: as they came together, or slid."""
        return statistic_of(self.head(embeddings.transpose(0, 1).flatten(1)))
