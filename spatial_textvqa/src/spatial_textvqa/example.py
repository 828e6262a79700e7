"""A drawn scene as a person would have a picture: the files that `ask` takes, and a question that suits them.

`asked` keeps in a run's results what `ask` says of it, `retold` reads that again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from shared.errors import UserError

from spatial_textvqa.ask import Answer, Asker, Candidate, candidate
from spatial_textvqa.custom import picture_of
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.data.scenes import VOCABULARY
from spatial_textvqa.demo.scenes import SEED, flippable_scenes
from spatial_textvqa.explain import Edge
from spatial_textvqa.picture import Picture
from spatial_textvqa.scene_picture import drawn

FEATURE_WIDTH = 256  # of configs/quick.yaml
OBJECTS = 6


def example_scene(
    seed: int = SEED, feature_width: int = FEATURE_WIDTH, ocr_appearance: str = "none", objects: int = OBJECTS
) -> Sample:
    """A scene that no run was trained on, whose question has another answer when its spatial word is flipped.

    Raises:
        UserError: a negative seed; as `scenes.features`.
    """
    if seed < 0:
        raise UserError(f"--seed is {seed}: at least 0")
    return flippable_scenes(1, feature_width, ocr_appearance, objects, seed)[0]


def write_example(sample: Sample, folder: Path) -> None:
    """Writes scene.png, ocr.json, objects.json and features.npz, in the forms of `ocr_files`; makes the folder.

    Args:
        sample: with features of its objects.

    Raises:
        UserError: the folder is a file, or cannot be written to.
    """
    picture = picture_of(sample)
    assert picture.object_features is not None
    features = picture.word_features
    if features is None:  # tokens without appearance
        features = np.zeros((len(picture.words), picture.object_features.shape[1]), np.float32)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        words = [{"text": word.text, "box": word.box} for word in picture.words]
        things = [{"box": thing.box, "label": thing.label} for thing in picture.objects]
        (folder / "ocr.json").write_text(json.dumps(words, indent=1) + "\n", encoding="utf-8")
        (folder / "objects.json").write_text(json.dumps(things, indent=1) + "\n", encoding="utf-8")
        np.savez(folder / "features.npz", object_features=picture.object_features, ocr_features=features)
        drawn(picture).save(folder / "scene.png")
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out {folder} is a file: name a folder") from None
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}: name a folder that may be written to") from None


def asked(asker: Asker, sample: Sample) -> dict[str, list[float]]:
    """What `ask` says of the scene, as numbers for a run's results; `retold` gives the words.

    `ask/words`: index and score of each word of the answer; `ask/candidates`: step, index, score; `ask/edges`: source,
    target, relation, weight, layer, head. An index is one of the scores: behind the vocabulary come the tokens.
    """
    picture, _ = asker.fitted(picture_of(sample))
    answer = asker.ask(picture, sample.question)

    def numbers(word: Candidate) -> tuple[float, float]:
        return float(word.index + (len(asker.vocabulary) if word.source == "OCR" else 0)), word.score

    edges = [(e.source, e.target, e.relation, e.weight, e.layer, e.head) for e in answer.edges]
    return {
        "ask/words": [value for word in answer.words for value in numbers(word)],
        "ask/candidates": [
            value for step, best in enumerate(answer.candidates) for c in best for value in (float(step), *numbers(c))
        ],
        "ask/edges": [float(value) for edge in edges for value in edge],
    }


def retold(curves: Mapping[str, Sequence[float]], sample: Sample) -> tuple[Picture, Answer]:
    """What `asked` kept of this scene, as `ask` gave it."""
    picture = picture_of(sample)

    def rows(name: str, width: int) -> list[Sequence[float]]:
        values = curves[f"ask/{name}"]
        return [values[i : i + width] for i in range(0, len(values), width)]

    def word(index: float, score: float) -> Candidate:
        return candidate(int(index), score, VOCABULARY, picture)

    words = [word(*row) for row in rows("words", 2)]
    candidates: list[list[Candidate]] = []
    for step, *row in rows("candidates", 3):
        candidates += [[]] * (step == len(candidates))
        candidates[-1] = [*candidates[-1], word(*row)]
    edges = [Edge(int(a), int(b), int(r), weight, int(i), int(h)) for a, b, r, weight, i, h in rows("edges", 6)]
    return picture, Answer(sample.question, " ".join(w.word for w in words), words, candidates, edges, ())
