"""Batches, schedules and short trainings: what goes in, what is learned, and what is said of a mistake."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_layouts as folders
import numpy as np
import pytest
import torch
from autofocusformer.data import sets
from autofocusformer.data.augment import (
    IGNORE,
    OPERATIONS,
    Labelled,
    Mix,
    SceneAugmentation,
    centre,
    cropped,
    denormalise,
    flipped,
    imagenet_training,
    normalise,
    padded,
    resized,
)
from autofocusformer.data.module import Batches, Images
from autofocusformer.data.synthetic import SceneConfig
from autofocusformer.experiment import data_fingerprint, run
from autofocusformer.heads.mask2former import Prediction, mask2former_losses
from autofocusformer.mask_module import targets_of
from autofocusformer.module import Segmenter, adamw, factor_at
from autofocusformer.tokens_of_images import label_edges, rank
from shared.errors import UserError
from shared.runs.plan import merge

from autofocusformer import module, panels

SMALL = SceneConfig(height=32, width=32, sizes=(0.15, 0.2))
TRAINING: dict[str, Any] = {
    "model": {"class_path": "autofocusformer.module.Segmenter", "init_args": {"lr": 5e-3}},
    "data": {
        "dataset": "synthetic_density", "batch_size": 2, "iterations": 6, "train_images": 8, "test_images": 3,
        "scene": {"height": 32, "width": 32, "sizes": [0.15, 0.2]},
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def sample(h: int = 20, w: int = 31) -> Labelled:
    labels = torch.arange(h * w).view(h, w) % 5
    image = (labels.float() / 5)[None].expand(3, -1, -1).clone()
    return Labelled(image, labels, torch.stack([labels == 1, labels == 2]))


def together(one: Labelled) -> bool:
    """Image, labels and masks still say the same of every pixel."""
    there = one.labels != IGNORE
    assert one.masks is not None
    return bool(
        torch.allclose(one.image[0][there] * 5, one.labels[there].float(), atol=1e-3)
        and torch.equal(one.masks[0], one.labels == 1)
        and torch.equal(one.masks[1], one.labels == 2)
    )


def test_image_labels_and_masks_move_together() -> None:
    for one in (
        cropped(sample(), slice(3, 14), slice(5, 18)),
        flipped(sample()),
        padded(sample(), 24, 33),
        resized(sample(), 20, 31),
    ):
        assert together(one)
    assert (padded(sample(), 24, 33).labels[20:] == IGNORE).all()
    torch.manual_seed(0)
    augment = SceneAugmentation((16, 48))
    shapes = [augment(sample()) for _ in range(20)]
    assert all(together(one) and one.labels.shape == (16, 48) for one in shapes)
    assert len({one.labels[:, :30].numpy().tobytes() for one in shapes}) > 5


def test_scales_reach_from_least_to_largest() -> None:
    torch.manual_seed(0)
    augment = SceneAugmentation((64, 64), (0.5, 2.0), short_side=20)
    shares = [(augment(sample()).labels != IGNORE).float().mean().item() * 64 * 64 for _ in range(40)]
    assert min(shares) < 0.45 * 600
    assert max(shares) > 2.5 * 600


def test_the_long_side_is_scaled_to_fit_the_crop() -> None:
    """As large scale jitter is: at a scale of 1 the whole image is in the crop."""
    for h, w in ((20, 30), (30, 20)):
        labels = SceneAugmentation((60, 60), long_side=60, flip=False)(sample(h, w)).labels
        assert (labels != IGNORE).sum() == 40 * 60
        there = (labels != IGNORE).nonzero().amax(0) + 1
        assert there.tolist() == [2 * h, 2 * w]


@pytest.mark.parametrize("target", [(40, 62), (13, 9), (33, 47), (20, 31)])
def test_only_the_crop_of_a_mask_is_made(target: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is that of the whole: the nearest pixels, as PyTorch finds them."""
    one, rows, columns = sample(), slice(5, 11), slice(2, 8)
    whole = torch.nn.functional.interpolate(one.labels[None, None].float(), target, mode="nearest-exact")[0, 0]
    part = resized(one, *target, rows, columns)
    assert part.image.shape == (3, 6, 6)
    assert torch.equal(part.labels, whole[rows, columns].long())
    assert part.masks is not None
    assert torch.equal(part.masks, torch.stack([part.labels == 1, part.labels == 2]))
    assert part.masks.shape == (2, 6, 6)


