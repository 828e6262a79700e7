"""Matching, losses and inference of Mask2Former."""

from __future__ import annotations

import math

import pytest
import torch
from autofocusformer.backbone import VARIANTS, Pyramid
from autofocusformer.heads.mask2former import (
    PointMask2Former,
    Prediction,
    Targets,
    instances,
    mask2former_losses,
    panoptic,
    semantic,
)
from autofocusformer.heads.mask2former.losses import uncertain_points
from autofocusformer.heads.mask2former.matching import Weights, at_points, match
from shared.errors import UserError
from torch import Tensor

SURE = 12.0


def quarters(h: int, w: int) -> Tensor:
    """Masks of the four quarters of an image."""
    masks = torch.zeros(4, h, w, dtype=torch.bool)
    masks[0, : h // 2, : w // 2] = masks[1, : h // 2, w // 2 :] = True
    masks[2, h // 2 :, : w // 2] = masks[3, h // 2 :, w // 2 :] = True
    return masks


def answer(order: list[int], labels: list[int], classes: int = 3) -> Prediction:
    """Queries that are sure of quarter `order[q]` and class `labels[q]`, on a canvas of 8 x 8."""
    masks = (quarters(8, 8)[order].float() * 2 - 1) * SURE
    logits = torch.full((len(order), classes + 1), -SURE)
    logits[torch.arange(len(order)), labels] = SURE
    return Prediction(logits[None], masks[None])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_queries_are_matched_with_what_they_see() -> None:
    truth = Targets(torch.tensor([0, 1, 2]), quarters(32, 32)[:3])
    prediction = answer([2, 3, 0, 1], [2, 3, 0, 1])
    queries, found = match(prediction.classes[0], prediction.masks[0], truth, 500, Weights(), generator())
    assert dict(zip(queries.tolist(), found.tolist())) == {0: 2, 2: 0, 3: 1}


def test_a_right_answer_costs_little_and_a_wrong_one_much() -> None:
    truth = [Targets(torch.tensor([0, 1, 2]), quarters(32, 32)[:3])]
    right = mask2former_losses([answer([2, 3, 0, 1], [2, 3, 0, 1])] * 2, truth, 2000, generator=generator())
    wrong = mask2former_losses([answer([3, 3, 3, 3], [0, 1, 2, 2])] * 2, truth, 2000, generator=generator())
    assert right.classes < 1e-6
    # Three quarters of the points are where the mask changes its sign, between cells.
    assert right.mask < 3
    assert right.dice < 0.6
    assert wrong.dice > 1.5
    assert wrong.total > 10 * right.total
    torch.testing.assert_close(right.total, 2 * right.classes + 5 * right.mask + 5 * right.dice)


def test_a_query_that_answers_for_nothing_counts_a_tenth() -> None:
    """Two queries, one object: cross-entropies ln 2 of the matched and ln 2 of the other, weighted 1 and 0.1."""
    prediction = Prediction(torch.zeros(1, 2, 2), torch.zeros(1, 2, 4, 4))
    one = [Targets(torch.tensor([0]), torch.ones(1, 16, 16, dtype=torch.bool))]
    assert mask2former_losses([prediction], one, 64).classes == pytest.approx(math.log(2))
    prediction.classes[0, :, 0] = 1  # both lean to class 0
    lean = [math.log(1 + math.exp(-1)), math.log(1 + math.e)]
    expected = (lean[0] + 0.1 * lean[1]) / 1.1
    assert float(mask2former_losses([prediction], one, 64).classes) == pytest.approx(expected)
    dice = mask2former_losses([prediction], one, 64).dice
    # Points next to the border see less of the mask, as outside of the image there is none.
    assert float(dice) == pytest.approx(1 - (2 * 32 + 1) / (32 + 64 + 1), rel=0.05)


def test_points_are_where_the_mask_is_uncertain() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(64, -1)[None]
    place = uncertain_points(ramp, 400, generator())
    assert place.shape == (1, 400, 2)
    near = at_points(ramp, place)[0].abs()
    assert near[:300].max() < 0.3  # the nearest quarter of 1200 random points
    assert near[300:].max() > 0.8  # random


def test_an_image_without_objects_has_no_mask_loss() -> None:
    masks = torch.randn(1, 3, 4, 4, requires_grad=True)
    empty = [Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, 16, 16, dtype=torch.bool))]
    losses = mask2former_losses([Prediction(torch.zeros(1, 3, 5), masks)], empty, 50)
    assert losses.mask == 0
    losses.total.backward()
    assert masks.grad is not None


