"""Networks that search whitened strain (section 5), and two that look at what was found."""

from __future__ import annotations

from typing import Any

from mma_realtime.errors import SearchError
from mma_realtime.models.deepfilter import DeepFilterDeep, DeepFilterShallow
from mma_realtime.models.denoiser import Denoiser
from mma_realtime.models.ensemble import Ensemble, WaveNetEnsemble, combine_statistics
from mma_realtime.models.glitch import ConstantQMap, GlitchNet
from mma_realtime.models.network import SearchNetwork, count_windows, keep_freed_memory, statistic_of
from mma_realtime.models.resnet1d import SMALL, CoherentResNet1d
from mma_realtime.models.twin import TwinDeepFilter
from mma_realtime.models.wavenet import WaveNet, WaveNetStream

__all__ = [
    "NETWORKS",
    "SMALL",
    "CoherentResNet1d",
    "ConstantQMap",
    "DeepFilterDeep",
    "DeepFilterShallow",
    "Denoiser",
    "Ensemble",
    "GlitchNet",
    "SearchNetwork",
    "TwinDeepFilter",
    "WaveNet",
    "WaveNetEnsemble",
    "WaveNetStream",
    "build",
    "combine_statistics",
    "count_windows",
    "keep_freed_memory",
    "statistic_of",
]

NETWORKS: dict[str, type[SearchNetwork]] = {
    "deepfilter_shallow": DeepFilterShallow,
    "deepfilter_deep": DeepFilterDeep,
    "coherent_resnet": CoherentResNet1d,
    "twin": TwinDeepFilter,
    "wavenet": WaveNet,
}


def build(name: str, **size: Any) -> SearchNetwork:
    """The network `name` (a key of `NETWORKS`) with its constructor's arguments.

    Raises:
        SearchError: no such network, or an argument that it does not take.
    """
    if name not in NETWORKS:
        raise SearchError(f"network is {name!r}: use one of {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**size)
    except TypeError as error:  # a missing or unknown argument, named by Python
        raise SearchError(f"network {name!r}: {error}") from error
