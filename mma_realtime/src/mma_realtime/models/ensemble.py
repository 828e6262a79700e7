"""Several networks as one: the mean or the minimum of their statistics (section 5).

What one network takes for a signal by its own accident the others do not; published ensembles have 2 to 4 members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError
from mma_realtime.models.network import SearchNetwork, statistic_of
from mma_realtime.models.wavenet import WaveNet

Combine = Literal["mean", "min"]


def combine_statistics(each: Float32[Tensor, "member ..."], combine: Combine = "mean") -> Float32[Tensor, ...]:
    """The ensemble's statistic from its members'."""
    return each.mean(0) if combine == "mean" else each.amin(0)


class Ensemble(SearchNetwork):
    """Members that look at the same windows; its one output is the combined statistic.

    Args:
        members: networks of the same window and channels.
        combine: `mean` of the members' statistics or their `min` (all have to agree).

    Raises:
        SearchError: no members, members that differ, or no such combination.
    """

    def __init__(self, members: Sequence[SearchNetwork], combine: Combine = "mean") -> None:
        if not members:
            raise SearchError("an ensemble needs at least one member")
        if combine not in ("mean", "min"):
            raise SearchError(f"combine is {combine!r}: use mean or min")
        shapes = {(member.input_length, member.channels) for member in members}
        if len(shapes) > 1:
            raise SearchError(f"members of one ensemble share window and detectors, these have {sorted(shapes)}")
        super().__init__(*shapes.pop(), 1)
        self.members, self.combine = nn.ModuleList(members), combine

    def forward(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, "batch 1"]:
        each = torch.stack([statistic_of(member(x)) for member in self.members])
        return combine_statistics(each, self.combine)[:, None]

    def dense(self, x: Float32[Tensor, "batch channels time"], hop: int) -> Float32[Tensor, "batch 1 windows"]:
        """The combined statistic of all windows, each member in its own fastest way."""
        each = torch.stack([statistic_of(member.dense(x, hop)) for member in self.members])  # type: ignore[operator]
        return combine_statistics(each, self.combine)[:, None]


class WaveNetEnsemble(Ensemble):
    """That of the published month-long search: WaveNets, of whose statistics the smallest counts (section 5).

    For users of the library: in training and search a module's or a model file's `combine: min` says the same.

    Args:
        members: WaveNets of the same window and channels, or how many new ones to make (published: 2 to 4).
        combine: of their statistics.
        size: arguments of new ones, see `WaveNet`.

    Raises:
        SearchError: a member is no WaveNet, a size beside members that are there already, and as of `Ensemble`.
    """

    def __init__(self, members: Sequence[SearchNetwork] | int = 4, combine: Combine = "min", **size: Any) -> None:
        if isinstance(members, int):
            members = [WaveNet(**size) for _ in range(members)]
        elif size:
            raise SearchError(f"{', '.join(size)}: of new members only, those that are given have their size")
        for member in members:
            if not isinstance(member, WaveNet):
                raise SearchError(f"a WaveNet ensemble is of WaveNets, not of {type(member).__name__}: use Ensemble")
        super().__init__(members, combine)