def test_randaugment_is_as_strong_as_the_recipe_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """m9 of a scale that ends at 10, as its increasing operations are defined."""
    randaugment = imagenet_training(32)[2]
    found: dict[str, float] = {}
    monkeypatch.setattr(randaugment, "rand_selector", lambda n: torch.arange(15))
    drawn = randaugment.forward_parameters(torch.Size([1, 3, 20, 40]))
    for ((name, _, _),), item in zip(OPERATIONS, drawn):
        values = {key: value for key, value in item.data[0].data.items() if key != "batch_prob"}
        if name == "solarize_add":  # above which pixel it adds is drawn, whatever the magnitude
            values = {"additions": values["additions"]}
        numbers = [value for value in values.values() if value.is_floating_point() and value.numel() == 1]
        found[name] = max((abs(v.item()) for v in numbers), default=0.0)
    assert found["rotate"] == pytest.approx(27)
    assert found["solarize"] == pytest.approx(1 - 0.9, abs=1e-6)
    assert found["solarize_add"] == pytest.approx(0.9 * 110 / 255, abs=0.01)
    for name in ("color", "contrast", "brightness", "sharpness"):
        assert found[name] == pytest.approx(1 + 0.9 * 0.9)
    for name in ("shear_x", "shear_y"):
        assert math.tan(math.radians(found[name])) == pytest.approx(0.9 * 0.3, rel=0.01)
    assert found["translate_x"] == pytest.approx(0.9 * 0.45 * 40)
    assert found["translate_y"] == pytest.approx(0.9 * 0.45 * 20)


def test_mixed_targets_follow_the_pixels() -> None:
    torch.manual_seed(0)
    mix = Mix(4, smoothing=0.0)
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 16).clone()
    for _ in range(10):
        mixed, targets = mix(images, torch.arange(4))
        assert torch.allclose(mixed.mean((1, 2, 3)), targets @ torch.arange(4.0), atol=1e-5)


def test_the_middle_of_the_test_image() -> None:
    image = torch.zeros(3, 40, 60)
    image[:, :, 20:40] = 1
    assert centre(image, 20, 40).shape == (3, 20, 20)
    assert (centre(image, 20, 40) == 1).all()
    assert torch.allclose(denormalise(normalise(image)), image, atol=1e-6)
    whole = centre(image, 20, None)  # the middle third of the columns is white, and all of it is there
    assert whole.shape == (3, 20, 20)
    assert whole.mean() == pytest.approx(1 / 3, abs=0.01)


def test_every_epoch_has_an_order_of_its_own_and_every_image_once() -> None:
    rows = Batches(10, 5, lambda rows: rows, 4, seed=lambda: 1).rows()
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]
    assert rows == Batches(10, 5, lambda rows: rows, 4, seed=lambda: 1).rows()
    assert rows != Batches(10, 5, lambda rows: rows, 4, seed=lambda: 2).rows()
    assert list(Batches(5, 2, lambda rows: rows)) == [[0, 1], [2, 3], [4]]
    data = Images(scene=SMALL, batch_size=2, train_images=8)
    data.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1)  # type: ignore[assignment]
    loader = data.train_dataloader()  # a trainer asks for it once
    first = loader.rows()
    data.trainer.current_epoch = 1
    assert loader.rows() != first


def test_devices_share_the_order_and_augment_each_for_itself() -> None:
    whole = Batches(10, 6, lambda rows: rows, 2, seed=lambda: 1).rows()
    ranks = [Batches(10, 3, lambda rows: (rows, torch.rand(())), 2, lambda: 1, rank, 2) for rank in (0, 1)]
    assert [one.rows() for one in ranks] == [whole[0::2], whole[1::2]]
    after, drawn = [], []
    for one in ranks:
        torch.manual_seed(5)
        drawn.append([value.item() for _, value in one])
        after.append(torch.rand(()).item())
    assert after[0] == after[1]
    assert len({*drawn[0], *drawn[1]}) == 4
    data = Images(scene=SMALL, batch_size=2, train_images=8)
    data.trainer = SimpleNamespace(current_epoch=0, global_rank=1, world_size=2)  # type: ignore[assignment]
    alone = Images(scene=SMALL, batch_size=2, train_images=8)
    assert len(data.train_dataloader()) == 2
    assert data.train_dataloader().rows() == alone.train_dataloader().rows()[1::2]


