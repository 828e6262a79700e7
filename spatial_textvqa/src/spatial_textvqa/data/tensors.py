"""A whole data set as tensors: batches are rows of it, and no step waits for Python or for a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from spatial_textvqa.answers import Targets
from spatial_textvqa.data.encode import Batch, Encoder
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.data.scenes import Scenes, features
from spatial_textvqa.spatial_graph import relations


class TargetTable:
    """Targets of many samples: every distinct way to say an answer once, as the entries that are not zero.

    Args:
        every: one for each sample.
        width: V + Nc.
    """

    def __init__(self, every: Sequence[Targets], width: int) -> None:
        self.width, self.steps = width, every[0].steps if every else 1
        entries: list[Any] = []
        prev: list[list[int]] = []
        mask: list[list[float]] = []
        picks: list[int] = []
        entry_count, pick_count = [], []
        for one in every:
            first = len(prev)
            ways: list[Any] = list(one.distinct) or [None]
            for way in ways:
                sampled = one.at(way)
                entries += sampled.entries
                entry_count.append(len(sampled.entries))
                prev.append(sampled.prev_inds)
                mask.append(sampled.loss_mask)
            place = {way: first + n for n, way in enumerate(ways)}
            picks += [place[way] for way in one.picks or ways]
            pick_count.append(len(one.picks or ways))
        found = torch.tensor(entries, dtype=torch.float64).reshape(-1, 3)
        self.place = found[:, 0].long() * width + found[:, 1].long()
        self.value = found[:, 2].float()
        self.prev = torch.tensor(prev, dtype=torch.long).reshape(-1, self.steps)
        self.mask = torch.tensor(mask, dtype=torch.float32).reshape(-1, self.steps)
        self.count = torch.tensor(entry_count, dtype=torch.long)
        self.start = self.count.cumsum(0) - self.count
        self.picks = torch.tensor(picks, dtype=torch.long)
        self.pick_count = torch.tensor(pick_count, dtype=torch.long)
        self.pick_start = self.pick_count.cumsum(0) - self.pick_count

    def drawn(self, rows: Int64[Tensor, " b"], generator: torch.Generator | None = None) -> Int64[Tensor, " b"]:
        """One way for each of these samples, uniformly from its picks; without a generator the first."""
        if generator is None:
            return self.picks[self.pick_start[rows]]
        chosen = (torch.rand(len(rows), generator=generator, dtype=torch.float64) * self.pick_count[rows]).long()
        return self.picks[self.pick_start[rows] + chosen]

    def dense(self, ways: Int64[Tensor, " b"]) -> dict[str, Tensor]:
        """targets (b, S, V+Nc), prev_inds and loss_mask of these ways."""
        counts = self.count[ways]
        sample = torch.repeat_interleave(torch.arange(len(ways)), counts)
        within = torch.arange(len(sample)) - (counts.cumsum(0) - counts)[sample]
        entry = self.start[ways][sample] + within
        out = torch.zeros(len(ways), self.steps * self.width)
        out[sample, self.place[entry]] = self.value[entry]
        dense = out.view(len(ways), self.steps, self.width)
        return {"targets": dense, "prev_inds": self.prev[ways], "loss_mask": self.mask[ways]}


@dataclass(frozen=True)
class TensorSet:
    """Questions, and the images that they are about.

    Attributes:
        image: row of each question's image in `images`.
        images, questions: tensors, one row an image or a question.
        fasttext, phoc: of every spelling; `images["ocr_word"]` are rows of them.
        kind: type of each question, an index into `kinds`.
        reference, wanted: object that is named; OCR slots of the answer (b, Nc).
    """

    image: Int64[Tensor, " n"]
    images: dict[str, Tensor]
    questions: dict[str, Tensor]
    fasttext: Float[Tensor, "w 300"]
    phoc: Float[Tensor, "w 604"]
    table: TargetTable
    kinds: tuple[str, ...]
    kind: Int64[Tensor, " n"]
    reference: Int64[Tensor, " n"]
    wanted: Tensor
    answers: list[list[str]]
    tokens: list[list[str]]

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, rows: Int64[Tensor, " b"], generator: torch.Generator | None = None) -> Batch:
        """These questions; with a generator another way to say each answer every time."""
        image = self.image[rows]
        out: Batch = {name: tensor[image] for name, tensor in self.images.items()}
        word = out.pop("ocr_word")
        out |= {"ocr_fasttext": self.fasttext[word], "ocr_phoc": self.phoc[word]}
        if "ocr_features" not in out:  # no token has an appearance
            width = self.images["obj_features"].shape[-1]
            out["ocr_features"] = torch.zeros(()).expand(*word.shape, width)
        out |= {name: tensor[rows] for name, tensor in self.questions.items()}
        return out | self.table.dense(self.table.drawn(rows, generator)) | {"rows": rows}

    def with_relations(self, changed: UInt8[Tensor, "m n n"]) -> TensorSet:
        """The same questions with other graphs."""
        return replace(self, images=self.images | {"relations": changed})


class Batches:
    """Minibatches of a `TensorSet`; with a generator in random order, without one as they lie.

    Of several processes, whose generators have one state, each takes every `world`-th question of one order from its
    `rank` on. All have as many: the last turn of the processes is filled up by the first questions of the order.

    Args:
        size: questions of a batch of this process.
    """

    def __init__(
        self, data: TensorSet, size: int, generator: torch.Generator | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.data, self.size, self.generator, self.rank, self.world = data, size, generator, rank, world

    @property
    def own(self) -> int:
        """Questions of this process."""
        return -(-len(self.data) // self.world)

    def __len__(self) -> int:
        return -(-self.own // self.size)

    def __iter__(self) -> Iterator[Batch]:
        n = len(self.data)
        order = torch.arange(n) if self.generator is None else torch.randperm(n, generator=self.generator)
        of_all = order.repeat(-(-self.own * self.world // n))[: self.own * self.world] if n else order
        for rows in of_all[self.rank :: self.world].split(self.size):
            yield self.data.batch(rows, self.generator)


def encoded(samples: Sequence[Sample], encoder: Encoder) -> TensorSet:
    """Any samples, whole in memory; questions about one image share its row."""
    row: dict[str, int] = {}
    first: list[Sample] = []
    for sample in samples:
        if sample.image_id not in row:
            row[sample.image_id] = len(first)
            first.append(sample)
    images = [encoder.image(sample) for sample in first]
    read = [encoder.question(sample.question, sample.sample_id) for sample in samples]
    kinds = tuple(dict.fromkeys(sample.kind for sample in samples))
    room, vocabulary = encoder.encoding.max_ocr, encoder.vocabulary
    wanted = torch.zeros(len(samples), room, dtype=torch.bool)
    for n, sample in enumerate(samples):
        wanted[n, [slot for slot in sample.target_ocr if slot < room]] = True
    stacked = {name: torch.stack([image[name] for image in images]) for name in images[0]}
    if not stacked["ocr_features"].any():
        del stacked["ocr_features"]
    return TensorSet(
        image=torch.tensor([row[sample.image_id] for sample in samples]),
        images=stacked,
        questions={
            "question_ids": torch.stack([ids for ids, _ in read]),
            "question_mask": torch.stack([mask for _, mask in read]),
        },
        fasttext=encoder.words.fasttext,
        phoc=encoder.words.phoc,
        table=TargetTable([encoder.targets(sample) for sample in samples], len(vocabulary) + room),
        kinds=kinds,
        kind=torch.tensor([kinds.index(sample.kind) for sample in samples]),
        reference=torch.tensor([sample.reference for sample in samples]),
        wanted=wanted,
        answers=[sample.answers for sample in samples],
        tokens=[sample.ocr_tokens[:room] for sample in samples],
    )


def encoded_scenes(scenes: Scenes, encoder: Encoder, seed: int, ocr_appearance: str) -> TensorSet:
    """What `encoded` makes of the scenes' samples with their features, at once for thousands."""
    from spatial_textvqa.data.scenes import KINDS

    e, n = encoder.encoding, len(scenes)
    objects, tokens = (
        None if each is None else torch.from_numpy(each)
        for each in features(scenes, seed, e.feature_width, ocr_appearance)
    )
    assert objects is not None
    boxes, ocr_boxes = torch.from_numpy(scenes.boxes), torch.from_numpy(scenes.token_boxes)
    spelt = [scenes.tokens(i) for i in range(n)]
    word = torch.zeros(n, scenes.word.shape[1], dtype=torch.long)
    for i, row in enumerate(spelt):
        word[i, : len(row)] = encoder.words.rows(row)
    graph = relations(torch.cat([boxes, ocr_boxes], 1), e.threshold, e.mode)
    told = 1.0 if e.boxes else 0.0
    images = {
        "obj_features": objects,
        "obj_boxes": boxes * told,
        "obj_mask": torch.ones(n, boxes.shape[1], dtype=torch.bool),
        "ocr_word": word,
        "ocr_boxes": ocr_boxes * told,
        "ocr_mask": torch.from_numpy(scenes.word >= 0),
        "relations": graph,
    }
    if tokens is not None:
        images["ocr_features"] = tokens
    read: dict[str, tuple[Tensor, Tensor]] = {}
    asked = [scenes.question(i) for i in range(n)]
    for text in asked:
        if text not in read:
            read[text] = encoder.question(text)
    answers = [scenes.answers(i) for i in range(n)]
    blank = [Sample("", "", "", answers=a, ocr_tokens=t) for a, t in zip(answers, spelt)]
    wanted = (scenes.carrier == scenes.target[:, None]) & (scenes.target[:, None] >= 0)
    return TensorSet(
        image=torch.arange(n),
        images=images,
        questions={
            "question_ids": torch.stack([read[text][0] for text in asked]),
            "question_mask": torch.stack([read[text][1] for text in asked]),
        },
        fasttext=encoder.words.fasttext,
        phoc=encoder.words.phoc,
        table=TargetTable([encoder.targets(s) for s in blank], len(encoder.vocabulary) + word.shape[1]),
        kinds=KINDS,
        kind=torch.from_numpy(scenes.kind),
        reference=torch.from_numpy(scenes.reference),
        wanted=torch.from_numpy(wanted),
        answers=answers,
        tokens=spelt,
    )
