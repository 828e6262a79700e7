"""Image sets and subsets as the specification has them, draws that depend on (seed, iteration) only, bad input."""

from __future__ import annotations

import dataclasses
import gzip
import json
import logging
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diggan.data import LimitedImages, load
from diggan.data.draws import CHUNK, Plan, draw_chunk, image_rows
from diggan.data.images import stratified_subset, subset
from PIL import Image
from shared.errors import UserError
from shared.runs.plan import read_yaml

COUNTS = json.loads((Path(__file__).parent / "golden" / "counts.json").read_text())


def test_validation_images_of_a_sorted_folder_are_of_all_its_classes(tmp_path: Path) -> None:
    """The first 10,000 would be of the first classes. Of other sets, whose files are not sorted, they are the first."""
    n = 12_000
    labels = torch.arange(n) // 1200
    images = (labels[:, None, None, None] * 10).to(torch.uint8).expand(n, 1, 8, 8)
    digits = load("digits")
    for dataset, least in (("class_folders", 900), ("mnist", 0)):
        data = LimitedImages(dataset, num_samples=10)
        data.source = dataclasses.replace(digits, images=images, labels=labels, half=127.5)
        data.indices = np.arange(10)
        classes = ((data.validation()[:, 0, 0, 0] + 1) * 127.5 / 10).round().long()
        assert len(classes) == 10_000
        assert (torch.bincount(classes, minlength=10).min() > least) == (dataset == "class_folders")
        if dataset == "mnist":
            assert torch.equal(classes, labels[10:10_010])


@pytest.mark.parametrize("count", [5000, 10000])
def test_the_limited_subsets_are_the_authors(count: int) -> None:
    expected = COUNTS["subset_indices_seed0"][str(count)]
    found = subset(50_000, count, 0)
    assert found[:12].tolist() == expected["first"]
    assert found[-3:].tolist() == expected["last"]
    assert int(found.sum()) == expected["sum"]
    assert zlib.crc32(found.astype("<i8").tobytes()) == expected["crc32_int64le"]


def test_epochs_of_the_authors_are_250000_iterations_whatever_the_fraction() -> None:
    """floor(num_samples * epochs / (batch * d_steps)), which the configurations state as iterations."""
    for share, epochs in COUNTS["generator_iterations"]["num_epochs"].items():
        samples = 50_000 * int(share.rstrip("%")) // 100
        for name in ("cifar10", "cifar100"):
            config = read_yaml(Path(__file__).parent.parent / "configs" / f"{name}.yaml")
            authors = samples * epochs // (config["data"]["batch_size"] * config["model"]["d_steps"])
            assert config["data"]["iterations"] * config["trainer"]["max_epochs"] == authors == 250_000


def test_digits_are_split_as_specified() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(1234).permutation(1797)
    source = load("digits")
    assert (len(source.images), len(source.test_images)) == (897, 900)
    np.testing.assert_array_equal(source.images.flatten(1).numpy(), images[order[:897]])
    assert source.labels.tolist() == labels[order[:897]].tolist()
    scaled = source.scaled(source.images)
    assert (scaled.min(), scaled.max()) == (-1, 1)
    data = LimitedImages(num_samples=100, subset_seed=3)
    data.setup()
    assert data.indices.tolist() == np.random.RandomState(3).choice(897, 100, replace=False).tolist()
    assert len(data.validation()) == 797


def test_cifar_records(toy_data: Path) -> None:
    """Label first, then channel by channel; CIFAR-100 has a coarse and a fine label."""
    record = np.fromfile(toy_data / "cifar-10-batches-bin" / "data_batch_2.bin", np.uint8)[:3073]
    source = load("cifar10", toy_data)
    assert source.labels[60] == record[0]
    np.testing.assert_array_equal(source.images[60].numpy(), record[1:].reshape(3, 32, 32))
    fine, coarse = load("cifar100", toy_data), load("cifar100", toy_data, coarse=True)
    assert (fine.classes, coarse.classes) == (100, 20)
    assert fine.labels[:3].tolist() == [0, 1, 2]
    assert fine.labels[299] == 99
    assert coarse.labels[21] == 1
    np.testing.assert_array_equal(
        fine.images[1].flatten().numpy(),
        np.fromfile(toy_data / "cifar-100-binary" / "train.bin", np.uint8)[3076 : 3074 * 2],
    )