def test_a_batch_of_scenes_brings_the_oracle_s_importance_of_what_is_left_after_augmentation() -> None:
    data = Images(scene=SMALL, batch_size=3, train_images=4)
    data.setup()
    (batch, *_) = iter(data.train_dataloader())
    assert batch.images.shape == (3, 3, 32, 32)
    for labels, oracle in zip(batch.labels, batch.oracle):
        assert np.allclose(oracle, rank(label_edges(labels.numpy().astype(np.uint8))))
    assert batch.objects.any()


def test_what_nobody_asks_for_is_not_counted() -> None:
    data = Images(scene=SMALL, batch_size=3, train_images=4)
    data.setup()
    whole = data.batch("test", [0, 1])
    data.of_oracle = False
    partly = data.batch("test", [0, 1])
    assert partly.oracle.numel() == 0
    assert torch.equal(partly.objects, whole.objects)
    data.of_tokens = False
    (batch, *_) = iter(data.train_dataloader())
    assert batch.labels.shape == (3, 32, 32)
    assert batch.oracle.numel() == batch.objects.numel() == 0


def test_sizes_that_are_no_multiple_are_padded_with_ignored_pixels(tmp_path: Path) -> None:
    data = Images("ade20k", root=str(folders.ade20k(tmp_path)), test_batch_size=2)
    data.setup()
    (batch,) = iter(data.test_dataloader())
    assert batch.images.shape == (2, 3, 96, 96)
    assert (batch.labels[:, 66:] == 255).all()
    assert (batch.labels[:, :, 81:] == 255).all()


def test_a_test_of_mixed_sizes_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Padding is no part of an image's result: there one image is a batch, unless asked otherwise."""
    root = folders.ade20k(tmp_path)
    folders.save(root / "images/validation/ADE_1.jpg", folders.noise(150, 40))
    folders.save(root / "annotations/validation/ADE_1.png", folders.halves(150, 40, 0, 150))
    data = Images("ade20k", root=str(root), batch_size=2)
    data.setup()
    assert [tuple(batch.images.shape) for batch in data.test_dataloader()] == [(1, 3, 96, 96), (1, 3, 160, 64)]
    assert len(data.train_dataloader().rows()) == 2
    for other, sizes in (
        (Images("ade20k", root=str(root), test_batch_size=2), [2]),
        (Images("ade20k", root=str(root), batch_size=2, resize=(64, 64)), [2]),
        (Images(scene=SMALL, batch_size=2, test_images=4), [2, 2]),
    ):
        other.setup()
        assert [len(batch.images) for batch in other.test_dataloader()] == sizes


def test_an_image_without_objects_and_a_crowd_are_tested(tmp_path: Path) -> None:
    root = folders.coco(tmp_path)
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 8]
    file.write_text(json.dumps(content))
    empty, crowded = Images("coco", root=str(root), batch_size=2).test_dataloader()
    assert [len(empty.classes[0]), len(empty.masks[0]), len(empty.crowds[0])] == [0, 0, 0]
    assert crowded.classes[0].tolist() == [0, 1]
    assert crowded.crowds[0].tolist() == [False, True]
    assert crowded.masks[0][1, :60, :40].all()
    training = Images("coco", root=str(root), batch_size=2, crop=(64, 96))
    assert training.amount("train") == 2
    (batch,) = training.train_dataloader()
    assert not any(crowds.any() for crowds in batch.crowds)


def test_what_a_training_saw_is_part_of_its_data(tmp_path: Path) -> None:
    config = {"data": {"dataset": "camvid", "root": str(folders.camvid(tmp_path))}}
    trained = {**config, "model": {}}
    before, before_trained = data_fingerprint(config), data_fingerprint(trained)
    assert before[0] != before_trained[0]
    assert "train: 2 images" in before_trained[2]
    folders.save(tmp_path / "CamVid" / "train" / "train0.png", folders.noise(48, 64, 9))
    sets._digest.cache_clear()
    assert data_fingerprint(config) == before
    assert data_fingerprint(trained)[0] != before_trained[0]


