"""The data sets from each of their layouts; what is missing, mixed up or damaged is one line that says the fix."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared.data.cifar import CLASS_NAMES, read_cifar10
from shared.data.images import fingerprint, load_images
from shared.data.root import data_root
from shared.errors import UserError

RNG = np.random.default_rng(1)
X, Y = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20) % 10
XT, YT = RNG.integers(0, 256, (10, 28, 28), dtype=np.uint8), np.arange(10)[::-1].copy()
C, CT = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
NPZ = {"x_train": X, "y_train": Y, "x_test": XT, "y_test": YT}
RAW = {
    "train-images-idx3-ubyte": X,
    "train-labels-idx1-ubyte": Y,
    "t10k-images-idx3-ubyte": XT,
    "t10k-labels-idx1-ubyte": YT,
}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 2048 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_raw(root: Path, folder: str = "MNIST/raw", packed: bool = False, **instead: np.ndarray) -> Path:
    (root / folder).mkdir(parents=True)
    for name, array in RAW.items():
        content = idx(instead.get(name.replace("-", "_"), array))
        (root / folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return root / folder


def write_cifar(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    records = np.concatenate([Y[:, None].astype(np.uint8), C.transpose(0, 3, 1, 2).reshape(20, -1)], 1)
    for i in range(5):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(records[4 * i : 4 * i + 4].tobytes())
    test = np.concatenate([YT[:, None].astype(np.uint8), CT.transpose(0, 3, 1, 2).reshape(10, -1)], 1)
    (folder / "test_batch.bin").write_bytes(test.tobytes())
    return folder


def write_folders(folder: Path, names=tuple("0123456789"), numbered=False, parts=((X, Y), (XT, YT))) -> Path:
    for part, (images, labels) in zip(("train", "test"), parts):
        for i, (image, label) in enumerate(zip(images, labels)):
            file = folder / part / names[label] / (f"{i}.png" if numbered else f"image_{i}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return folder


def error_of(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_images(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_is_mnist(data) -> None:
    assert data.train_images.flags.writeable
    assert data.test_images.flags.writeable
    assert (data.kind, data.classes, data.scale) == ("real", 10, 255)
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int64
    assert np.array_equal(data.train_images, X[:, None])
    assert np.array_equal(data.train_labels, Y)
    assert np.array_equal(data.test_images, XT[:, None])
    assert np.array_equal(data.test_labels, YT)
    assert "20 training and 10 test images" in data.detail


# -- what is right ----------------------------------------------------------------------------------------------------


def test_digits_are_in_the_fixed_order_and_need_no_file(tmp_path):
    torch = pytest.importorskip("torch")
    from sklearn.datasets import load_digits

    data = load_images("digits", tmp_path)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(123)).numpy()
    assert (data.kind, data.scale, data.classes) == ("embedded", 16, 10)
    assert data.train_images.shape == (1297, 1, 8, 8)
    assert data.test_images.shape == (500, 1, 8, 8)
    assert data.train_images.max() == 16
    assert np.array_equal(data.train_images.reshape(1297, 64), images[order[:1297]])
    assert np.array_equal(data.test_labels, labels[order[-500:]])
    # Another order moves every error of the quick tier: the fingerprint below is of the order it was measured with.
    assert data.fingerprint == "f806acf3f1aee0d26ccb8d14649c069e4f26f4ef79cd8da47b0e3410ca88f052"


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")])
@pytest.mark.parametrize("packed", [False, True])
def test_original_layout(tmp_path, name, folder, packed):
    write_raw(tmp_path, folder, packed)
    assert_is_mnist(load_images(name, tmp_path))


def test_the_fingerprint_is_of_the_contents_not_of_the_layout(tmp_path):
    write_raw(tmp_path / "a")
    np.savez_compressed((tmp_path / "mnist.npz"), **NPZ)
    write_folders(tmp_path / "b" / "mnist", numbered=True)
    loaded = [load_images("mnist", root) for root in (tmp_path / "a", tmp_path, tmp_path / "b")]
    for data in loaded:
        assert_is_mnist(data)
    assert len({data.fingerprint for data in loaded}) == 1
    changed = X.copy()
    changed[3, 4, 5] ^= 1
    write_raw(tmp_path / "c", train_images_idx3_ubyte=changed)
    assert load_images("mnist", tmp_path / "c").fingerprint != loaded[0].fingerprint


def test_fingerprint_tells_shapes_and_neighbours_apart():
    a = np.arange(6, dtype=np.uint8)
    others = [fingerprint(a.reshape(2, 3)), fingerprint(a[:3], a[3:]), fingerprint(a.astype(np.int64))]
    assert len({fingerprint(a), *others}) == 4
    assert fingerprint(a.astype(">i8")) == fingerprint(a.astype("<i8"))


def test_the_original_layout_comes_first_and_an_incomplete_one_gives_way(tmp_path):
    raw = write_raw(tmp_path)
    np.savez(tmp_path / "mnist.npz", **{**NPZ, "y_train": (Y + 1) % 10})
    assert np.array_equal(load_images("mnist", tmp_path).train_labels, Y)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    assert np.array_equal(load_images("mnist", tmp_path).train_labels, (Y + 1) % 10)


def test_npz_of_whole_floats_and_column_labels(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=X[..., None] * 1.0, y_train=Y[:, None], x_test=XT, y_test=YT)
    assert_is_mnist(load_images("mnist", tmp_path))


def test_cifar10_is_channel_major_from_every_layout(tmp_path):
    write_cifar(tmp_path / "a")
    np.savez(tmp_path / "cifar10.npz", x_train=C, y_train=Y, x_test=CT, y_test=YT)
    write_folders(tmp_path / "b" / "cifar10", CLASS_NAMES, True, ((C, Y), (CT, YT)))
    for root in (tmp_path / "a", tmp_path, tmp_path / "b"):
        data = load_images("cifar10", root)
        assert np.array_equal(data.train_images, C.transpose(0, 3, 1, 2))
        assert np.array_equal(data.test_labels, YT)
        assert "not the original files" in data.detail


def test_class_folders_without_numbers_are_mixed_the_same_way_each_time(tmp_path):
    images, labels = np.repeat(X, 5, 0), np.repeat(Y, 5)
    write_folders(tmp_path / "mnist", parts=((images, labels), (XT, YT)))
    (tmp_path / "mnist/train/.DS_Store").write_text("left by a desktop")
    first, second = load_images("mnist", tmp_path), load_images("mnist", tmp_path)
    assert first.fingerprint == second.fingerprint
    assert len(set(first.train_labels[-20:].tolist())) >= 5  # sorted by class, these would be of two classes
    assert sorted(first.train_labels.tolist()) == sorted(labels.tolist())
    of = {image.tobytes(): label for image, label in zip(images, labels)}
    assert all(of[image.tobytes()] == label for image, label in zip(first.train_images, first.train_labels))


def test_data_root_is_the_environments_or_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    assert data_root() == tmp_path
    write_raw(tmp_path)
    assert_is_mnist(load_images("mnist"))
    monkeypatch.setenv("DATA_ROOT", "")
    assert data_root() == Path("data")


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_unknown_name():
    with pytest.raises(UserError, match=r"^unknown data set 'cifar': there are digits, .*did you mean cifar10\?$"):
        load_images("cifar")


def test_missing_data_say_what_where_and_how(tmp_path):
    message = error_of("mnist", tmp_path)
    for part in (
        "mnist is missing: no train-images-idx3-ubyte[.gz]",
        f"in {tmp_path}/MNIST/raw",
        f"{tmp_path}/mnist.npz",
        f"{tmp_path}/mnist/train/<class>/*.png",
        "run `make data`",
        "put the files there by hand from https://ossci-datasets.s3.amazonaws.com/mnist/ ",
        "t10k-labels-idx1-ubyte.gz SHA-256 f7ae60f92e00...",
    ):
        assert part in message
    (tmp_path / "cifar-10-batches-py").mkdir()
    message = error_of("cifar10", tmp_path)
    assert "no data_batch_1.bin, " in message
    assert "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd" in message
    assert f"{tmp_path}/cifar-10-batches-py holds pickles, which are never read" in message


def test_only_the_missing_file_is_named_with_its_whole_digest(tmp_path):
    (write_raw(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    message = error_of("mnist", tmp_path)
    assert "no t10k-labels-idx1-ubyte[.gz] in" in message
    assert "train-images" not in message
    assert "mnist/t10k-labels-idx1-ubyte.gz (" in message
    assert "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6" in message


def test_exchanged_images_and_labels(tmp_path):
    write_raw(tmp_path, train_images_idx3_ubyte=Y, train_labels_idx1_ubyte=X)
    assert "train-images-idx3-ubyte holds labels (IDX magic 2049)" in error_of("mnist", tmp_path)


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        ({"train_labels_idx1_ubyte": Y[:-1]}, "20 images but 19 labels: they do not belong together"),
        ({"t10k_labels_idx1_ubyte": YT + 1}, "label 10 of image 0 is outside 0..9: these are not the labels of mnist"),
        ({"train_images_idx3_ubyte": X[:, 1:]}, "wrong image size, 27 x 28 pixels where 28 x 28 are expected"),
    ],
    ids=["count", "label", "size"],
)
def test_files_that_do_not_go_together(tmp_path, instead, says):
    write_raw(tmp_path, **instead)
    message = error_of("mnist", tmp_path)
    assert says in message
    assert str(
        tmp_path / "MNIST/raw" / next(iter(instead)).replace("_", "-").replace("labels-idx1", "images-idx3")
    ) in (message)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b[:-1], "is truncated or no binary CIFAR-10 file: 12291 bytes are 3 records of 3073 bytes and 3072"),
        (lambda b: b + b"\0", "12293 bytes are 4 records of 3073 bytes and 1 bytes more"),
        (lambda b: b"", "0 bytes are 0 records"),
        (lambda b: b[: 2 * 3073] + b"\x0a" + b[2 * 3073 + 1 :], "label 10 of record 2 is outside 0..9"),
    ],
    ids=["short", "long", "empty", "label"],
)
def test_damaged_cifar10(tmp_path, change, says):
    file = write_cifar(tmp_path) / "data_batch_3.bin"
    file.write_bytes(change(file.read_bytes()))
    message = error_of("cifar10", tmp_path)
    assert message.startswith(str(file))
    assert says in message


def test_cifar10_with_a_file_gone(tmp_path):
    folder = write_cifar(tmp_path)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(UserError, match=r"test_batch.bin is missing: run `make data`, or put it there by hand$"):
        read_cifar10(folder)
    assert "cifar10 is missing: no test_batch.bin in" in error_of("cifar10", tmp_path)


HALF = X / 255.0
NAN = X * 1.0
NAN[2, 3, 4] = np.nan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_train": np.array([None] * 20)}, "x_train cannot be read without unpickling it (Object arrays"),
        ({"y_test": None}, "has no y_test: it needs the arrays x_train, y_train, x_test, y_test; it has x_train"),
        ({"x_train": NAN}, "x_train holds NaN or infinite values"),
        ({"x_test": np.full(XT.shape, np.inf)}, "x_test holds NaN or infinite values"),
        ({"x_train": HALF}, "x_train holds float64 values in 0..1 that are no whole numbers in 0..255: scale it"),
        ({"x_train": X.astype(int) + 1}, "x_train holds int64 values in 1..256 that are no whole numbers in 0..255"),
        ({"x_train": X.astype(str)}, "x_train is of type <U3: save it as an array of uint8"),
        ({"x_test": XT[:, :27]}, "wrong image size, x_test is 10 x 27 x 28 where n x 28 x 28 is expected"),
        ({"y_train": np.eye(10)[Y]}, "y_train is 20 x 10 where one label per image (n) is expected"),
        ({"y_train": Y[1:]}, "mnist.npz (training part): 20 images but 19 labels"),
        ({"y_test": YT + 5}, "mnist.npz (test part): label 14 of image 0 is outside 0..9"),
        ({"y_test": YT - 5}, "mnist.npz (test part): label -1 of image 5 is outside 0..9"),
        ({"x_test": XT[:0], "y_test": YT[:0]}, "mnist.npz (test part): no images"),
    ],
    ids=range(13),
)
def test_npz_that_is_wrong(tmp_path, change, says):
    arrays = {key: value for key, value in {**NPZ, **change}.items() if value is not None}
    np.savez(tmp_path / "mnist.npz", **arrays)
    message = error_of("mnist", tmp_path)
    assert message.startswith(str(tmp_path / "mnist.npz"))
    assert says in message


def test_npz_that_is_damaged_or_something_else(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, **NPZ)
    whole = path.read_bytes()
    plain = tmp_path / "plain.npy"
    np.save(plain, X)
    flipped = bytearray(whole)
    flipped[2000] ^= 1
    pickled = b"\x80\x04]q\x00."
    for content in (whole[:-300], whole[:1000], b"", b"text", plain.read_bytes(), bytes(flipped), pickled):
        path.write_bytes(content)
        assert "mnist.npz is damaged or no .npz archive" in error_of("mnist", tmp_path)


def test_wrong_class_folders(tmp_path):
    folder = write_folders(tmp_path / "mnist")
    stranger = folder / "train" / "cat"
    stranger.mkdir()
    assert f"{stranger} is no known class folder: the classes are 0, 1" in error_of("mnist", tmp_path)
    stranger.rmdir()
    (folder / "train" / "10").mkdir()
    assert "train/10 is no known class folder" in error_of("mnist", tmp_path)
    (folder / "train" / "10").rmdir()
    (folder / "train" / "list.txt").write_text("x")
    assert "train/list.txt is no known class folder" in error_of("mnist", tmp_path)
    (folder / "train" / "list.txt").unlink()
    note = folder / "train" / "3" / "notes.txt"
    note.write_text("x")
    assert f"{note} is no image (.bmp, .jpeg, .jpg, .png): move it out" in error_of("mnist", tmp_path)
    note.unlink()
    (folder / "test" / "4").rename(folder / "test" / ".4")
    assert "has no folder for the class 4" in error_of("mnist", tmp_path)
    (folder / "test" / "4").mkdir()
    assert "test/4 has no image in it" in error_of("mnist", tmp_path)
    (folder / "test").rename(folder / "testing")
    assert f"{folder / 'test'} is missing: the class folders 0 to 9 are expected" in error_of("mnist", tmp_path)


def test_one_class_under_two_names(tmp_path):
    folder = write_folders(tmp_path / "cifar10", CLASS_NAMES, True, ((C, Y), (CT, YT)))
    (folder / "train" / "3").mkdir()
    Image.fromarray(C[0]).save(folder / "train" / "3" / "99.png")
    assert f"{folder}/train/cat and {folder}/train/3 are the same class" in error_of("cifar10", tmp_path)


def test_wrong_images_in_class_folders(tmp_path):
    folder = write_folders(tmp_path / "mnist")
    file = folder / "train" / "3" / "image_3.png"
    whole = file.read_bytes()
    Image.fromarray(X[3, 1:]).save(file)
    assert f"{file}: wrong image size, 28 x 27 pixels where 28 x 28 are expected" in error_of("mnist", tmp_path)
    Image.fromarray(X[3].astype(np.uint16) * 257).save(file)
    assert f"{file}: pixel format I;16, 8 bits grey or RGB are expected" in error_of("mnist", tmp_path)
    file.write_bytes(b"no picture")
    assert f"{file} is damaged or no image: replace it" in error_of("mnist", tmp_path)
    file.write_bytes(whole[: len(whole) // 2])
    assert f"{file} is damaged (" in error_of("mnist", tmp_path)
