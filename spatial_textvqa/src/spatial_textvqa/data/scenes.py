"""Synthetic scenes with text, and questions about them (section 7.1): drawn, not read; no file is needed.

k objects in distinct cells of a grid, each a colour, a shape and a text inside its box. A question names a reference
object by colour and shape, and asks for the text at it or beside it. No answer follows from the question or from the
order of the tokens: words are drawn anew for every scene, and OCR tokens come in a random order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from shared.errors import UserError

from spatial_textvqa.data import draws
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.data.words import ALL_WORDS, WORDS
from spatial_textvqa.vocabulary import Vocabulary

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SHAPES = ("square", "circle", "triangle", "star")
COUNTS = 12  # counts are below this
RELATIONS = ("left", "right", "above", "below")
SUPERLATIVES = ("top", "bottom", "leftmost", "rightmost")
KINDS = ("on", *RELATIONS, *SUPERLATIVES, "yesno", "count", "colour")
OPPOSITE = {"left": "right", "above": "below", "top": "bottom", "leftmost": "rightmost"}
OPPOSITE |= {second: first for first, second in OPPOSITE.items()}
SPATIAL = (*RELATIONS, *SUPERLATIVES)
FIXED_WORDS = ("yes", "no", *COLOURS, *map(str, range(COUNTS)), *SHAPES)
VOCABULARY = Vocabulary.of(FIXED_WORDS)  # V = 30

TEMPLATES = {
    "on": "what is written on the {colour} {shape}",
    "left": "what word is left of the {colour} {shape}",
    "right": "what word is right of the {colour} {shape}",
    "above": "what word is above the {colour} {shape}",
    "below": "what word is below the {colour} {shape}",
    "top": "what word is at the top",
    "bottom": "what word is at the bottom",
    "leftmost": "what word is furthest to the left",
    "rightmost": "what word is furthest to the right",
    "yesno": "is there a {colour} {shape}",
    "count": "how many things are {colour}",
    "colour": "what colour is the {shape}",
}
# The words that tell one question from another; a question cut to them has three at most (the quick setting).
CONTENT = ("on", *RELATIONS, "top", "bottom", "furthest", "there", "many", "colour", *COLOURS, *SHAPES)
NEAR, MARGIN = 0.7, 0.05  # farthest neighbour; how much nearer than the second, or further out
TWO_TOKENS = 0.2  # share of scenes with texts of two tokens, where there are any
ATTEMPTS = 1000
AT_ONCE = 500  # scenes whose features are made at once: what is between takes little memory beside the features
# Streams of random numbers; attempt a of a layout is stream _LAYOUT + a.
_QUESTION, _TEXT, _SECOND_TEXT, _OBJECT_NOISE, _OCR_NOISE, _LAYOUT = 1, 2, 3, 4, 5, 16


@dataclass(frozen=True)
class Settings:
    """What scenes look like.

    Args:
        objects: k, at most 16 (in a grid of 4 x 4) or 36 (6 x 6, from 13 on).
        kinds: of questions, as many of each.
        two_tokens: a fifth of the scenes has texts of two tokens, side by side.
        noisy: three of the ten answers are misspelt.
        words: `all`, or the halves `first` and `second` of the list.

    Raises:
        UserError: too many objects for the grid, or an unknown kind.
    """

    objects: int = 6
    kinds: tuple[str, ...] = ("on", *RELATIONS)
    two_tokens: bool = False
    noisy: bool = False
    words: str = "all"

    def __post_init__(self) -> None:
        if not 2 <= self.objects <= 36:
            raise UserError(f"objects is {self.objects}: a scene has 2 to 36")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise UserError(f"kinds: {', '.join(unknown) or 'none'} given; choose from {', '.join(KINDS)}")
        if self.words not in ("all", "first", "second"):
            raise UserError(f"words is {self.words!r}: choose all, first or second")

    @property
    def grid(self) -> int:
        return 4 if self.objects <= 12 else 6

    @property
    def scale(self) -> float:
        """All lengths inside a cell: tokens would lie in two boxes of the finer grid."""
        return 4 / self.grid

    @property
    def tokens(self) -> int:
        """OCR slots of a scene."""
        return self.objects * (2 if self.two_tokens else 1)


@dataclass(frozen=True)
class Scenes:
    """Scenes and a question each, as arrays; boxes in units of the image, y down. -1: there is none.

    Attributes:
        carrier: object that an OCR token lies on.
        word: of a token, an index into `ALL_WORDS`; valid tokens come first.
        kind: index into `KINDS`; `colour_asked`, `shape_asked`: what the question names.
        answer: index into the fixed vocabulary, where the answer is one of its words.
        flipped_target: object that the question with the opposite word asks for, if it is as clear.
    """

    settings: Settings
    index: Int64[np.ndarray, " n"]
    boxes: Float32[np.ndarray, "n k 4"]
    colour: Int64[np.ndarray, "n k"]
    shape: Int64[np.ndarray, "n k"]
    token_boxes: Float32[np.ndarray, "n t 4"]
    carrier: Int64[np.ndarray, "n t"]
    word: Int64[np.ndarray, "n t"]
    kind: Int64[np.ndarray, " n"]
    reference: Int64[np.ndarray, " n"]
    target: Int64[np.ndarray, " n"]
    flipped_target: Int64[np.ndarray, " n"]
    colour_asked: Int64[np.ndarray, " n"]
    shape_asked: Int64[np.ndarray, " n"]
    answer: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: Bool[np.ndarray, " n"] | Int64[np.ndarray, " m"]) -> Scenes:
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "settings"}
        return Scenes(self.settings, **arrays)

    def flipped(self) -> Scenes:
        """The scenes whose question has an answer when its spatial word is turned round, so asked."""
        found = self.take(self.flipped_target >= 0)
        kinds = np.array([KINDS.index(OPPOSITE.get(kind, kind)) for kind in KINDS])
        return replace(found, kind=kinds[found.kind], target=found.flipped_target, flipped_target=found.target)

    def question(self, i: int, kind: str | None = None) -> str:
        """The question of scene i (of another kind: about the same reference)."""
        named = {"colour": COLOURS[self.colour_asked[i]], "shape": SHAPES[self.shape_asked[i]]}
        return TEMPLATES[kind or KINDS[self.kind[i]]].format(**named)

    def target_tokens(self, i: int, target: int | None = None) -> tuple[int, ...]:
        """OCR slots of the answer, in reading order."""
        target = int(self.target[i]) if target is None else target
        slots = np.flatnonzero((self.carrier[i] == target) & (target >= 0))
        return tuple(int(s) for s in slots[np.argsort(self.token_boxes[i, slots, 0], kind="stable")])

    def tokens(self, i: int) -> list[str]:
        return [ALL_WORDS[w] for w in self.word[i] if w >= 0]

    def answer_text(self, i: int, target: int | None = None) -> str:
        if target is None and self.answer[i] >= 0:
            return VOCABULARY.words[self.answer[i]]
        return " ".join(ALL_WORDS[self.word[i, slot]] for slot in self.target_tokens(i, target))

    def answers(self, i: int) -> list[str]:
        """Ten; where they are noisy, three annotators slip once each."""
        text = self.answer_text(i)
        if not self.settings.noisy:
            return [text] * 10
        return [text] * 7 + [_slipped(text, n) for n in range(3)]

    def sample(self, i: int) -> Sample:
        """Scene i as any other data set gives it."""
        kind, tokens = KINDS[self.kind[i]], self.tokens(i)
        flipped = None
        if self.flipped_target[i] >= 0:
            flipped = (self.question(i, kind=OPPOSITE[kind]), self.answer_text(i, int(self.flipped_target[i])))
        names = [f"{COLOURS[c]} {SHAPES[s]}" for c, s in zip(self.colour[i], self.shape[i])]
        return Sample(
            sample_id=f"scene{self.index[i]}",
            image_id=f"scene{self.index[i]}",
            question=self.question(i),
            answers=self.answers(i),
            ocr_tokens=tokens,
            ocr_boxes=self.token_boxes[i, : len(tokens)],
            obj_boxes=self.boxes[i],
            obj_names=names,
            kind=kind,
            reference=int(self.reference[i]),
            target=int(self.target[i]),
            target_ocr=self.target_tokens(i),
            flipped=flipped,
        )


def _slipped(text: str, n: int) -> str:
    """A misspelling: a letter dropped, doubled, or two swapped."""
    at = min(len(text) // 2, len(text) - 1)
    if n == 0 and len(text) > 1:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at] + text[at:] if n < 2 else text[:at] + text[at : at + 2][::-1] + text[at + 2 :]


def draw(settings: Settings, seed: int, indices: Sequence[int] | Int64[np.ndarray, " n"]) -> Scenes:
    """The scenes of these indices, laid out again until the question has one clear answer.

    The kind of question, and how central its target is among the objects, belong to the index: were they drawn again
    with the layout, central objects, which have more neighbours, would be the target more often than others.

    Raises:
        UserError: no clear answer in `ATTEMPTS` attempts.
    """
    index = np.asarray(indices, dtype=np.int64)
    layouts = [_attempt(settings, seed, index, 0)[0].take(np.zeros(len(index), dtype=bool))]
    waiting = np.unique(index)
    for attempt in range(ATTEMPTS):
        if not len(waiting):
            break
        layout, clear = _attempt(settings, seed, waiting, attempt)
        layouts.append(layout.take(clear))
        waiting = waiting[~clear]
    if len(waiting):
        raise UserError(f"no clear question in {ATTEMPTS} attempts: fewer objects, or other kinds of questions")
    names = [f.name for f in fields(Scenes) if f.name != "settings"]
    whole = Scenes(settings, **{name: np.concatenate([getattr(part, name) for part in layouts]) for name in names})
    order = np.argsort(whole.index, kind="stable")
    found = whole.take(order[np.searchsorted(whole.index[order], index)])
    token_boxes, carrier, word = _tokens(settings, seed, found)
    return replace(found, token_boxes=token_boxes, carrier=carrier, word=word)


def _attempt(settings: Settings, seed: int, index: Int64[np.ndarray, " n"], attempt: int) -> tuple[Scenes, np.ndarray]:
    """One layout for each index, still without text, and which of them have a question with one clear answer."""
    n, k, scale, rows = len(index), settings.objects, settings.scale, np.arange(len(index))
    sizes = [settings.grid**2, 2 * k, 2 * k, k, k, k, 3]
    u = draws.uniform(seed, index, _LAYOUT + attempt, sum(sizes))
    for_cells, for_jitter, for_size, for_colour, for_shape, for_reference, ask = np.split(u, np.cumsum(sizes)[:-1], 1)

    # Boxes: one object a cell, cut at the image's edge.
    cells = for_cells.argsort(1)[:, :k]
    corner = np.stack([cells % settings.grid, cells // settings.grid], -1)
    centre = (corner + 0.5) / settings.grid + scale * 0.05 * (2 * for_jitter.reshape(n, k, 2) - 1)
    half = scale * (0.07 + 0.04 * for_size.reshape(n, k, 2))
    boxes = np.clip(np.concatenate([centre - half, centre + half], -1), 0, 1).astype(np.float32)
    colour = (for_colour * len(COLOURS)).astype(np.int64)
    shape = (for_shape * len(SHAPES)).astype(np.int64)
    alike = (colour[:, :, None] == colour[:, None]) & (shape[:, :, None] == shape[:, None])
    unique = alike.sum(2) == 1

    of_index = draws.uniform(seed, index, _QUESTION, 3)
    kinds = np.array([KINDS.index(kind) for kind in settings.kinds])
    kind = kinds[(of_index[:, 0] * len(kinds)).astype(np.int64)]
    middle = (boxes[..., :2] + boxes[..., 2:]).astype(np.float64) / 2
    by_centrality = np.hypot(*np.moveaxis(middle - 0.5, -1, 0)).argsort(1)
    wanted = by_centrality[rows, (of_index[:, 1] * k).astype(np.int64)]
    reference, target, flipped, answer = (np.full(n, -1, dtype=np.int64) for _ in range(4))
    asked = [(ask[:, 0] * len(COLOURS)).astype(np.int64), (ask[:, 1] * len(SHAPES)).astype(np.int64)]
    clear = np.zeros(n, dtype=bool)
    for name in settings.kinds:
        these = np.flatnonzero(kind == KINDS.index(name))
        if name == "on":
            reference[these] = target[these] = wanted[these]
            clear[these] = unique[these, wanted[these]]
        elif name in RELATIONS:
            found, good = _beside(middle[these], name, scale)
            fits = good & unique[these] & (found == wanted[these, None])
            chosen = np.where(fits, for_reference[these], -1.0).argmax(1)
            reference[these], target[these], clear[these] = chosen, wanted[these], fits.any(1)
            back, good = (each[np.arange(len(these)), chosen] for each in _beside(middle[these], OPPOSITE[name], scale))
            flipped[these] = np.where(good, back, -1)
        elif name in SUPERLATIVES:
            target[these], clear[these] = _outermost(middle[these], name, scale)
            back, good = _outermost(middle[these], OPPOSITE[name], scale)
            flipped[these] = np.where(good, back, -1)
        else:
            if name == "colour":  # one object of the shape that is asked for: the others get another
                shape[these], asked[1][these] = _made_only(shape[these], wanted[these])
            named_so = [asked[0][these], asked[1][these]]
            answer[these], clear[these] = _fixed(name, colour[these], shape[these], named_so, of_index[these, 2] < 0.5)
    named = reference >= 0
    asked[0][named], asked[1][named] = colour[rows, reference][named], shape[rows, reference][named]
    nothing = np.zeros((n, settings.tokens), dtype=np.int64)
    token_boxes = np.zeros((n, settings.tokens, 4), dtype=np.float32)
    question = kind, reference, target, flipped, asked[0], asked[1], answer
    return Scenes(settings, index, boxes, colour, shape, token_boxes, nothing, nothing, *question), clear


def _tokens(settings: Settings, seed: int, scenes: Scenes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(boxes, carrier, word) of the OCR tokens, in an order of their own; slots without a token come last."""
    n, k, scale = len(scenes), settings.objects, settings.scale
    listed = {"all": slice(None), "first": slice(0, None, 2), "second": slice(1, None, 2)}[settings.words]
    own, seconds = np.arange(len(WORDS))[listed], np.arange(len(WORDS), len(ALL_WORDS))[listed]
    u = draws.uniform(seed, scenes.index, _TEXT, 2 * k + len(own) + 2 * k + 1)
    for_place, for_words, for_order, for_two = np.split(u, np.cumsum([2 * k, len(own), 2 * k]), 1)

    # Strictly inside the object's box, as far as the image's edge leaves of it.
    middle = (scenes.boxes[..., :2] + scenes.boxes[..., 2:]).astype(np.float64) / 2
    at = middle + scale * 0.02 * (2 * for_place.reshape(n, k, 2) - 1)
    half = np.array([0.035, 0.02]) * scale
    inside = 1e-4
    low, high = scenes.boxes[..., :2] + half + inside, scenes.boxes[..., 2:] - half - inside
    at = np.clip(at, low, high)
    boxes = np.concatenate([at - half, at + half], -1)
    word, carrier = own[for_words.argsort(1)[:, :k]], np.broadcast_to(np.arange(k), (n, k))
    if settings.two_tokens:
        # The pair takes the single token's place: two narrow tokens with a gap.
        two = for_two < TWO_TOKENS
        pairs = seconds[draws.uniform(seed, scenes.index, _SECOND_TEXT, len(seconds)).argsort(1)[:, : 2 * k]]
        first, second = boxes.copy(), boxes.copy()
        first[..., 2] = at[..., 0] - scale * 0.001
        second[..., 0] = at[..., 0] + scale * 0.001
        single = np.concatenate([boxes, np.zeros_like(boxes)], 1)
        boxes = np.where(two[..., None], np.concatenate([first, second], 1), single)
        word = np.where(two, pairs, np.concatenate([word, np.full_like(word, -1)], 1))
        carrier = np.where(two | (np.arange(2 * k) < k), np.tile(np.arange(k), 2), -1)
    order = np.where(word >= 0, for_order[:, : word.shape[1]], 2.0).argsort(1)
    boxes = np.take_along_axis(boxes, order[..., None], 1).astype(np.float32)
    return boxes, np.take_along_axis(carrier, order, 1), np.take_along_axis(word, order, 1)