def test_cityscapes_as_instances_and_coco(tmp_path: Path) -> None:
    data = Images("cityscapes", root=str(folders.cityscapes(tmp_path / "c")), batch_size=2, instances=True)
    data.setup()
    (batch,) = iter(data.test_dataloader())
    assert data.names == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert [kinds.tolist() for kinds in batch.classes] == [[2], [2]]
    assert batch.masks[0].shape == (1, 64, 128)
    assert batch.masks[0][0, :, 64:].all()
    data = Images("coco", root=str(folders.coco(tmp_path / "o")), batch_size=2, crop=(32, 32))
    data.setup()
    (batch,) = iter(data.train_dataloader())
    assert batch.images.shape == (2, 3, 32, 32)
    assert all(mask.any() for masks in batch.masks for mask in masks)


def test_a_group_of_things_is_a_crowd_in_tests_alone(tmp_path: Path) -> None:
    """What is found in it counts neither way, as in COCO; a training does not see it."""
    root = folders.cityscapes(tmp_path)
    for path in root.rglob("*instanceIds.png"):
        ids = folders.halves(64, 128, 26, 26_003, np.uint16)  # a group of cars beside a car
        ids[:8] = 7  # road is no thing
        folders.save(path, ids)
    data = Images("cityscapes", str(root), 2, instances=True)
    data.setup()
    test, train = next(iter(data.test_dataloader())), next(iter(data.train_dataloader()))
    assert test.classes[0].tolist() == [2, 2]
    assert test.crowds[0].tolist() == [True, False]
    assert test.masks[0][0, 8:64, :64].all()
    assert test.masks[0].sum() == 56 * 128
    assert [crowds.tolist() for crowds in train.crowds] == [[False], [False]]
    assert [len(masks) for masks in train.masks] == [1, 1]


def test_a_frame_without_instances_is_a_frame(tmp_path: Path) -> None:
    root = folders.cityscapes(tmp_path)
    for path in root.rglob("*instanceIds.png"):
        folders.save(path, folders.halves(64, 128, 7, 26, np.uint16))  # a group of cars is no instance
    data = Images("cityscapes", str(root), 2, crop=(32, 32), scale=(0.5, 0.5), instances=True)
    data.setup()
    (batch,) = iter(data.train_dataloader())
    assert [masks.shape for masks in batch.masks] == [(0, 32, 32)] * 2
    prediction = Prediction(torch.randn(2, 3, 9, requires_grad=True), torch.randn(2, 3, 8, 8, requires_grad=True))
    loss = mask2former_losses([prediction], targets_of(batch), 16).total
    loss.backward()
    assert loss.isfinite()


def test_a_crop_that_shrinks_is_smoothed() -> None:
    """A checkerboard of single pixels becomes grey, as a test image does, not stripes."""
    board = (torch.arange(400)[:, None] + torch.arange(400)).remainder(2).float().expand(1, 3, -1, -1)
    crop = imagenet_training(64)[0]
    for seed in range(5):
        torch.manual_seed(seed)
        small = crop(board)
        assert small.shape == (1, 3, 64, 64)
        assert small.std() < 0.2
        assert 0 <= small.min() <= small.max() <= 1


def test_the_learning_rate_by_step() -> None:
    rates = [factor_at(s, 100, 10, "cosine", 0.1, 0.01) for s in range(101)]
    assert rates[0] == 0.01
    assert rates[10] == 1 == max(rates)
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert factor_at(50, 100, 0, "poly", 0, 0) == pytest.approx(0.5**0.9)
    at = [factor_at(s, 92_188, 3, "steps", 0, 0) for s in (10, 81_944, 81_945, 88_772, 88_773)]
    assert at == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_biases_norms_and_blanks_do_not_decay_and_the_backbone_learns_slower() -> None:
    segmenter = Segmenter()
    segmenter.build(7)
    names = {id(p): name for name, p in segmenter.named_parameters()}
    groups = adamw(segmenter, 1.0, 0.05, 0.1).param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert (group["weight_decay"] == 0) == (parameter.ndim < 2 or "blank" in name)
            assert group["lr"] == (0.1 if name.startswith("backbone.") else 1.0)


