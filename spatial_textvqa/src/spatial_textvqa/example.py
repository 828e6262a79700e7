"""A drawn scene as a person would have a picture: the files that `ask` takes, and a question that suits them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from shared.errors import UserError

from spatial_textvqa.custom import picture_of
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.demo.scenes import SEED, flippable_scenes
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
