"""Answers of a trained network on a whole set, and what is measured on them (sections 9 and 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.data.scenes import SPATIAL
from spatial_textvqa.data.tensors import Batches, TensorSet
from spatial_textvqa.metrics import (
    FlipConsistency,
    GroundingAccuracy,
    MeanDegree,
    ReferenceAttention,
    anls,
    by_kind,
    stvqa_accuracy,
    textvqa_accuracy,
    whole_answer,
)
from spatial_textvqa.model import SAM4C
from spatial_textvqa.vocabulary import Vocabulary

ATTENDED = 256  # samples whose attention is looked at


@dataclass(frozen=True)
class Answered:
    """Decoded indices, whether the whole answer is right, and the pointer's scores at the first step."""

    indices: Int64[Tensor, "n step"]
    right: Bool[Tensor, " n"]
    pointer: Float[Tensor, "n token"]


def answer(model: SAM4C, vocabulary: Vocabulary, data: TensorSet, size: int = 500, beam: int = 1) -> Answered:
    """Every question of a set, in eval mode."""
    was_training = model.training
    model.eval()
    parts = []
    device, v = next(model.parameters()).device, model.config.vocab_size
    with torch.no_grad():
        for batch in Batches(data, size):
            on_device = {k: t.to(device) if isinstance(t, Tensor) else t for k, t in batch.items()}
            decoded = model.decode(on_device, beam=beam)
            indices, rows = decoded.indices.cpu(), batch["rows"].tolist()
            each = zip(indices.tolist(), rows)
            right = [whole_answer(said, data.tokens[row], data.answers[row], vocabulary) for said, row in each]
            parts.append((indices, torch.tensor(right), decoded.scores[:, 0, v:].float().cpu()))
    model.train(was_training)
    return Answered(*(torch.cat(each) for each in zip(*parts)))


def said(vocabulary: Vocabulary, indices: Int64[Tensor, "n step"], tokens: Sequence[Sequence[str]]) -> list[str]:
    """The answers as texts."""
    return [vocabulary.text(row, spelt)[0] for row, spelt in zip(indices.tolist(), tokens)]


def spatial_rows(data: TensorSet) -> Bool[Tensor, " n"]:
    """Questions of a spatial kind."""
    spatial = torch.tensor([kind in SPATIAL for kind in data.kinds])
    return spatial[data.kind]


def mean(values: Sequence[float] | Tensor) -> float:
    values = torch.as_tensor(values, dtype=torch.float64)
    return float(values.mean()) if len(values) else float("nan")


def measure(model: SAM4C, vocabulary: Vocabulary, data: TensorSet, beam: int = 1) -> dict[str, float]:
    """Accuracies of a set: whole answers (all, spatial kinds, each kind), the challenges', and grounding."""
    found = answer(model, vocabulary, data, beam=beam)
    texts = said(vocabulary, found.indices, data.tokens)
    out = {"accuracy": mean(found.right.double())}
    spatial = spatial_rows(data)
    if spatial.any():
        out["spatial"] = mean(found.right[spatial].double())
    out |= {f"kind/{name}": value for name, value in by_kind(found.right, data.kind, data.kinds).items() if name}
    for name, function in (("textvqa", textvqa_accuracy), ("stvqa", stvqa_accuracy), ("anls", anls)):
        out[name] = mean([function(text, answers) for text, answers in zip(texts, data.answers) if answers])
    if data.wanted.any():
        grounding = GroundingAccuracy()
        grounding.update(found.pointer, data.wanted, data.images["ocr_mask"][data.image])
        out["grounding"] = float(grounding.compute())
    return out


def answerable(data: TensorSet) -> float:
    """Share of questions with an answer that can be said, by fixed words and tokens that were kept: no accuracy of
    whole answers is above it.
    """
    ways = data.table.drawn(torch.arange(len(data)))
    return mean((data.table.mask[ways] > 0).any(1).double())


def looking_layer(layers: str) -> int:
    """The last spatial layer, whose attention is looked at; the last one of a network that has none."""
    return layers.rfind("s") if "s" in layers else len(layers) - 1


