"""Images: values and coordinates, the real formats, and what is said of files that are damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_fields.data import FieldSet, load, pixel_grid
from diffusion_fields.data.images import SphereImageSource, read_folder
from diffusion_fields.errors import FieldError
from PIL import Image
from shared.data.root import DamagedData, MissingData
from sklearn.datasets import load_digits
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pixel_grid_is_x_then_y_row_by_row() -> None:
    grid = pixel_grid(2, 4).reshape(2, 4, 2)
    assert grid[0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]  # x along columns
    assert grid[:, 0, 1].tolist() == [-0.5, 0.5]  # y along rows
    corner = pixel_grid(3, 5, "corner")
    assert corner[0].tolist() == [-1, -1]
    assert corner[-1].tolist() == [1, 1]
    assert corner[1].tolist() == [-0.5, -1]
    fine = pixel_grid(16, 16).reshape(8, 2, 8, 2, 2).mean((1, 3)).reshape(-1, 2)
    assert torch.allclose(fine, pixel_grid(8, 8))  # a finer grid covers the same domain
    for bad, message in (((0, 3), "height is 0"), ((3, 3, "middle"), "placement is 'middle'")):
        with pytest.raises(FieldError, match=message):
            pixel_grid(*bad)
    with pytest.raises(FieldError, match="width is 1: it has to be at least 2"):
        pixel_grid(2, 1, "corner")


def test_digits_are_scikit_learns() -> None:
    data = load("digits")
    assert (data.train.size, data.test.size) == (1297, 500)
    batch = data.train(torch.arange(1297), generator())
    assert batch.signal.shape == (1297, 64, 1)
    assert batch.signal.min() == -1
    assert batch.signal.max() == 1
    rest = data.test(torch.arange(500), generator())
    ours = torch.cat([batch.signal, rest.signal])[..., 0].add(1).mul(8)
    theirs = load_digits().data
    assert np.array_equal(np.sort(ours.numpy().astype(int).tolist(), 0), np.sort(theirs.astype(int).tolist(), 0))
    assert batch.label is not None
    assert batch.label[:1297].unique().tolist() == list(range(10))
    assert torch.equal(data.denormalise(batch.signal), ours[:1297, :, None] / 16)
    assert data.denormalise(torch.full((1, 1, 1), 3.0)) == 1  # cut
    assert (data.kind, data.size, data.bounded) == ("embedded", (8, 8), True)
    assert "scikit-learn" in data.detail
    assert batch.coords.shape == (64, 2)


def test_a_signal_is_at_its_pixels_place() -> None:
    data = load("digits")
    image = data.train.images[5, 0]  # type: ignore[attr-defined]
    batch = data.train(torch.tensor([5]), generator())
    for (x, y), value in zip(batch.coords.tolist(), batch.signal[0, :, 0].tolist(), strict=True):
        assert value == image[round((y + 1) * 4 - 0.5), round((x + 1) * 4 - 0.5)] / 8 - 1


@pytest.mark.parametrize(("name", "channels"), [("mnist", 1), ("fashion", 1), ("cifar10", 3)])
def test_original_files(toy_data: Path, name: str, channels: int) -> None:
    data = load(name, toy_data)
    side = 32 if channels == 3 else 28
    assert data.signal_dim == channels
    assert data.num_points == side**2
    assert data.kind == "real"
    batch = data.train(torch.tensor([3]), generator())
    if name == "cifar10":  # channel-first records
        raw = np.fromfile(toy_data / "cifar-10-batches-bin" / "data_batch_1.bin", np.uint8).reshape(-1, 3073)[3]
        expected = raw[1:].reshape(3, -1).T / 127.5 - 1
    else:
        folder = {"mnist": "MNIST", "fashion": "FashionMNIST"}[name]
        raw = np.fromfile(toy_data / folder / "raw" / "train-images-idx3-ubyte", np.uint8)[16:]
        expected = raw.reshape(-1, 784, 1)[3] / 127.5 - 1
    assert np.abs(batch.signal[0].numpy() - expected).max() < 1e-6
    assert batch.label is not None
    assert batch.label.tolist() == [3]


def copied(toy_data: Path, tmp_path: Path, folder: str) -> Path:
    shutil.copytree(toy_data / folder, tmp_path / folder)
    return tmp_path / folder


def test_damaged_files_are_named(toy_data: Path, tmp_path: Path) -> None:
    images = copied(toy_data, tmp_path, "MNIST") / "raw" / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    images.write_bytes(b"\0\0\x08\x01" + whole[4:])
    with pytest.raises(DamagedData, match=r"train-images-idx3-ubyte.*2051"):
        load("mnist", tmp_path)
    images.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte"):
        load("mnist", tmp_path)
    images.unlink()
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        load("mnist", tmp_path)
    batch = copied(toy_data, tmp_path, "cifar-10-batches-bin") / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DamagedData, match=r"data_batch_2.bin"):
        load("cifar10", tmp_path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(MissingData, match="holds pickles, which are never read"):
        load("cifar10", tmp_path)


def test_missing_data_are_never_replaced(tmp_path: Path) -> None:
    for name in ("mnist", "fashion", "cifar10", "voxels", "meshes", "planet_topography", "latlon_grid"):
        with pytest.raises(MissingData, match="is missing"):
            load(name, tmp_path / "nothing")
    with pytest.raises(MissingData, match="a folder of images"):
        load("image_folder", tmp_path / "nothing")
    with pytest.raises(FieldError, match="image_folder needs `root`"):
        load("image_folder")


def test_image_folder_is_resized_by_area(toy_data: Path, tmp_path: Path) -> None:
    data = load("image_folder", toy_data / "faces", resolution=8, test_fraction=0.25)
    assert (data.train.size, data.test.size) == (15, 5)
    assert data.train(torch.tensor([0]), generator()).label is None
    pixels = np.random.default_rng(1).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    expected = pixels[:, 4:12].reshape(4, 2, 4, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(read_folder(tmp_path, 4)[0] - expected).max() <= 1  # Pillow rounds after each of two passes


def test_damaged_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="has no image in it"):
        load("image_folder", tmp_path)
    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(FieldError, match=r"test_fraction 0\.1 of 1 fields leaves no field"):
        load("image_folder", tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(DamagedData, match=r"b\.png is damaged"):
        load("image_folder", tmp_path)
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(DamagedData, match=r"b\.png is damaged or no image"):
        load("image_folder", tmp_path)


def bilinear(image: Tensor, x: float, y: float) -> float:
    h, w = image.shape
    column, row = (min(max((v + 1) * n / 2 - 0.5, 0), n - 1) for v, n in ((x, w), (y, h)))
    i, j = min(int(row), h - 2), min(int(column), w - 2)
    a, b = row - i, column - j
    corners = image[i : i + 2, j : j + 2]
    return float((corners * torch.tensor([[(1 - a) * (1 - b), (1 - a) * b], [a * (1 - b), a * b]])).sum())


def test_jitter_reads_the_image_where_the_coordinates_went() -> None:
    data = load("digits", jitter=1.0)
    batch = data.train(torch.tensor([3, 9]), generator())
    assert data.shared_coords is not None
    moved = (batch.coords - data.shared_coords).abs().max()
    assert 0.1 < moved <= 0.125  # half a pixel
    for row, number in enumerate((3, 9)):
        image = data.train.images[number, 0].float() / 8 - 1  # type: ignore[attr-defined]
        for (x, y), value in zip(batch.coords.tolist(), batch.signal[row, :, 0].tolist(), strict=True):
            assert abs(value - bilinear(image, x, y)) < 1e-5
    assert not torch.equal(batch.coords, data.train(torch.tensor([3]), generator(1)).coords)
    assert torch.equal(data.test(torch.tensor([3]), generator()).coords, data.shared_coords)
    corner = load("digits", jitter=1e-4, placement="corner")
    still = load("digits", placement="corner").train(torch.tensor([3]), generator())
    assert (corner.train(torch.tensor([3]), generator()).signal - still.signal).abs().max() < 1e-3


def test_resolution_resizes() -> None:
    data, small = load("digits"), load("digits", resolution=4)
    assert small.size == (4, 4)
    images = data.train.images[:5, 0].float()  # type: ignore[attr-defined]
    expected = images.reshape(5, 4, 2, 4, 2).mean((2, 4)).round()
    assert torch.equal(small.train.images[:5, 0].float(), expected)  # type: ignore[attr-defined]
    assert load("digits", resolution=16).num_points == 256


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"placement": "edge"}, "placement is 'edge': it has to be centre or corner"),
        ("digits", {"jitter": 2.0}, "jitter is 2.0: it has to be at most 1"),
        ("digits", {"resolution": 0}, "resolution is 0: it has to be at least 1"),
        ("sphere_digits", {"projection": "polar"}, "projection is 'polar': it has to be gnomonic or equirectangular"),
        ("sphere_digits", {"extent": 200.0}, "extent is 200.0: it has to be between 0 and 180 degrees"),
    ],
)
def test_what_cannot_be_is_said(name: str, options: dict, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        load(name, **options)


@pytest.mark.parametrize("projection", ["gnomonic", "equirectangular"])
def test_digits_on_the_sphere_move_with_the_rotation(projection: str) -> None:
    data = load("sphere_digits", projection=projection, points=2000, extent=100.0)
    source = data.train
    assert isinstance(source, SphereImageSource)
    index = torch.tensor([0, 1])
    still = source.placed(index, torch.eye(3).expand(2, 3, 3))
    outside = source.coords[:, 2] <= 0 if projection == "gnomonic" else source.coords[:, 0] <= 0
    assert (still.signal[:, outside] == -1).all()
    assert (still.signal[:, ~outside] > -0.5).any(1).all()
    # The middle of the image: the four pixels about it at (0, 0).
    middle = torch.tensor([[0.0, 0.0, 1.0] if projection == "gnomonic" else [1.0, 0.0, 0.0]])
    image = source.images[0, 0].float() / 8 - 1
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator()))[0]
    turn = turn * torch.linalg.det(turn)
    moved = SphereImageSource(source.images, source.labels, middle @ turn.T, 16.0, source.projection, source.extent)
    value = moved.placed(index[:1], turn[None]).signal[0, 0, 0]
    assert abs(value - image[3:5, 3:5].mean()) < 1e-4
    # A right neighbour of the middle is in the right half of the image, an upper one in the upper half.
    right, up = ([0.2, 0, 1.0], [0, -0.2, 1.0]) if projection == "gnomonic" else ([1.0, 0.2, 0], [1.0, 0, 0.2])
    spots = torch.nn.functional.normalize(torch.tensor([right, up]), dim=1)
    near = SphereImageSource(source.images, source.labels, spots, 16.0, source.projection, source.extent)
    values = near.placed(index[:1], torch.eye(3)[None]).signal[0, :, 0]
    shift = 0.2 / np.tan(np.deg2rad(50)) if projection == "gnomonic" else np.arctan(0.2) / np.deg2rad(50)
    assert abs(values[0] - bilinear(image, shift, 0)) < 1e-4
    assert abs(values[1] - bilinear(image, 0, -shift)) < 1e-4


def test_digits_on_the_sphere_are_turned_at_random() -> None:
    data = load("sphere_digits", points=300)
    index = torch.zeros(200, dtype=torch.long)
    first = data.train(index, generator())
    assert torch.equal(first.signal, data.train(index, generator()).signal)
    weight = first.signal[..., 0] + 1
    centres = torch.nn.functional.normalize(weight @ first.coords, dim=1)
    assert centres.mean(0).norm() < 0.2  # everywhere on the sphere: 1/sqrt(200) = 0.07 a standard error


def test_same_files_same_set(toy_data: Path) -> None:
    sets: list[FieldSet] = [load("mnist", toy_data) for _ in range(2)]
    assert sets[0].fingerprint == sets[1].fingerprint != load("fashion", toy_data).fingerprint
