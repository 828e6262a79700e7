"""Batches of questions that are read from files one by one, in other processes where there are several.

Which question comes when, and which way to say its answer is trained on, hang on (seed, epoch, question) alone: a run
that was broken off goes on to the same bits, with any number of processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from shared.errors import UserError
from torch.utils.data import DataLoader, Dataset, Sampler

from spatial_textvqa.data import draws
from spatial_textvqa.data.encode import Batch, Encoder, report_lost
from spatial_textvqa.data.sample import Sample


@dataclass(frozen=True)
class Turn:
    """A question by its number, and the seed of what is drawn for it in this epoch."""

    number: int
    seed: int


class Turns(Sampler[Turn]):
    """Every question once.

    Args:
        count: of the questions.
        seed: of the run.
        epoch: says the epoch, of which each has an order and draws of its own; None: as they lie, the same every time.
    """

    def __init__(self, count: int, seed: int, epoch: Callable[[], int] | None = None) -> None:
        self.count, self.seed, self.epoch = count, seed, epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Turn]:
        epoch = self.epoch() if self.epoch else 0
        *own, order = draws.seeds(self.seed, np.arange(self.count + 1), epoch)
        numbers = torch.arange(self.count)
        if self.epoch:
            numbers = torch.randperm(self.count, generator=torch.Generator().manual_seed(order))
        return (Turn(number, own[number]) for number in numbers.tolist())


@dataclass(frozen=True)
class Wrong:
    """What a user has to mend, as data: an exception of a worker would bring the worker's stack trace along."""

    says: str


class Answering(Dataset):
    """A data set whose sample that cannot be read is a `Wrong`."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, turn: Turn) -> tuple[Sample, int] | Wrong:
        try:
            return self.data[turn.number], turn.seed
        except UserError as error:
            return Wrong(str(error))


def collate(encoder: Encoder, drawn: list[tuple[Sample, int] | Wrong]) -> Batch | Wrong:
    """For a loader's workers: a batch with what was lost of it (`lost`), or what is wrong with one of its samples."""
    good = [each for each in drawn if not isinstance(each, Wrong)]
    for each in drawn:
        if isinstance(each, Wrong):
            return each
    try:
        batch = encoder.collate([sample for sample, _ in good], [seed for _, seed in good])
    except UserError as error:
        return Wrong(str(error))
    return batch | {"lost": encoder.taken_lost()}


class Loader(DataLoader):
    """Says after its first pass what was lost of the samples.

    Raises:
        UserError: a sample is wrong; one line, whichever process has read it.
    """

    said = False

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        lost: Counter[str] = Counter()
        for number, batch in enumerate(super().__iter__(), 1):
            if isinstance(batch, Wrong):
                raise UserError(batch.says)
            lost.update(batch.pop("lost"))
            if number == len(self) and not self.said:
                self.said = True
                report_lost(lost)
            yield batch