def attended(model: SAM4C, data: TensorSet) -> float:
    """Mean attention, in the `looking_layer`, from the answered OCR token to the reference object, relative to uniform.

    Answered is the token that the pointer holds for the best at the first step, right or not, as in
    `GroundingAccuracy`. Over the first questions of a relation; nan where there are none.
    """
    rows = torch.nonzero((data.reference >= 0) & spatial_rows(data))[:ATTENDED, 0]
    if not len(rows):
        return float("nan")
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    batch = {k: t.to(device) if isinstance(t, Tensor) else t for k, t in data.batch(rows).items()}
    with torch.no_grad():
        maps = model.attention_maps(batch)[looking_layer(model.transformer.kinds)].float().cpu()
        pointed = model.decode(batch).scores[:, 0, model.config.vocab_size :].argmax(1).cpu()
    model.train(was_training)
    words, objects = batch["question_mask"].shape[1], batch["obj_mask"].shape[1]
    visible = torch.cat([batch["question_mask"], batch["obj_mask"], batch["ocr_mask"]], 1).cpu()
    found = ReferenceAttention()
    found.update(maps[..., : visible.shape[1]], words + objects + pointed, words + data.reference[rows], visible)
    return float(found.compute())


def sparsity(data: TensorSet, most: int = 500) -> float:
    """Mean degree of the graphs: edges of an entity to others."""
    found = MeanDegree()
    found.update(data.images["relations"][:most])
    return float(found.compute())


def flips(model: SAM4C, data: TextVQAData) -> dict[str, float]:
    """`FlipConsistency` of the test scenes whose question has an answer turned round, too; none where none has."""
    drawn = data.drawn("test", len(data.test))  # type: ignore[arg-type]
    asked = torch.from_numpy(drawn.flipped_target >= 0)
    if not asked.any():
        return {}
    assert isinstance(data.test, TensorSet)
    turned = data.encoded(drawn.flipped(), "test")
    first, second = (answer(model, data.vocabulary, each) for each in (data.test, turned))
    before, after = (
        said(data.vocabulary, indices, turned.tokens) for indices in (first.indices[asked], second.indices)
    )
    found = FlipConsistency()
    found.update(before, after, first.right[asked], second.right)
    return {f"flipped/{name}": float(value) for name, value in found.compute().items()}


def picture(model: SAM4C, data: TextVQAData, edges: int = 10) -> dict[str, list[float]]:
    """The first test scene with a question of a relation: boxes, looks, and the strongest edges of the `looking_layer`.

    An edge is [query, key, relation, attention]: entities by number (objects, then OCR tokens), attention as the
    largest over heads; from the right answer's token and from the reference object. Numbers only, for `figures`.
    """
    assert isinstance(data.test, TensorSet)
    rows = torch.nonzero((data.test.reference >= 0) & spatial_rows(data.test))[:1, 0]
    if not len(rows):
        return {}
    row = int(rows[0])
    scene = data.drawn("test", row + 1).take(np.array([row]))
    batch = data.test.batch(rows)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        maps = model.attention_maps(batch)[looking_layer(model.transformer.kinds)][0].float().cpu()
        found = model.decode(batch).indices[0].tolist()
    model.train(was_training)
    words, objects, tokens = (batch[n].shape[1] for n in ("question_mask", "obj_mask", "ocr_mask"))
    inner = maps[:, words : words + objects + tokens, words : words + objects + tokens].amax(0)
    starts = (objects + int(data.test.wanted[row].int().argmax()), int(scene.reference[0]))
    weights = torch.full_like(inner, -1.0)
    for start in starts:
        weights[start] = inner[start]
        weights[start, start] = -1.0
    best = weights.flatten().topk(min(edges, int((weights > 0).sum()))).indices.tolist()
    n, graph = objects + tokens, batch["relations"][0]
    listed = [(i // n, i % n, int(graph[i // n, i % n]), float(weights.flatten()[i])) for i in best]
    chosen = [float(index - len(data.vocabulary)) for index in found if index >= len(data.vocabulary)]
    return {
        "picture/boxes": scene.boxes[0].ravel().tolist(),
        "picture/token_boxes": scene.token_boxes[0].ravel().tolist(),
        "picture/look": np.stack([scene.colour[0], scene.shape[0]], 1).ravel().tolist(),
        "picture/word": scene.word[0].tolist(),
        "picture/question": [int(scene.kind[0]), int(scene.reference[0]), int(scene.target[0])],
        "picture/answer": chosen or [-1.0],
        "picture/edges": [float(value) for edge in listed for value in edge],
    }