def test_the_share_on_the_grid_prior_is_that_of_the_local_spacing() -> None:
    """What is kept of an adaptive set of points, counted point by point with its distance to the nearest other."""
    torch.manual_seed(0)
    segmenter = Segmenter(backbone={"alpha": 8.0})
    segmenter.build(4)
    data = Images(scene=SMALL, batch_size=2, train_images=2)
    data.setup()
    (batch, *_) = iter(data.train_dataloader())
    oracle = torch.rand(2, 8, 8)
    segmenter.backbone.resample(sampling="oracle", rate=0.5)  # scattered points, not all on one grid
    levels = segmenter.backbone(batch.images, oracle)
    found = segmenter.looked_at(levels, batch)
    for number in (2, 3, 4):
        before, kept = levels[number - 2].positions, levels[number - 1].positions
        on_prior = []
        for there, chosen in zip(before.tolist(), kept.tolist()):
            for x, y in chosen:
                near = min(math.dist((x, y), other) for other in there if other != [x, y])
                spacing = 2 if number == 2 else 2 ** (math.ceil(math.log2(near)) + 1)
                on_prior.append(x % spacing == 0 and y % spacing == 0)
        assert found[f"prior/{number}"] == pytest.approx(sum(on_prior) / len(on_prior))
        on_fixed_grid = (kept % 2 ** (number - 1) == 0).all(-1).float().mean().item()
        assert number == 2 or found[f"prior/{number}"] > on_fixed_grid


