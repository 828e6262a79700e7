"""Where the network looked: the strongest edges of attention between boxes, and a picture of them (SVG).

An edge goes from the box that looks (the query) to the box that is looked at (the key), and bears the relation of the
first to the second, which decides the heads that may look along it (section 4.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from spatial_textvqa.picture import Box, Picture, Thing, Word
from spatial_textvqa.spatial_graph import NAMES

WIDE = 800.0  # of the drawing, in its own units, whatever the image's size
NARROWEST = 420.0  # so that the foot can be read below a narrow image
FOOT = 64.0  # below it, for question and answer
# Okabe-Ito: told apart without colour by dashes and labels too.
OBJECT, TOKEN, ANSWER, EDGE = "#5f6368", "#0072b2", "#c04a00", "#00664a"
ITSELF = 12
# Where along the strongest, second ... edge its label stands: edges from one token run close together.
PLACES = (0.5, 0.36, 0.66, 0.27, 0.75, 0.44)
MOST_LABEL = 24  # characters of a label that are drawn


@dataclass(frozen=True)
class Edge:
    """Attention of entity `source` to entity `target`; entities are objects, then OCR tokens.

    Attributes:
        relation: of source to target, 1..11.
        weight: attention probability.
        layer, head: where it is; both count from 0.
    """

    source: int
    target: int
    relation: int
    weight: float
    layer: int
    head: int


@dataclass(frozen=True)
class Drawn:
    """What the picture says beside the boxes.

    Attributes:
        question, answer: texts of the foot.
        answered: entities that the answer was read from.
        edges: to draw, strongest last.
    """

    question: str
    answer: str
    answered: Sequence[int] = ()
    edges: Sequence[Edge] = ()


def edges_of(
    attention: Float[Tensor, "head n n"],
    graph: UInt8[Tensor, "n n"],
    valid: Bool[Tensor, " n"],
    layer: int,
    sources: Sequence[int] | None = None,
) -> list[Edge]:
    """Every edge of one layer, of each pair the head that looks most along it; strongest first.

    Args:
        attention: among entities, of one sample and layer.
        graph: relations; pairs without one, and a box's look at itself, are no edges.
        sources: entities that look; default all.
    """
    weight, head = attention.max(0)
    seen = (graph > 0) & (graph != ITSELF) & valid[:, None] & valid[None, :] & (weight > 0)
    if sources is not None:
        looking = torch.zeros_like(valid)
        looking[list(sources)] = True
        seen = seen & looking[:, None]
    pairs = seen.nonzero()
    order = weight[seen].argsort(descending=True, stable=True)
    return [Edge(i, j, int(graph[i, j]), float(weight[i, j]), layer, int(head[i, j])) for i, j in pairs[order].tolist()]


def strongest(edges: Iterable[Edge], count: int) -> list[Edge]:
    """The strongest edges over layers, each pair once."""
    chosen: dict[tuple[int, int], Edge] = {}
    for edge in sorted(edges, key=lambda e: (-e.weight, e.layer, e.source, e.target)):
        chosen.setdefault((edge.source, edge.target), edge)
    return list(chosen.values())[:count]


def name_of(entity: int, picture: Picture) -> str:
    """What a person calls an entity: an object's label or number, or a token in quotation marks."""
    if entity < len(picture.objects):
        return picture.objects[entity].label or f"object {entity}"
    return f"“{picture.words[entity - len(picture.objects)].text}”"


def sentence(edge: Edge, picture: Picture) -> str:
    """An edge in words: "EXIT" left, slightly above, of door."""
    relation = NAMES[edge.relation]
    of = "" if edge.relation < 4 else ", of"
    return f"{name_of(edge.source, picture)} {relation}{of} {name_of(edge.target, picture)}"


