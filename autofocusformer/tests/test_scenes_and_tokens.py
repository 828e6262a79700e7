"""Scenes are what they say, and tokens see of them what a slow count sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from autofocusformer.data.sets import load
from autofocusformer.data.synthetic import REGIONS, SHAPES, SceneConfig, scene, silhouette
from autofocusformer.metrics import Coverage, SegmentationScore, confusion, iou
from autofocusformer.tokens_of_images import (
    blocks,
    gradient_magnitude,
    label_edges,
    object_tokens,
    pad_to_multiple,
    rank,
    token_labels,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.errors import UserError

SHAPE = SceneConfig(coding="shape", object_classes=6, sizes=(0.08, 0.12))


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    one, again, other = scene(3, 1, SHAPE), scene(3, 1, SHAPE), scene(3, 2, SHAPE)
    assert all(np.array_equal(a, b) for a, b in zip(one, again))
    assert not np.array_equal(one[1], other[1])


@pytest.mark.parametrize("config", [SceneConfig(), SHAPE, SceneConfig(texture=1.0, height=96, width=160)])
def test_objects_are_few_pixels_and_few_tokens(config: SceneConfig) -> None:
    scenes = [scene(0, i, config) for i in range(12)]
    assert scenes[0][0].shape == (config.height, config.width, 3)
    pixels = [np.isin(labels, config.small).mean() for _, labels in scenes]
    tokens = [object_tokens(labels, config.classes, config.small).mean() for _, labels in scenes]
    assert 0 < max(pixels) < 0.10
    assert 0 < np.mean(tokens) < 0.10
    assert max(labels.max() for _, labels in scenes) == config.classes - 1


def test_a_colour_says_the_class_in_one_coding_and_nothing_in_the_other() -> None:
    """Between-class share of the variance of the objects' colours."""

    def share(config: SceneConfig) -> float:
        pixels = [(im[lab >= REGIONS], lab[lab >= REGIONS]) for im, lab in (scene(1, i, config) for i in range(60))]
        colour, kind = np.concatenate([p[0] for p in pixels]).astype(float), np.concatenate([p[1] for p in pixels])
        means = np.stack([colour[kind == c].mean(0) for c in config.small])
        return means[kind - REGIONS].var(0).sum() / colour.var(0).sum()

    assert share(SceneConfig()) > 0.8
    assert share(SHAPE) < 0.1


def test_shapes_differ_and_keep_their_size() -> None:
    y, x = np.mgrid[-10:11, -10:11].astype(float)
    masks = [silhouette(shape, x, y, 8) for shape in SHAPES]
    assert len({mask.tobytes() for mask in masks}) == len(SHAPES)
    for mask in masks:
        assert np.ptp(np.nonzero(mask)[0]) == 16 == np.ptp(np.nonzero(mask)[1])
    assert masks[0][10, 10]
    assert not masks[1][10, 10]


def test_texture_hides_objects_from_the_gradient() -> None:
    """The regime where gradients say nothing: how much more gradient object tokens have than others."""

    def contrast(texture: float) -> float:
        config = SceneConfig(texture=texture)
        image, labels = scene(0, 0, config)
        there, found = object_tokens(labels, config.classes, config.small), gradient_magnitude(image)
        return found[there].mean() / found[~there].mean()

    assert contrast(0) > 2 * contrast(1)


def test_parts_and_seeds_share_no_scene() -> None:
    sets = [load("synthetic_density", part, seed=s) for s in (0, 1) for part in ("train", "val", "test")]  # type: ignore[arg-type]
    assert len({one.read(0)[1].tobytes() for one in sets}) == 6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"object_classes": 7}, "object_classes is 7"),
        ({"sizes": (0.2, 0.1)}, "sizes is 0.2, 0.1"),
        ({"height": 8}, "8 x 128"),
        ({"coding": "size"}, "coding is 'size'"),
        ({"regions": (2, 4)}, "there are 2 or 3"),
        ({"texture": 2.0}, "texture lies"),
    ],
)
def test_scenes_that_cannot_be(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        SceneConfig(**settings)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(0, 10_000))
def test_token_labels_are_the_majority(h: int, w: int, seed: int) -> None:
    labels = np.random.default_rng(seed).choice([0, 1, 2, 255], (h, w)).astype(np.uint8)
    found = token_labels(labels, 3)
    assert found.shape == (-(-h // 4), -(-w // 4))
    for y, x in np.ndindex(found.shape):
        block = labels[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        votes = [int((block == c).sum()) for c in range(3)]
        assert found[y, x] == (votes.index(max(votes)) if max(votes) else 255)


def test_token_labels_of_many_classes_are_those_of_a_count_class_by_class() -> None:
    labels = np.random.default_rng(0).integers(0, 256, (130, 97)).astype(np.uint8)
    labels[:40, :40] %= 5
    for classes in (5, 150, 256):
        pixels = blocks(pad_to_multiple(labels, 4, 255))
        counts = np.stack([(pixels == c).sum(-1) for c in range(classes)], -1)
        assert np.array_equal(token_labels(labels, classes), np.where(counts.sum(-1) > 0, counts.argmax(-1), 255))


def test_edges_are_pixels_beside_another_class() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 2:] = 1
    labels[:, 6:] = 255
    assert label_edges(labels).tolist() == [[0.5, 0.0], [0.5, 0.0]]  # columns 1 and 2; 255 makes no edge


def test_ranks_lie_in_0_1_and_ties_share_their_mean() -> None:
    assert rank(np.array([[3.0, 1.0], [1.0, 9.0]])).tolist() == [[0.5, 0.125], [0.125, 0.75]]


def test_iou_counts_over_all_images_and_leaves_out_what_is_nowhere() -> None:
    target = torch.tensor([[[0, 0, 1, 255]], [[1, 1, 1, 1]]])
    prediction = torch.tensor([[[0, 1, 1, 0]], [[1, 1, 1, 0]]])
    score = SegmentationScore(3, small=[1], names=["a", "b", "c"])
    for p, t in zip(prediction, target):
        score.update(p[None], t[None])
    found = score.compute()
    assert found["iou/a"] == pytest.approx(1 / 3)
    assert found["miou_small"] == found["iou/b"] == pytest.approx(4 / 6)
    assert found["miou"] == pytest.approx((1 / 3 + 4 / 6) / 2)
    assert "iou/c" not in found
    assert iou(confusion(target, target, 3))[:2].tolist() == [1, 1]


def test_coverage_is_the_kept_share_of_object_tokens() -> None:
    objects = torch.zeros(1, 2, 3, dtype=torch.bool)
    objects[0, 1, 2] = objects[0, 0, 1] = True
    score = Coverage(2)
    score.update(objects, [torch.tensor([[[2, 1], [0, 0], [1, 1]]]), torch.tensor([[[0, 1]]])])
    found = score.compute()
    assert (found["coverage/2"], found["budget/2"]) == (0.5, 0.5)
    assert (found["coverage/3"], found["budget/3"]) == (0, pytest.approx(1 / 6))
