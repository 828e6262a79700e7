"""A static page of where a network looks, head by head, and the same numbers as npz.

The folder opens from disk without a network: `page.html` (all drawings in it), its script and style beside it, and
`maps/<n>.npz` for every sample, asked as it is and flipped:

    attention  (layer, head, n, n)  float16, objects then tokens, padding left out; row: who looks
    relations  (n, n)  uint8, of the row to the column
    boxes      (n, 4)  float32 over width and height
    names      (n,)    labels of objects, then the tokens
    question, prediction, gold      texts
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared.errors import UserError

from spatial_textvqa import explain
from spatial_textvqa.ask import Answer, Asker, Looked
from spatial_textvqa.custom import picture_of
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.explain import Drawn, Edge
from spatial_textvqa.metrics import flip_question
from spatial_textvqa.picture import Picture
from spatial_textvqa.scene_picture import backdrop
from spatial_textvqa.spatial_graph import NAMES

HERE = Path(__file__).parent
PER_HEAD = 8  # edges of a head that are drawn; all are in the npz
MOST_SAMPLES = 200
MARK = "<!-- samples -->"


@dataclass(frozen=True)
class Asked:
    """A sample asked in one way."""

    question: str
    gold: str
    answer: Answer
    looked: Looked


def write_pages(asker: Asker, samples: Sequence[Sample], out: Path) -> Path:
    """Writes the page and the maps.

    Args:
        samples: of any data module; a sample without `flipped` is flipped by its spatial word, and has then no answer
            that is known.
        out: a folder, made if need be; what an earlier call wrote there is replaced.

    Returns:
        The page.

    Raises:
        UserError: more than `MOST_SAMPLES`, none, or a sample that cannot be asked.
    """
    if not 0 < len(samples) <= MOST_SAMPLES:
        raise UserError(f"{len(samples)} samples: a page holds 1 to {MOST_SAMPLES}, give --count")
    maps = out / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    listed = []
    drawings = []
    for number, sample in enumerate(samples):
        picture, notes = asker.fitted(picture_of(sample))
        ways = _ways(asker, picture, sample)
        for way, asked in ways.items():
            # Numbers, not the samples' names, which may come from anywhere, name the files.
            _save(maps / f"{number}{'' if way == 'asked' else '-flipped'}.npz", picture, asked)
            drawings.append(_drawing(number, way, picture, asked))
        listed.append(_told(sample, picture, ways, notes))
    page = (HERE / "page.html").read_text(encoding="utf-8").replace(MARK, "\n".join(drawings))
    layers = asker.model.config.layers
    facts = {"samples": listed, "layers": layers, "heads": asker.model.config.heads, "relations": list(NAMES)}
    for name in ("page.js", "page.css"):
        shutil.copyfile(HERE / name, out / name)
    (out / "samples.js").write_text(f"const FACTS = {_script(facts)};\n", encoding="utf-8")
    (out / "page.html").write_text(page, encoding="utf-8")
    return out / "page.html"


def _ways(asker: Asker, picture: Picture, sample: Sample) -> dict[str, Asked]:
    """The sample as it is asked, and flipped where it has a spatial word."""
    question, gold = sample.question, sample.answers[0] if sample.answers else ""
    flipped, flipped_gold = sample.flipped or (flip_question(question), "")
    asked = {"asked": (question, gold)} | ({"flipped": (flipped, flipped_gold)} if flipped else {})
    return {
        way: Asked(text, right, asker.ask(picture, text), asker.looked(picture, text))
        for way, (text, right) in asked.items()
    }


def _drawing(number: int, way: str, picture: Picture, asked: Asked) -> str:
    """The picture with the strongest edges of every head in it; the script shows those that are chosen."""
    valid = torch.ones(len(asked.looked.graph), dtype=torch.bool)
    edges: list[Edge] = []
    for layer, attention in enumerate(asked.looked.attention):
        for head, one in enumerate(attention):
            found = explain.edges_of(one[None], asked.looked.graph, valid, layer)[:PER_HEAD]
            edges += [Edge(e.source, e.target, e.relation, e.weight, layer, head) for e in reversed(found)]
    drawn = Drawn(asked.question, asked.answer.text, asked.answer.answered(picture), edges)
    svg = explain.svg(picture, drawn, backdrop(picture), per_head=True)
    return f'<div class="drawing" data-sample="{number}" data-way="{way}" hidden>{svg}</div>'


def _told(sample: Sample, picture: Picture, ways: dict[str, Asked], notes: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {"id": sample.sample_id, "notes": list(notes)}
    for way, asked in ways.items():
        told[way] = {
            "question": asked.question, "prediction": asked.answer.text, "gold": asked.gold,
            "sources": [word.source for word in asked.answer.words],
            "edges": [
                {"text": explain.sentence(e, picture), "weight": round(e.weight, 4), "layer": e.layer, "head": e.head}
                for e in asked.answer.edges
            ],
        }  # fmt: skip
    return told


def _save(path: Path, picture: Picture, asked: Asked) -> None:
    names = [*(thing.label for thing in picture.objects), *(word.text for word in picture.words)]
    np.savez_compressed(
        path,
        attention=asked.looked.attention.numpy().astype(np.float16),
        relations=asked.looked.graph.numpy(),
        boxes=picture.boxes(picture.entities),
        names=np.array(names, dtype=np.str_),
        question=np.array(asked.question),
        prediction=np.array(asked.answer.text),
        gold=np.array(asked.gold),
    )


def _script(facts: Any) -> str:
    """Json that cannot end the script that it stands in."""
    return json.dumps(facts, ensure_ascii=True).replace("<", "\\u003c")
