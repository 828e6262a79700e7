"""Fields, context and query sets as one Lightning module (sections 2.1 and 4).

Batch k of a run is a function of (seed, k) and nothing else: its fields come from the permutation of its epoch (or, of
fields that are drawn, from a generator of its own), its context and its queries from another. So what has to be saved
is how many batches were handed out, and a run resumed anywhere goes on with the same bits. The diffusion's noise is the
training's business, not drawn here.

Index sets. Where a batch shares its coordinates one context and one query set are shared by the batch; where the
coordinates differ from field to field, or points are masked, each field has its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as L
import torch
from jaxtyping import Int64
from torch import Tensor

from ..diffusion import draw_sets
from ..errors import FieldError
from .fields import FieldBatch, FieldSet, Truth, check_at_least, stream
from .sources import load

Batch = tuple[FieldBatch, Tensor, Tensor]
VALIDATION_FIELDS = 256


class EpochBatches:
    """The next batches of the run: `steps_per_epoch` of them, or one pass over the training part."""

    def __init__(self, data: Fields) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.steps

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            self.data.handed_out += 1
            yield self.data.batch(self.data.handed_out - 1)


class ValidationBatches:
    """The same fields with the same contexts every time, in parts of the batch size."""

    def __init__(self, data: Fields) -> None:
        self.data = data

    def __len__(self) -> int:
        return -(-self.data.validation_fields // self.data.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        fields = self.data.validation(self.data.validation_fields)
        for k in range(len(self)):
            rows = slice(k * self.data.batch_size, (k + 1) * self.data.batch_size)
            part = FieldBatch(
                fields.coords if fields.coords.ndim == 2 else fields.coords[rows],
                fields.signal[rows],
                None if fields.label is None else fields.label[rows],
                None if fields.mask is None else fields.mask[rows],
            )
            yield part, *self.data.sets(part, stream(self.data.run_seed, "validation sets", k, self.data.device))


class Fields(L.LightningDataModule):
    """Fields for a diffusion model. After `setup`: `field_set`, `truth`.

    Batches are `(FieldBatch, context_index, query_index)`, the indices [N_c], [N_q] or [B, N_c], [B, N_q].

    Args:
        dataset: one of `sources.DATASETS`.
        root: where the data lie (default: `DATA_ROOT`, else `./data`); of `image_folder` the folder itself.
        batch_size: B, fields of a batch.
        num_context: N_c, or [low, high]: drawn anew for each batch from low..high.
        num_query: N_q (default: all pairs of a field).
        steps_per_epoch: batches of an epoch (default: one pass over the training part, what is left over is dropped;
            100 where fields are drawn without end).
        resolution: of images; the same as `options: {resolution: ...}`.
        points: pairs of a field where they can be chosen; the same as `options: {points: ...}`.
        options: further arguments of the data set's own function (in `data.gaussian`, `images`, `shapes`, `solids`,
            `globe`).
        labels: hand out the classes, for conditional models.
        validation_fields: at most so many fields of the test part are validated on, with fixed random contexts.
        seed: of order, draws and index sets (default: the run's).

    Raises:
        FieldError, MissingData, DamagedData (all `UserError`): unknown names, values that do not go together, more
            pairs asked for than a field has, missing or damaged files.
    """

    field_set: FieldSet

    def __init__(
        self,
        dataset: str = "circle_grf",
        root: str | None = None,
        batch_size: int = 64,
        num_context: int | list[int] = 16,
        num_query: int | None = None,
        steps_per_epoch: int | None = None,
        resolution: int | None = None,
        points: int | None = None,
        options: dict[str, Any] | None = None,
        labels: bool = False,
        validation_fields: int = VALIDATION_FIELDS,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        counts = {"batch_size": batch_size, "num_query": num_query, "steps_per_epoch": steps_per_epoch}
        for name, value in {**counts, "validation_fields": validation_fields}.items():
            if value is not None:
                check_at_least(name, value, 1)
        low, *rest = [num_context] if isinstance(num_context, int) else num_context
        high = rest[0] if rest else low
        if len(rest) > 1 or not 1 <= low <= high:
            raise FieldError(f"num_context is {num_context!r}: it has to be a number from 1, or [low, high]")
        self.context_range = low, high
        self.dataset, self.root, self.batch_size, self.num_query = dataset, root, batch_size, num_query
        chosen = {"resolution": resolution, "points": points}
        self.options = {**(options or {}), **{name: value for name, value in chosen.items() if value is not None}}
        for name in ("dataset", "root"):
            if name in self.options:
                raise FieldError(f"options: {name} is an argument beside them")
        self.labels, self.steps_per_epoch, self.seed = labels, steps_per_epoch, seed
        self.asked_validation_fields = validation_fields
        self.handed_out = 0
        self.device = torch.device("cpu")
        self.order: tuple[int, Tensor] | None = None

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "field_set"):
            return
        if self.seed is None:
            self.seed = torch.initial_seed() % 2**31
        fields = load(self.dataset, self.root, **self.options)
        n = fields.num_points
        for name, asked in (("num_context", self.context_range[1]), ("num_query", self.num_query or n)):
            if asked > n:
                raise FieldError(f"{name} is {asked}: a field of {self.dataset} has {n} pairs, at most so many can be")
        size = fields.train.size
        if size is not None and self.batch_size > size:
            raise FieldError(f"batch_size is {self.batch_size}: {self.dataset} has {size} training fields here")
        if self.labels and fields.num_classes is None:
            raise FieldError(f"labels: {self.dataset} has none, leave them out")
        self.field_set = fields

    @property
    def run_seed(self) -> int:
        assert self.seed is not None  # set by `setup`
        return self.seed

    @property
    def truth(self) -> Truth | None:
        """The exact law of the fields, where it is known."""
        return self.field_set.truth

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self.steps_per_epoch or (100 if self.field_set.train.size is None else self.pass_batches)

    @property
    def pass_batches(self) -> int:
        """Batches of one pass over a training part that is not drawn."""
        assert self.field_set.train.size is not None
        return self.field_set.train.size // self.batch_size

    @property
    def validation_fields(self) -> int:
        size = self.field_set.test.size
        return self.asked_validation_fields if size is None else min(self.asked_validation_fields, size)

    def to_device(self, device: torch.device) -> None:
        """Make everything resident where the model is; draws there have other bits than on a CPU."""
        self.field_set, self.order, self.device = self.field_set.to(device), None, device

    # -- batches ------------------------------------------------------------------------------------------------------

    def batch(self, k: int) -> Batch:
        """Batch k of this process: of several processes each takes every world_size-th of the run's batches."""
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        number = k * world + rank
        fields = self.field_set.train(self._rows(number), stream(self.run_seed, "fields", number, self.device))
        fields = self._labelled(fields)
        return fields, *self.sets(fields, stream(self.run_seed, "sets", number, self.device))

    def validation(self, fields: int) -> FieldBatch:
        """The first so many test fields, the same ones whenever they are asked for.

        Raises:
            FieldError: there are not so many.
        """
        size = self.field_set.test.size
        if size is not None and fields > size:
            raise FieldError(f"{fields} validation fields asked for: {self.dataset} has {size} test fields")
        rows = torch.arange(fields, device=self.device)
        return self._labelled(self.field_set.test(rows, stream(self.run_seed, "validation", 0, self.device)))

    def sets(self, fields: FieldBatch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Context and query indices for a batch."""
        low, high = self.context_range
        num_context = low
        if low < high:
            draw = torch.randint(low, high + 1, (1,), generator=generator, device=generator.device)
            num_context = int(draw)
        n = self.field_set.num_points
        batch = None if fields.coords.ndim == 2 else len(fields.signal)
        return draw_sets(n, num_context, self.num_query or n, generator, batch, fields.mask)

    def _labelled(self, fields: FieldBatch) -> FieldBatch:
        return fields if self.labels else fields._replace(label=None)

    def _rows(self, number: int) -> Int64[Tensor, " batch"]:
        """The training fields of the run's batch of this number."""
        size = self.field_set.train.size
        if size is None:
            return torch.arange(self.batch_size, device=self.device) + number * self.batch_size
        epoch, place = divmod(number, self.pass_batches)
        if self.order is None or self.order[0] != epoch:
            order = torch.randperm(size, generator=stream(self.run_seed, "order", epoch))
            self.order = epoch, order.to(self.device)
        return self.order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def train_dataloader(self) -> EpochBatches:
        return EpochBatches(self)

    def val_dataloader(self) -> ValidationBatches:
        return ValidationBatches(self)

    def test_dataloader(self) -> ValidationBatches:
        """The validation fields again; nothing is chosen on them."""
        return ValidationBatches(self)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _made_with(self) -> dict[str, Any]:
        fields = {"data": self.field_set.fingerprint, "points": self.field_set.num_points}
        return {"seed": self.seed, "batch_size": self.batch_size, **fields}

    def state_dict(self) -> dict[str, Any]:
        return {"handed_out": self.handed_out, **self._made_with()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that were handed out.

        Raises:
            FieldError: the checkpoint is of a run with other batches.
        """
        for key, value in self._made_with().items():
            if state_dict[key] != value:
                raise FieldError(f"the checkpoint was made with {key} {state_dict[key]}, this run has {value}")
        self.handed_out = state_dict["handed_out"]
