"""The data of a run as a Lightning module: what is trained, validated and tested on, and the encoder of all three."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from shared.data.root import data_root
from shared.errors import UserError
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from spatial_textvqa.data import scenes
from spatial_textvqa.data.encode import Encoder, Encoding, report_lost
from spatial_textvqa.data.loader import Answering, Loader, Turns, collate
from spatial_textvqa.data.tensors import Batches, TensorSet, encoded, encoded_scenes
from spatial_textvqa.spatial_graph import permute_labels
from spatial_textvqa.vocabulary import Vocabulary

DATASETS = ("scenes", "receipts", "textvqa", "stvqa", "textvqa+stvqa")
PARTS = {"train": 0, "val": 10_000_000, "test": 20_000_000, "probe": 30_000_000}  # first scene of each part
EVALUATED_AT_ONCE = 500


class TextVQAData(L.LightningDataModule):
    """Questions about images with text. After `setup`: `train`, `val`, `test`, `encoder` and `vocabulary`.

    Args:
        dataset: `scenes` (drawn; no file), `receipts`, `textvqa`, `stvqa` or `textvqa+stvqa` (trained jointly,
            validated on TextVQA).
        root: where the data lie (default: the data root and the data set's name).
        train_samples, val_samples, test_samples: of scenes; of the others at most so many, where given.
        objects, kinds, two_tokens, noisy: of scenes, see `scenes.Settings`; ood_words: words of the test scenes are not
            those of training.
        ocr_appearance: of scenes, see `scenes.features`.
        question, question_length, wordpiece, max_objects, max_ocr, feature_width, word_vectors, steps, multi_target,
            threshold, mode, on_bad_box, relations, boxes: see `encode.Encoding`.
        vocabulary: file of the fixed answers, a word a line (scenes and receipts have their own). It, `wordpiece` and
            a file of `word_vectors` are looked for under the data root, too.
        batch_size: questions of an update.
        workers: processes that read features, for data that are not kept in memory.

    Raises:
        UserError: settings that mean nothing, data that are missing or damaged.
    """

    encoder: Encoder
    train: TensorSet | Dataset
    val: TensorSet | Dataset
    test: TensorSet | Dataset

    def __init__(
        self,
        dataset: str = "scenes",
        root: str | None = None,
        train_samples: int | None = 6000,
        val_samples: int | None = 500,
        test_samples: int | None = 2000,
        objects: int = 6,
        kinds: list[str] | None = None,
        two_tokens: bool = False,
        noisy: bool = False,
        ood_words: bool = False,
        ocr_appearance: str = "none",
        relations: str = "spatial",
        question: str = "content",
        question_length: int = 3,
        wordpiece: str = "",
        max_objects: int = 100,
        max_ocr: int = 50,
        feature_width: int = 256,
        word_vectors: str = "hash",
        steps: int = 2,
        multi_target: bool = True,
        threshold: float = 0.5,
        mode: str = "official",
        on_bad_box: str = "error",
        boxes: bool = True,
        vocabulary: str | None = None,
        batch_size: int = 64,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if dataset not in DATASETS:
            raise UserError(f"dataset is {dataset!r}: choose from {', '.join(DATASETS)}")
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: it has to be at least 1")
        if workers < 0:
            raise UserError(f"workers is {workers}: it cannot be negative")
        counts = {"train_samples": train_samples, "val_samples": val_samples, "test_samples": test_samples}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise UserError(f"{name} is {count}: it has to be at least 1")
        self.dataset, self.root, self.counts = dataset, root, counts
        self.scenes = scenes.Settings(objects, tuple(kinds or scenes.Settings.kinds), two_tokens, noisy)
        self.ood_words, self.ocr_appearance = ood_words, ocr_appearance
        self.batch_size, self.workers = batch_size, workers
        self.order: torch.Generator | None = None
        self.order_state: Tensor | None = None
        self.vocabulary = self._vocabulary(vocabulary)
        words: tuple[str, ...] = ()
        if question != "bert":
            words = scenes.question_words(question == "content") if dataset == "scenes" else _receipt_words()
        self.encoding = Encoding(
            question, words, given(wordpiece), question_length, max_objects, max_ocr, feature_width,
            word_vectors if word_vectors == "hash" else given(word_vectors), steps, multi_target, threshold, mode,
            on_bad_box, relations, boxes,
        )  # fmt: skip
        if dataset == "scenes" and (objects > max_objects or self.scenes.tokens > max_ocr):
            raise UserError(
                f"scenes have {objects} objects and {self.scenes.tokens} tokens: max_objects is {max_objects}, max_ocr "
                f"{max_ocr}"
            )

    def _vocabulary(self, file: str | None) -> Vocabulary:
        if file is not None:
            return Vocabulary.read(Path(given(file)))
        if self.dataset == "scenes":
            return scenes.VOCABULARY
        if self.dataset == "receipts":
            return Vocabulary.of(())
        raise UserError(f"dataset is {self.dataset}: give the file of its fixed answers as data.vocabulary")

    def setup(self, stage: str = "fit") -> None:
        if hasattr(self, "encoder"):
            return
        self.seed = torch.initial_seed() % 2**31
        self.encoder = Encoder(self.encoding, self.vocabulary)
        if self.dataset == "scenes":
            for part in ("train", "val", "test"):
                count = self.counts[f"{part}_samples"] or {"train": 6000, "val": 500, "test": 2000}[part]
                setattr(self, part, self.encoded(self.drawn(part, count), part))
            return
        self.tokens_on_disk: set[str] = set()
        for part in ("train", "val", "test"):
            setattr(self, part, self._read(part))
        self.encoder.words.prepare(self.tokens_on_disk)
        report_lost(self.encoder.taken_lost())

    # Scenes ------------------------------------------------------------------------------------------------------

    def drawn(self, part: str, count: int, **changes: Any) -> scenes.Scenes:
        """The first `count` scenes of a part; `changes` of `scenes.Settings`."""
        if self.ood_words:
            changes["words"] = "first" if part in ("train", "val") else "second"
        settings = scenes.replace(self.scenes, **changes)
        return scenes.draw(settings, self.seed, range(PARTS[part], PARTS[part] + count))

    def encoded(self, drawn: scenes.Scenes, part: str) -> TensorSet:
        """Scenes as tensors, with the graphs that this run sees."""
        found = encoded_scenes(drawn, self.encoder, self.seed, self.ocr_appearance)
        if self.encoding.relations == "random":
            generator = torch.Generator().manual_seed(self.seed + PARTS[part])
            found = found.with_relations(permute_labels(found.images["relations"], generator))
        return found

    def probes(self) -> dict[str, TensorSet]:
        """Test scenes asked or shown otherwise: what the answers hang on (section 11).

        `flipped`: the question with the opposite word; `transposed`: R[j, i] for R[i, j]; `other_scene`: the next
        scene's graph; `more_objects`: half as many objects again, and one graph that much larger.
        """
        assert isinstance(self.test, TensorSet)
        drawn = self.drawn("test", len(self.test))
        graphs, more = self.test.images["relations"], self.scenes.objects * 3 // 2
        out = {
            "transposed": self.test.with_relations(graphs.mT.contiguous()),
            "other_scene": self.test.with_relations(graphs.roll(1, 0)),
        }
        flipped = drawn.flipped()
        if len(flipped):
            out["flipped"] = self.encoded(flipped, "test")
        if more <= min(36, self.encoding.max_objects) and more * (1 + self.scenes.two_tokens) <= self.encoding.max_ocr:
            out["more_objects"] = self.encoded(self.drawn("probe", 1000, objects=more), "probe")
        return out

    # Data that are read ------------------------------------------------------------------------------------------

    def folder(self, name: str) -> Path:
        return Path(self.root) if self.root else data_root() / name

    def _read(self, part: str) -> TensorSet | Dataset:
        most = self.counts[f"{part}_samples"]
        if self.dataset == "receipts":
            from spatial_textvqa.data import receipts

            read = receipts.read(self.folder("sroie"), part, self.encoding.max_ocr)
            # A part of them, evenly: the first ones would be of few receipts.
            count = min(most or len(read), len(read))
            return encoded([read[n * len(read) // count] for n in range(count)], self.encoder)
        from spatial_textvqa.data.textvqa import QuestionsOnDisk

        names = self.dataset.split("+") if part == "train" else self.dataset.split("+")[:1]
        sets = [QuestionsOnDisk(Path(self.root or data_root()) / name, name, part, most) for name in names]
        self.tokens_on_disk |= {token for each in sets for row in each.rows for token in row["tokens"]}
        return sets[0] if len(sets) == 1 else ConcatDataset(sets)

    # Batches -----------------------------------------------------------------------------------------------------

    def _loader(self, data: Dataset, epoch: Callable[[], int] | None = None) -> Loader:
        return Loader(
            Answering(data),
            batch_size=self.batch_size,
            sampler=Turns(len(data), self.seed, epoch),  # type: ignore[arg-type]
            generator=torch.Generator(),  # the workers' seeds, which nothing is drawn by, take none of the network's
            num_workers=self.workers,
            persistent_workers=self.workers > 0,  # what they have read of words and graphs is kept
            collate_fn=partial(collate, self.encoder),
        )

    def train_dataloader(self) -> Any:
        if not isinstance(self.train, TensorSet):
            return self._loader(self.train, lambda: self.trainer.current_epoch if self.trainer else 0)
        self.order = torch.Generator().manual_seed(torch.initial_seed() * 1_000_003 % 2**63)
        if self.order_state is not None:
            self.order.set_state(self.order_state)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return Batches(self.train, self.batch_size, self.order, rank, world)

    def val_dataloader(self) -> Any:
        return self._evaluated(self.val)

    def test_dataloader(self) -> Any:
        return self._evaluated(self.test)

    def _evaluated(self, data: TensorSet | Dataset) -> Any:
        # Sets in memory are small: every process looks at all of them, and a look's numbers do not hang on how many.
        return Batches(data, EVALUATED_AT_ONCE) if isinstance(data, TensorSet) else self._loader(data)

    def state_dict(self) -> dict[str, Any]:
        """Of a checkpoint: where the order of the training questions has got to."""
        return {"order": self.order.get_state()} if self.order is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.order_state = state_dict.get("order")


def given(file: str) -> str:
    """A file as it was given, or under the data root where it is not there."""
    return str(data_root() / file) if file and not Path(file).exists() and (data_root() / file).exists() else file


def _receipt_words() -> tuple[str, ...]:
    from spatial_textvqa.data.receipts import QUESTION_WORDS

    return QUESTION_WORDS
