"""What comes in: recipes, images, pairings, and a stream of batches that a resumed run goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rpgan_landscape.data import VARIANCE, GanData, gaussian_centres
from rpgan_landscape.data.images import stacked
from rpgan_landscape.data.points import NOISE, Points, class_cyclic, image_noise, stream
from rpgan_landscape.population import draw
from shared.errors import UserError


def made(dataset: str, **settings: Any) -> GanData:
    data = GanData(dataset, seed=settings.pop("seed", 0), **settings)
    data.setup("fit")
    return data


def test_two_clusters_are_those_of_the_populations() -> None:
    data, population = made("two_cluster", seed=5), draw([5])
    assert torch.equal(data.train.rows[:, 0], population.x[0])
    assert data.z is not None
    assert torch.equal(data.z[:, 0], population.z[0])
    assert data.z_test is not None
    assert torch.equal(data.z_test[:, 0], population.z_test[0])
    x = data.train.rows[:, 0]
    assert ((x[::2] >= 0) & (x[::2] < 0.3)).all()
    assert ((x[1::2] >= 4) & (x[1::2] < 4.3)).all()
    assert data.z.abs().max() <= 5


def test_fixed_pairs_never_change_and_shuffled_ones_do() -> None:
    fixed, shuffled = made("two_cluster"), made("two_cluster", pairing="batch")
    assert all(torch.equal(fixed.batch(k).x, fixed.batch(0).x) for k in range(3))
    assert all(torch.equal(fixed.batch(k).z, fixed.batch(0).z) for k in range(3))  # type: ignore[arg-type]
    first, second = shuffled.batch(0), shuffled.batch(1)
    assert not torch.equal(first.x, second.x)
    assert torch.equal(first.x.sort(0).values, second.x.sort(0).values)
    part = made("gaussians", pairing="fixed", batch_size=64)
    assert torch.equal(part.batch(0).x, part.train.rows[:64])
    assert torch.equal(part.batch(1).x, part.train.rows[64:128])
    assert part.z is not None
    assert torch.equal(part.batch(1).z, part.z[64:128])  # type: ignore[arg-type]


@pytest.mark.parametrize("modes", [2, 5, 25])
def test_gaussians(modes: int) -> None:
    data = made("gaussians", modes=modes)
    centres = gaussian_centres(modes)
    assert len(data.train) == 2000 * modes
    away = data.train.rows - centres.repeat(2000, 1)
    assert torch.allclose(away.T.cov(), VARIANCE * torch.eye(2), atol=1e-4)
    assert torch.cdist(centres, centres).fill_diagonal_(9).min() >= 1
    assert data.batch(0).x.shape == (128, 2)
    assert data.batch(0).z is None


def test_an_epoch_is_every_point_once_and_the_rest_is_dropped() -> None:
    data = made("gaussians", batch_size=3000)
    assert data.epoch_batches == 3
    seen = torch.cat([data.batch(k).x for k in range(3)])
    assert len(seen.unique(dim=0)) == 9000
    again = torch.cat([data.batch(k).x for k in range(3, 6)])
    assert not torch.equal(seen, again)
    whole = data.train.rows.unique(dim=0)
    assert len(torch.cat([whole, seen]).unique(dim=0)) == len(whole)  # all of them are points


def test_draws_are_the_next_batches() -> None:
    one, six = made("digits", batch_size=8), made("digits", batch_size=8, draws=6)
    stack = six.batch(1)
    assert stack.x.shape == (6, 8, 3, 32, 32)
    assert torch.equal(stack.labels[2], one.batch(8).labels)  # type: ignore[index,arg-type]


def test_a_resumed_stream_goes_on() -> None:
    first = made("digits", batch_size=8, iterations=5)
    whole = [batch.x for batch in first.train_dataloader()] + [batch.x for batch in first.train_dataloader()]
    half = made("digits", batch_size=8, iterations=5)
    list(half.train_dataloader())
    other = made("digits", batch_size=8, iterations=5)
    other.load_state_dict(half.state_dict())
    assert all(torch.equal(a.x, b) for a, b in zip(other.train_dataloader(), whole[5:]))
    with pytest.raises(UserError, match="the checkpoint was made with seed 0, this run has 1"):
        made("digits", batch_size=8, seed=1).load_state_dict(half.state_dict())


def test_images_are_scaled_and_noisy(toy_data: Path) -> None:
    plain, noisy = (made("cifar10", root=str(toy_data), batch_size=50, noise=n) for n in (False, True))
    a, b = plain.batch(0).x, noisy.batch(0).x
    assert (a.min(), a.max()) == (-1, 1)
    assert ((b - a) >= 0).all()
    assert (b - a).max() < NOISE + 1e-6
    assert (b - a).mean() == pytest.approx(NOISE / 2, rel=0.02)
    file = np.fromfile(toy_data / "cifar-10-batches-bin" / "data_batch_1.bin", np.uint8).reshape(-1, 3073)
    first = plain.train.x(torch.tensor([0]))[0]
    assert torch.allclose(first, torch.from_numpy(file[0, 1:].reshape(3, 32, 32)).float() / 127.5 - 1, atol=1e-6)
    draws = image_noise((4, 5), stream(0, "noise"))
    assert torch.equal(draws, image_noise((4, 5), stream(0, "noise")))
    assert not torch.equal(draws, image_noise((4, 5), stream(0, "noise", 1)))


def test_every_image_set_has_the_size_of_its_networks(toy_data: Path) -> None:
    for name, side in (("digits", 32), ("mnist", 32), ("stacked_mnist", 32), ("cifar10", 32), ("stl10", 48)):
        assert made(name, root=str(toy_data), batch_size=4).batch(0).x.shape == (4, 3, side, side)
    assert made("image_folder", root=str(toy_data / "tower"), batch_size=4).batch(0).x.shape == (4, 3, 256, 256)


def test_mnist_is_framed_and_grey(toy_data: Path) -> None:
    x = made("mnist", root=str(toy_data), noise=False).train.x(torch.arange(3))
    assert torch.equal(x[:, 0], x[:, 2])
    assert (x[:, :, :2] == -1).all()
    assert (x[:, :, :, 30:] == -1).all()


def test_stacks_read_their_digits() -> None:
    rows = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 2, 2).contiguous()
    points = stacked(Points(rows, torch.arange(10)), 500, 0, "test")
    assert points.labels is not None
    x = ((points.x(torch.arange(500)) + 1) * 127.5).round().long()[:, :, 0, 0]
    assert torch.equal(x @ torch.tensor([100, 10, 1]), points.labels)
    assert len(points.labels.unique()) > 300


def test_imbalanced_and_balanced(toy_data: Path) -> None:
    few = made("mnist", root=str(toy_data), classes=[5, 7], class_ratio=[0.2, 1.0])
    assert few.train.labels is not None
    counts = few.train.labels.bincount(minlength=10)
    assert (counts[7] / counts[5]).item() == pytest.approx(5, rel=0.1)
    assert counts.sum() == counts[5] + counts[7]
    assert few.test is not None
    assert few.test.labels is not None
    assert set(few.test.labels.tolist()) == {5, 7}
    order = class_cyclic(few.train.labels, stream(0, "order"))
    drawn = few.train.labels[order]
    assert (drawn[::2] == 5).all()
    assert (drawn[1::2] == 7).all()
    assert len(order[1::2].unique()) == counts[7]  # every one of the larger class, once
    even = made("mnist", root=str(toy_data), classes=[5, 7], class_ratio=[0.2, 1.0], balanced=True, batch_size=20)
    assert even.batch(0).labels.bincount().tolist()[5:] == [10, 0, 10]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dataset": "cifar"}, "unknown data set 'cifar': there are two_cluster, .*did you mean cifar10"),
        ({"dataset": "digits", "pairing": "random"}, "unknown pairing 'random'"),
        ({"dataset": "digits", "batch_size": 0}, "batch_size is 0"),
        ({"dataset": "digits", "batch_size": 10_000}, "batch_size is 10000: digits has"),
        ({"dataset": "gaussians", "modes": 7}, "gaussians of 7 modes: there are those of 2, 5 and 25"),
        ({"dataset": "gaussians", "size": 32}, "size is for images"),
        ({"dataset": "digits", "classes": []}, "classes is empty"),
        ({"dataset": "digits", "classes": [1, 1]}, "1 is named twice"),
        ({"dataset": "digits", "classes": [11]}, "digits has no class 11"),
        ({"dataset": "digits", "classes": [1, 2], "class_ratio": [0.5]}, "class_ratio has 1 entries for 2 classes"),
        ({"dataset": "digits", "classes": [1], "class_ratio": [0.0]}, "0.0 is not a part of a class"),
        ({"dataset": "digits", "class_ratio": [0.5]}, "class_ratio needs `classes`"),
        ({"dataset": "stl10", "classes": [1]}, "not of stl10"),
        ({"dataset": "two_cluster", "balanced": True}, "balanced batches are for shuffled"),
        ({"dataset": "image_folder"}, "image_folder needs `root`"),
    ],
)
def test_what_does_not_go_together_is_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        made(**settings)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files(tmp_path: Path, toy_data: Path) -> None:
    for name, says in (("mnist", "mnist is missing"), ("cifar10", "cifar10 is missing"), ("stl10", "stl10 is missing")):
        with pytest.raises(FileNotFoundError, match=says):
            made(name, root=str(tmp_path))
    (tmp_path / "stl10_binary").mkdir()
    for part in ("unlabeled", "test"):
        (tmp_path / "stl10_binary" / f"{part}_X.bin").write_bytes(b"x" * 5000)
    with pytest.raises(ValueError, match="is truncated or no binary STL-10 file"):
        made("stl10", root=str(tmp_path))
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for file in (toy_data / "cifar-10-batches-bin").iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_1\.bin"):
        made("cifar10", root=str(tmp_path))
    (tmp_path / "python" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "python" / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"pickle")
    with pytest.raises(UserError, match="binary"):
        made("cifar10", root=str(tmp_path / "python"))
