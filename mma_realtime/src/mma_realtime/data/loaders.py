"""Loaders of the simulated windows: the next batches of a run for training, the same ones for validation and test.

Batches are made when they are asked for, each by its number; the data module remembers how many a run was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

Batch = TypeVar("Batch", covariant=True)


class Counting(Protocol):
    """What a data module says of its batches.

    Attributes:
        batch_size: windows.
        steps_per_epoch: batches of an epoch.
        validation_windows: of validation, and of the test part.
        handed_out: batches that the run was given for training.
    """

    batch_size: int
    steps_per_epoch: int
    validation_windows: int
    handed_out: int


class NextBatches(Generic[Batch]):
    """The next `steps_per_epoch` batches of the run.

    Args:
        data: counts them.
        make: batch k of the run.
    """

    def __init__(self, data: Counting, make: Callable[[int], Batch]) -> None:
        self.data, self.make = data, make

    def __len__(self) -> int:
        return self.data.steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            self.data.handed_out += 1
            yield self.make(self.data.handed_out - 1)


class SameBatches(Generic[Batch]):
    """The same windows every time, of validation or test; the last batch may be smaller.

    Args:
        data: says how many.
        make: batch k, of so many windows.
    """

    def __init__(self, data: Counting, make: Callable[[int, int], Batch]) -> None:
        self.data, self.make = data, make

    def __len__(self) -> int:
        return -(-self.data.validation_windows // self.data.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        size, left = self.data.batch_size, self.data.validation_windows
        for k in range(len(self)):
            yield self.make(k, min(size, left - k * size))
