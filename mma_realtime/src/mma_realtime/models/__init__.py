"""Networks that search whitened strain (section 5)."""

from __future__ import annotations

from typing import Any

from mma_realtime.errors import SearchError
from mma_realtime.models.deepfilter import DeepFilterDeep, DeepFilterShallow
from mma_realtime.models.network import SearchNetwork

__all__ = ["NETWORKS", "DeepFilterDeep", "DeepFilterShallow", "SearchNetwork", "build"]

NETWORKS: dict[str, type[SearchNetwork]] = {
    "deepfilter_shallow": DeepFilterShallow,
    "deepfilter_deep": DeepFilterDeep,
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
