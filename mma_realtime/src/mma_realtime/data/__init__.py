"""Data (section 3): strain from files, the mock data challenge's sets, and signals simulated on the fly.

The section's three Lightning modules by their names there; `SimulatedBBHDataModule` is `simulated.SimulatedBBH`. They
are imported when they are first asked for: files and sets need no Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mma_realtime.data.simulated import SimulatedBBH as SimulatedBBHDataModule
    from mma_realtime.search.windows import MLGWSCDataModule, StrainFileDataModule

__all__ = ["MLGWSCDataModule", "SimulatedBBHDataModule", "StrainFileDataModule"]

_WHERE = {
    "SimulatedBBHDataModule": ("mma_realtime.data.simulated", "SimulatedBBH"),
    "StrainFileDataModule": ("mma_realtime.search.windows", "StrainFileDataModule"),
    "MLGWSCDataModule": ("mma_realtime.search.windows", "MLGWSCDataModule"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _WHERE[name]
    return getattr(import_module(module), own)