def test_idx_files_gzipped_too(toy_data: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_data / "MNIST", tmp_path / "MNIST")
    for file in (tmp_path / "MNIST" / "raw").iterdir():
        (file.parent / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert torch.equal(load("mnist", tmp_path).images, load("mnist", toy_data).images)


def test_class_folders(toy_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = load("class_folders", toy_data / "pets")
    assert (source.classes, len(source.images), len(source.test_images)) == (2, 10, 10)
    assert source.labels.tolist() == [0] * 5 + [1] * 5
    assert "FID depends on their number" in caplog.text
    assert load("class_folders", toy_data / "pets", resize=16).shape == (3, 16, 16)
    shutil.copytree(toy_data / "pets" / "train", tmp_path / "mine" / "train")
    with caplog.at_level(logging.WARNING):
        held_out = load("class_folders", tmp_path / "mine")
    assert (len(held_out.images), len(held_out.test_images)) == (5, 5)
    assert "has no test folder" in caplog.text


def test_grey_folders_have_one_channel_and_colour_folders_three(toy_data: Path, tmp_path: Path) -> None:
    """Whatever the files' format: palettes and RGB files may be grey, too."""
    for part in ("train", "test"):
        for name, mode in (("cat", "L"), ("dog", "RGB")):
            (tmp_path / "grey" / part / name).mkdir(parents=True)
            for i in range(3):
                pixels = np.arange(256, dtype=np.uint8).reshape(16, 16) + np.uint8(i)
                Image.fromarray(pixels).convert(mode).save(tmp_path / "grey" / part / name / f"{i}.png")
    grey = load("class_folders", tmp_path / "grey")
    assert grey.shape == (1, 16, 16)
    assert torch.equal(grey.images[1, 0].flatten(), torch.arange(256, dtype=torch.uint8) + 1)
    assert load("class_folders", tmp_path / "grey", resize=8, to_rgb=True).shape == (3, 8, 8)
    shutil.copy(toy_data / "pets" / "test" / "cat" / "cat0.png", tmp_path / "grey" / "test" / "cat" / "0.png")
    assert load("class_folders", tmp_path / "grey", resize=16).shape == (3, 16, 16)  # one of them has colours


def test_limited_data(toy_data: Path) -> None:
    whole = LimitedImages("mnist", str(toy_data))
    whole.setup()
    assert len(whole.images) == 700
    part = LimitedImages("mnist", str(toy_data), fraction=0.1, subset_seed=0)
    part.setup()
    assert len(part.images) == 70
    assert len(np.intersect1d(part.indices, np.arange(700))) == 70
    even = LimitedImages("mnist", str(toy_data), num_samples=43, stratified=True, subset_seed=0)
    even.setup()
    assert sorted(np.bincount(even.labels.numpy()).tolist()) == [4] * 7 + [5] * 3
    assert len(part.validation()) == 630
    with pytest.raises(UserError, match="class 0 has 2 images, 3 are wanted"):
        stratified_subset(np.array([0, 0, 1, 1]), 5, 0)


def test_an_epoch_shows_every_image_once_and_goes_on() -> None:
    rows = image_rows(10, 3, 0, 40)
    for epoch in rows.view(4, 10):
        assert epoch.sort().values.tolist() == list(range(10))
    assert not torch.equal(rows[:10], rows[10:20])
    assert torch.equal(image_rows(10, 3, 17, 9), rows[17:26])
    assert not torch.equal(image_rows(10, 4, 0, 40), rows)


def test_fewer_images_than_a_batch_come_twice_and_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    data = LimitedImages(num_samples=5, batch_size=8)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert "5 images for batches of 8" in caplog.text
    assert data.batch(0).x.shape == (1, 8, 1, 8, 8)


def test_draws_depend_on_seed_and_iteration_only() -> None:
    plan = Plan(50, 4, 2, 8, classes=3, policy="color,translation,cutout", height=9, width=12, flip=True)
    one, again, other, later = (
        draw_chunk(plan, 1, 0),
        draw_chunk(plan, 1, 0),
        draw_chunk(plan, 2, 0),
        draw_chunk(plan, 1, 1),
    )
    for name in ("rows", "flips", "z", "gy"):
        a, b, c, d = (getattr(chunk, name) for chunk in (one, again, other, later))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not torch.equal(a, d)
    assert len(one.augment) == CHUNK * 3
    assert [len(d.shift_h) for d in one.augment[:6]] == [8, 8, 4, 8, 8, 4]
    assert 0.4 < one.flips.float().mean() < 0.6


def test_an_update_that_accumulates_takes_so_many_batches() -> None:
    data = LimitedImages(num_samples=60, batch_size=4)
    data.setup()
    data.plan_options = {"d_steps": 2, "accumulate": 3, "latent": 5, "policy": "translation"}
    batch = data.batch(7)
    assert batch.x.shape == (6, 4, 1, 8, 8)
    assert batch.z.shape == (9, 4, 5)
    assert [len(draws.shift_h) for draws in batch.augment] == [8] * 6 + [4] * 3
    shown = torch.cat([data.batch(k).x.flatten(0, 1).flatten(1) for k in (0, 1)])
    assert len(shown.unique(dim=0)) == 48  # of 60: no image twice before all were shown


def test_batches_carry_labels_flips_and_draws(toy_data: Path) -> None:
    data = LimitedImages("cifar10", str(toy_data), num_samples=30, batch_size=4)
    torch.manual_seed(5)
    data.setup()
    data.plan_options = {"d_steps": 2, "latent": 8, "classes": 10, "policy": "cutout"}
    batch, chunk = data.batch(3), draw_chunk(data.plan, 5, 0)
    assert batch.y.tolist() == data.labels[chunk.rows[3]].tolist()
    for x, row, flipped in zip(batch.x.flatten(0, 1), chunk.rows[3].flatten(), chunk.flips[3].flatten()):
        assert torch.equal(x, data.images[row].flip(-1) if flipped else data.images[row])
    assert not LimitedImages("mnist").flip
    assert len(batch.augment) == 3


def test_the_sampler_goes_on_where_it_was() -> None:
    torch.manual_seed(1)
    first, second = LimitedImages(num_samples=20, batch_size=3), LimitedImages(num_samples=20, batch_size=3)
    first.setup()
    second.setup()
    loader = iter(first.train_dataloader())
    for _ in range(7):
        next(loader)
    second.load_state_dict(first.state_dict())
    assert torch.equal(next(loader).x, next(iter(second.train_dataloader())).x)
    third = LimitedImages(num_samples=21, batch_size=3)
    third.setup()
    with pytest.raises(UserError, match="made with subset"):
        third.load_state_dict(first.state_dict())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dataset": "digit"}, "unknown data set 'digit': there are digits, .*; did you mean digits"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"num_samples": 898}, "num_samples is 898: digits has 897"),
        ({"num_samples": 5, "fraction": 0.5}, "give one of them"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"dataset": "class_folders"}, "class_folders needs `root`"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        LimitedImages(**settings).setup()


def test_damaged_and_missing_files_are_one_line(toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar100 is missing: no train.bin, test.bin"):
        load("cifar100", tmp_path)
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(UserError, match=r"holds pickles, which are never read: get the binary version"):
        load("cifar100", tmp_path)
    shutil.copytree(toy_data / "cifar-100-binary", tmp_path / "cifar-100-binary")
    with (tmp_path / "cifar-100-binary" / "test.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(
        ValueError, match=r"test.bin is truncated or no binary CIFAR-100 file: 307401 bytes are 100 records"
    ):
        load("cifar100", tmp_path)
    content = bytearray((toy_data / "cifar-100-binary" / "test.bin").read_bytes())
    content[1] = 100
    (tmp_path / "cifar-100-binary" / "test.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"label 100 of record 0 is outside 0..99"):
        load("cifar100", tmp_path)
    shutil.copytree(toy_data / "pets", tmp_path / "pets")
    (tmp_path / "pets" / "train" / "cat" / "cat0.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"cat0.png is damaged or no image"):
        load("class_folders", tmp_path / "pets")
    shutil.rmtree(tmp_path / "pets" / "train" / "cat")
    (tmp_path / "pets" / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match="cat has no image in it"):
        load("class_folders", tmp_path / "pets")
    with pytest.raises(FileNotFoundError, match=r"a folder for each class is expected"):
        load("class_folders", tmp_path / "nowhere")