def test_wrong_targets_are_named() -> None:
    prediction = Prediction(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4, 4))
    masks = torch.ones(1, 16, 16, dtype=torch.bool)
    with pytest.raises(UserError, match="2 targets for 1 images"):
        mask2former_losses([prediction], [Targets(torch.tensor([0]), masks)] * 2)
    with pytest.raises(UserError, match=r"image 0 has labels outside of 0 .. 1: \[2\]"):
        mask2former_losses([prediction], [Targets(torch.tensor([2]), masks)])
    with pytest.raises(UserError, match="target masks are 12 x 16"):
        mask2former_losses([prediction], [Targets(torch.tensor([0]), masks[:, :12])])
    bad = Prediction(prediction.classes * math.nan, prediction.masks)
    with pytest.raises(UserError, match="diverged"):
        mask2former_losses([bad], [Targets(torch.tensor([0]), masks)])


def test_a_head_that_has_diverged_says_so() -> None:
    torch.manual_seed(0)
    backbone, head = Pyramid(VARIANTS["nano"]), PointMask2Former(VARIANTS["nano"].widths, 3, 5)
    head.pixel_decoder.layers[0].attention.sampling_offsets.bias.data.fill_(math.nan)
    truth = [Targets(torch.tensor([0, 2]), quarters(32, 32)[:2])]
    with pytest.raises(UserError, match="training has diverged"):
        mask2former_losses(head(backbone(torch.randn(1, 3, 32, 32))), truth, points=112)


def test_every_parameter_takes_part() -> None:
    torch.manual_seed(0)
    backbone, head = Pyramid(VARIANTS["nano"]), PointMask2Former(VARIANTS["nano"].widths, 3, 5)
    for layer in head.pixel_decoder.layers:  # they start at 0, where a query has no say in what it looks at
        torch.nn.init.normal_(layer.attention.sampling_offsets.weight, std=0.02)
        torch.nn.init.normal_(layer.attention.attention_weights.weight, std=0.02)
    images = torch.randn(2, 3, 62, 64)
    truth = [Targets(torch.tensor([0, 2]), quarters(62, 64)[:2]), Targets(torch.tensor([1]), quarters(62, 64)[3:])]
    losses = mask2former_losses(head(backbone(images)), truth, points=112)
    losses.total.backward()
    for name, parameter in [*head.named_parameters(), *backbone.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_semantic_labels() -> None:
    scores = semantic(answer([0, 1, 2, 3], [0, 1, 1, 2]), (30, 32))
    assert scores.shape == (1, 3, 30, 32)
    label = scores[0].argmax(0)
    assert [int(label[y, x]) for y, x in ((2, 2), (2, 29), (27, 2), (27, 29))] == [0, 1, 1, 2]


def test_instances_are_sorted_by_score() -> None:
    prediction = answer([0, 1, 3], [2, 1, 3])
    prediction.classes[0, 1] = torch.tensor([0.0, 2.0, 0.0, 0.0])
    (found,) = instances(prediction, (32, 32), count=2)
    assert found.labels.tolist() == [2, 1]
    assert found.scores[0] > 0.95
    share = math.exp(2) / (math.exp(2) + 3)
    assert float(found.scores[1]) == pytest.approx(share * float(found.scores[0]), rel=1e-3)
    assert (found.masks[0] == quarters(32, 32)[0]).float().mean() > 0.99
    (things,) = instances(prediction, (32, 32), count=3, things={1})
    assert set(things.labels.tolist()) == {1}


def test_panoptic_joins_regions_but_not_objects() -> None:
    prediction = answer([0, 1, 2, 3], [0, 0, 1, 1])  # class 0 has instances, class 1 has none
    (found,) = panoptic(prediction, (32, 32), things={0})
    assert found.labels == [0, 0, 1]
    s = found.segments
    assert [int(s[y, x]) for y, x in ((2, 2), (2, 29), (27, 2), (27, 29))] == [1, 2, 3, 3]


def test_panoptic_drops_the_unsure_and_the_hidden() -> None:
    prediction = answer([0, 0, 3, 3], [0, 2, 1, 3])
    prediction.classes[0, 0, 0] = -SURE + 1  # unsure of everything
    prediction.masks[0, 1] = SURE  # everywhere: three quarters of it remain, less than 0.8
    prediction.masks[0, 2] *= 3
    (found,) = panoptic(prediction, (32, 32), things={0, 1, 2})
    assert found.labels == [1]
    assert set(found.segments.unique().tolist()) == {0, 1}
    nothing = Prediction(torch.zeros(1, 2, 4), torch.zeros(1, 2, 8, 8))
    (empty,) = panoptic(nothing, (32, 32), things={0})
    assert empty.labels == []
    assert (empty.segments == 0).all()