def svg(picture: Picture, drawn: Drawn, backdrop: str = "", per_head: bool = False) -> str:
    """The picture: boxes of objects and tokens, what the answer was read from, and the edges.

    Args:
        picture: boxes in its pixels.
        backdrop: SVG in the same pixels that is drawn below, such as `embedded` makes.
        per_head: edges are ranked among those of their layer and head, of which a page shows one at a time.
    """
    scale = WIDE / max(picture.width, picture.height)
    width, height = picture.width * scale, picture.height * scale
    frame = max(width, NARROWEST)
    title = f"{drawn.question} Answer: {drawn.answer or 'nothing'}."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame:.1f} {height + FOOT:.1f}" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif">',
        f"<title>{_plain(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{EDGE}"/></marker></defs>',
        f'<rect width="{frame:.1f}" height="{height + FOOT:.1f}" fill="#ffffff"/>',
        f'<g transform="scale({scale:.6g})">{backdrop}</g>',
        f'<rect x=".5" y=".5" width="{width - 1:.1f}" height="{height - 1:.1f}" fill="none" stroke="#dcdcdc"/>',
    ]
    entities = picture.entities
    boxes = [_scaled(entity.box, scale) for entity in entities]
    answered = set(drawn.answered)
    for i, (entity, box) in enumerate(zip(entities, boxes)):
        is_object = isinstance(entity, Thing)
        parts.append(_box(i, box, name_of(i, picture) if is_object else "", OBJECT if is_object else TOKEN, is_object))
        if isinstance(entity, Word) and i not in answered:
            parts.append(_label(entity.text, box, TOKEN))
    parts += [_edge(rank, edge, boxes, picture) for rank, edge in _ranked(drawn.edges, per_head)]
    for i in sorted(answered):
        parts.append(_answer(boxes[i], name_of(i, picture)))
    parts += [
        f'<text x="12" y="{height + 25:.1f}" font-size="18" fill="#2b2b2b">'
        f"{_plain(drawn.question, int(frame / 9.2))}</text>",
        f'<text x="12" y="{height + 51:.1f}" font-size="20" font-weight="600" fill="{ANSWER}">'
        f"{_plain(drawn.answer or '(nothing)', int(frame / 11))}</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def embedded(data: str, picture: Picture) -> str:
    """A backdrop of an image as a data address, stretched over the picture and paled so that boxes stand out."""
    return (
        f'<image href="{escape(data, quote=True)}" width="{picture.width:g}" height="{picture.height:g}" '
        'preserveAspectRatio="none" opacity="0.75"/>'
    )


def _scaled(box: Box, scale: float) -> Box:
    x0, y0, x1, y1 = (value * scale for value in box)
    return x0, y0, x1, y1


def _box(i: int, box: Box, label: str, colour: str, dashed: bool) -> str:
    x0, y0, x1, y1 = box
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    rect = (
        f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{max(x1 - x0, 1):.1f}" height="{max(y1 - y0, 1):.1f}" fill="none" '
        f'stroke="{colour}" stroke-width="1.5"{dashes}/>'
    )
    text = _text(x0 + 3, y0 + 16, label, colour, 15) if label else ""
    return f'<g class="entity" data-entity="{i}">{rect}{text}</g>'


def _label(text: str, box: Box, colour: str) -> str:
    return _text(box[0], box[3] + 18, text, colour, 17)


def _answer(box: Box, label: str) -> str:
    x0, y0, x1, y1 = box
    rect = (
        f'<rect x="{x0 - 3:.1f}" y="{y0 - 3:.1f}" width="{x1 - x0 + 6:.1f}" height="{y1 - y0 + 6:.1f}" rx="4" '
        f'fill="none" stroke="{ANSWER}" stroke-width="4"/>'
    )
    return f'<g class="answer">{rect}{_text(x0, y1 + 24, label, ANSWER, 21, "700")}</g>'


def _ranked(edges: Sequence[Edge], per_head: bool) -> list[tuple[int, Edge]]:
    """Each edge with its rank, 0 of the strongest, which comes last."""
    groups = [(edge.layer, edge.head) if per_head else None for edge in edges]
    left = Counter(groups)
    ranked = []
    for group, edge in zip(groups, edges):
        left[group] -= 1
        ranked.append((left[group], edge))
    return ranked


def _edge(rank: int, edge: Edge, boxes: Sequence[Box], picture: Picture) -> str:
    """A line from centre to centre, thicker and less pale the more attention it carries, with its rank and relation."""
    (ax, ay), (bx, by) = _centre(boxes[edge.source]), _centre(boxes[edge.target])
    told = f"{sentence(edge, picture)}: {edge.weight:.2f}, layer {edge.layer + 1}, head {edge.head + 1}"
    at = PLACES[rank % len(PLACES)]
    x, y = ax + at * (bx - ax), ay + at * (by - ay) - 4
    label = _text(x, y, f"{rank + 1}: {NAMES[edge.relation]}", EDGE, 15, anchor="middle")
    return (
        f'<g class="edge" data-layer="{edge.layer}" data-head="{edge.head}" opacity="{0.45 + 0.55 * edge.weight:.2f}">'
        f"<title>{_plain(told)}</title>"
        f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}" stroke="{EDGE}" '
        f'stroke-width="{1 + 4 * edge.weight:.2f}" marker-end="url(#tip)"/>{label}</g>'
    )


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _text(x: float, y: float, text: str, colour: str, size: int, weight: str = "500", anchor: str = "start") -> str:
    """A text with a white rim, readable on any backdrop."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" stroke="#ffffff" '
        f'stroke-width="3" paint-order="stroke" text-anchor="{anchor}">{_plain(text, MOST_LABEL + 6)}</text>'
    )


def _plain(text: str, most: int | None = None) -> str:
    """A text as XML holds it: marks escaped, characters that it cannot hold made blanks, cut where it is too long."""
    kept = "".join(c if c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else " " for c in text)
    return escape(kept if most is None or len(kept) <= most else f"{kept[: most - 1]}…")