@pytest.mark.parametrize("name", ["Segmenter", "Classifier"])
def test_an_accumulated_step_is_one_point(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_EVERY", 1)
    config = merge(TRAINING, {"trainer": {"accumulate_grad_batches": 2}})
    config["model"] = {"class_path": f"autofocusformer.module.{name}"}
    if name == "Classifier":
        config["data"] = {"dataset": "digits_canvas", "batch_size": 1, "iterations": 6, "test_images": 1}
    else:
        config["model"]["init_args"] = {"log_every": 1}
    assert len(run(config, 0, tmp_path)["curve/loss"]) == 3


def test_tokens_per_second_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches of two images of 32 pixels between two looks, 4 seconds apart; not among the results."""
    clock, logged = iter([10.0, 14.0]), []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    segmenter = Segmenter()
    monkeypatch.setattr(segmenter, "log_dict", lambda values, **_: logged.append(values))
    for _ in range(2):
        segmenter.note({"loss": 1.0})
        for index in range(2):
            segmenter.on_train_batch_end(None, (torch.zeros(2, 3, 32, 32),), index)
    assert logged == [
        {"train/loss": 1.0}, {"train/loss": 1.0, "train/tokens_per_second": 4 * (64 + 16 + 4 + 1) / 4},
    ]  # fmt: skip
    assert segmenter.curves == {"loss": [1.0, 1.0]}


def test_a_fused_step_is_the_same_step() -> None:
    """And it is left out where Lightning would refuse to clip the gradients."""
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, 3)
        optimizer = adamw(layer, 0.1, 0.05, fused=fused)
        for _ in range(5):
            layer(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        ends.append(layer.weight.detach().clone())
    assert torch.allclose(*ends, atol=1e-6)


@pytest.mark.slow
def test_a_training_learns_and_a_second_one_has_the_same_bits(tmp_path: Path) -> None:
    first, second, other = (run(TRAINING, seed, tmp_path / str(i)) for i, seed in enumerate((0, 0, 1)))
    assert first == second != other
    assert first["test/miou"] > 0.05
    assert {"test/miou_small", "test/coverage/2", "test/budget/4", "curve/coverage/2", "curve/spread/2"} <= set(first)
    assert [len(first[f"picture/{name}"]) for name in ("canvas", "importance", "kept")] == [2, 64, 32]
    assert first["test/budget/2"] == 0.25
    oracle = {**TRAINING, "model": {**TRAINING["model"], "init_args": {"backbone": {"sampling": "oracle"}}}}
    found = run(oracle, 0, tmp_path / "oracle")
    assert found["parameters"] == first["parameters"]
    assert found["test/coverage/2"] > first["test/coverage/2"]


@pytest.mark.slow
def test_digits_are_classified(tmp_path: Path) -> None:
    config = {
        "model": {"class_path": "autofocusformer.module.Classifier", "init_args": {"smoothing": 0.1}},
        "data": {
            "dataset": "digits_canvas", "batch_size": 4, "iterations": 2, "test_images": 8, "augment": True,
            "mix": True,
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }  # fmt: skip
    found = run(config, 0, tmp_path)
    assert 0 <= found["test/top1"] <= found["test/top5"] <= 100


@pytest.mark.parametrize(
    ("section", "settings", "says"),
    [
        ("data", {"dataset": "pascal"}, "unknown data set 'pascal'"),
        ("data", {"batch_size": 0}, "batch_size is 0"),
        ("data", {"scale": [0.5, 2.0]}, "need a crop"),
        ("data", {"long_side": 64}, "need a crop"),
        ("data", {"long_side": 64, "short_side": 32, "crop": [32, 32]}, "scale by one of them"),
        ("data", {"test_batch_size": 0}, "test_batch_size is 0"),
        ("data", {"scale": [2.0, 0.5], "crop": [32, 32]}, "scale is 2.0, 0.5"),
        ("model", {"variant": "huge"}, "unknown variant 'huge'"),
        ("model", {"levels": ["res9"]}, "levels is"),
        ("model", {"lr": 0.0}, "lr is 0.0"),
        ("model", {"schedule": "linear"}, "schedule is 'linear'"),
        ("model", {"backbone": {"alpha": -1.0}}, "alpha is -1"),
        ("model", {"backbone": {"rate": 1.5}}, "rate is 1.5"),
        ("model", {"backbone": {"depth": 3}}, "unexpected keyword argument 'depth'"),
    ],
)
def test_bad_settings_are_one_line(section: str, settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    config = {name: dict(part) for name, part in TRAINING.items()}
    if section == "model":
        config["model"] = {**config["model"], "init_args": settings}
    else:
        config["data"] |= settings
    with pytest.raises(UserError, match=says) as error:
        run(config, 0, tmp_path)
    assert "\n" not in str(error.value)


def test_unknown_keys_of_an_experiment(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown key 'modell'"):
        run({"modell": {}}, 0, tmp_path)
    with pytest.raises(UserError, match=r"unknown key 'counts\.name'"):
        run({"counts": {"name": "mini"}}, 0, tmp_path)
    with pytest.raises(UserError, match=r"clustering\.n is 800"):
        run({"clustering": {"n": 800}}, 0, tmp_path)
    with pytest.raises(UserError, match=r"data\.scene has no setting 'colour'"):
        data_fingerprint({"data": {"scene": {"colour": 1}}})


def test_counts_clustering_and_limits_report_what_the_ledger_reads(tmp_path: Path) -> None:
    assert run({"counts": {"variant": "mini"}}, 0, tmp_path)["parameters"] == 6_754_451
    assert run({"counts": {"variant": "tiny", "rate": 0.2}}, 0, tmp_path)["macs/saved"] == pytest.approx(0.32, abs=0.01)
    found = run({"clustering": {"n": 144, "repeats": 1}}, 0, tmp_path)
    assert found["snake/smallest"] == found["snake/largest"] == 8
    assert found["speed-up"] > 0
    config = {
        "sampling_limited": {"mode": "adaptive", "against": "grid", "images": 2},
        "data": {"dataset": "synthetic_density", "scene": {"height": 64, "width": 64, "sizes": [0.04, 0.08]}},
    }
    found = run(config, 0, tmp_path)
    assert found["gain/small/2"] > 0
    assert found != run(config, 1, tmp_path)


def test_what_was_kept_of_the_first_test_image_is_a_picture_in_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    right = panels.panel
    monkeypatch.setattr(panels, "panel", lambda *given: drawn.append(right(*given)) or drawn[-1])
    run(TRAINING, 0, tmp_path)
    assert len(list(tmp_path.glob("wandb/offline-run*/files/media/images/test/tokens*.png"))) == 1
    (figure,) = drawn
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[0] == "image"
    assert [title.split(":")[0] for title in titles if "tokens" in title] == ["stage 2", "stage 3", "stage 4"]
    kept = [len(axes.lines[0].get_xdata()) for axes in figure.axes if "tokens" in axes.get_title("left")]
    assert kept == [int(title.split()[2]) for title in titles if "tokens" in title]
    assert kept == sorted(kept, reverse=True)
    assert titles[-2:] == ["prediction", "truth"]