def _beside(
    middle: Float64[np.ndarray, "n k 2"], relation: str, scale: float
) -> tuple[Int64[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
    """For each object as reference: the nearest within 45 degrees of the axis, and whether it is clearly that."""
    away = middle[:, None] - middle[:, :, None]  # (n, reference, other, 2)
    axis, sign = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
    along, across = sign * away[..., axis], np.abs(away[..., 1 - axis])
    distance = np.hypot(away[..., 0], away[..., 1])
    distance = np.where((along > 0) & (across <= along) & (distance < NEAR), distance, np.inf)
    nearest = np.sort(distance, 2)
    # Without a candidate both are infinite: no answer, and no tie either.
    clear = np.isfinite(nearest[..., 0]) & ~(nearest[..., 1] < nearest[..., 0] + MARGIN * scale)
    return distance.argmin(2), clear


def _outermost(
    middle: Float64[np.ndarray, "n k 2"], superlative: str, scale: float
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The object farthest out, and whether it is so clearly."""
    axis, sign = {"top": (1, 1), "bottom": (1, -1), "leftmost": (0, 1), "rightmost": (0, -1)}[superlative]
    place = sign * middle[..., axis]
    sorted_place = np.sort(place, 1)
    return place.argmin(1), sorted_place[:, 1] >= sorted_place[:, 0] + MARGIN * scale


def _made_only(
    shape: Int64[np.ndarray, "n k"], one: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, "n k"], Int64[np.ndarray, " n"]]:
    """(shapes, that of object `one`), with every other object of its shape turned into the next shape."""
    rows = np.arange(len(shape))
    own = shape[rows, one]
    out = np.where(shape == own[:, None], (shape + 1) % len(SHAPES), shape)
    out[rows, one] = own
    return out, own


def _fixed(
    name: str,
    colour: Int64[np.ndarray, "n k"],
    shape: Int64[np.ndarray, "n k"],
    asked: list[Int64[np.ndarray, " n"]],
    yes: Bool[np.ndarray, " n"],
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """(answer, whether it is clear) of questions whose answer is a fixed word."""
    first = {word: VOCABULARY.index(word) or 0 for word in ("no", "yes", COLOURS[0], "0")}
    if name == "yesno":  # as many yes as no, which belongs to the index, too
        there = ((colour == asked[0][:, None]) & (shape == asked[1][:, None])).any(1)
        return np.where(there, first["yes"], first["no"]), there == yes
    if name == "count":
        number = (colour == asked[0][:, None]).sum(1)
        return first["0"] + np.minimum(number, COUNTS - 1), number < COUNTS
    named = shape == asked[1][:, None]
    return first[COLOURS[0]] + colour[np.arange(len(shape)), named.argmax(1)], named.sum(1) == 1


def features(
    scenes: Scenes, seed: int, width: int, ocr_appearance: str, sigma: float = 0.1
) -> tuple[Float32[np.ndarray, "n k width"], Float32[np.ndarray, "n t width"] | None]:
    """Appearance of objects and OCR tokens: a fixed projection of colour and shape, with noise.

    Args:
        width: of the features (a detector's has 2048).
        ocr_appearance: `none`: a token has no appearance (None is returned, for zeros); `object`: its carrier's,
            which names the carrier without geometry.

    Raises:
        UserError: another `ocr_appearance`.
    """
    if ocr_appearance not in ("none", "object"):
        raise UserError(f"ocr_appearance is {ocr_appearance!r}: choose none or object")
    rows = draws.normal(0, np.zeros(1, dtype=np.int64), 0, (len(COLOURS) + len(SHAPES)) * width)  # for every seed
    rows = rows.reshape(-1, width)
    n, k, t = len(scenes), scenes.settings.objects, scenes.word.shape[1]
    objects = np.empty((n, k, width), dtype=np.float32)
    tokens = np.empty((n, t, width), dtype=np.float32) if ocr_appearance == "object" else None
    for first in range(0, n, AT_ONCE):
        some = slice(first, first + AT_ONCE)
        index, word = scenes.index[some], scenes.word[some]
        own = rows[scenes.colour[some]] + rows[len(COLOURS) + scenes.shape[some]]

        def noise(
            stream: int, count: int, index: Int64[np.ndarray, " m"] = index
        ) -> Float32[np.ndarray, "m count width"]:
            return np.float32(sigma) * draws.normal(seed, index, stream, count * width).reshape(-1, count, width)

        objects[some] = own + noise(_OBJECT_NOISE, k)
        if tokens is not None:
            carried = np.take_along_axis(own, np.maximum(scenes.carrier[some], 0)[..., None], 1) + noise(_OCR_NOISE, t)
            tokens[some] = np.where((word >= 0)[..., None], carried, np.float32(0))
    return objects, tokens


def question_words(content: bool = False) -> tuple[str, ...]:
    """The questions' vocabulary: `<pad>`, `<unk>`, then every word of the templates, or their content words only."""
    words = CONTENT if content else tuple(sorted({w for t in TEMPLATES.values() for w in t.split() if "{" not in w}))
    return ("<pad>", "<unk>", *dict.fromkeys((*words, *COLOURS, *SHAPES)))
