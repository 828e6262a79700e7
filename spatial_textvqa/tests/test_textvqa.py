"""TextVQA and ST-VQA in their real formats, with fabricated contents: what fits, what does not, and what is wrong."""

import json
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared.errors import UserError
from spatial_textvqa.data.features import FeatureFolder, features_in, plain_pickle, read_object_array
from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.data.textvqa import QuestionsOnDisk, fingerprint, imdb_file, read_imdb
from spatial_textvqa.module import SpatialTextVQA

HEADER = {"creation_time": 0.0, "version": "0.5", "dataset_type": "train", "has_answer": True}
ROW: dict[str, Any] = {
    "question": "what is on the left sign?",
    "question_id": 7,
    "image_id": "a1",
    "answers": ["stop"] * 10,
    "image_height": 100,
    "image_width": 200,
    "google_ocr_tokens_filtered": ["stop", "main", "st"],
}


def on_disk(root: Path, workers: int = 0, **options: Any) -> TextVQAData:
    """The data set in `root`/textvqa, two questions a batch."""
    (root / "words.txt").write_text("<pad>\n<s>\n</s>\n<unk>\n")
    data = TextVQAData("textvqa", str(root), vocabulary=str(root / "words.txt"), feature_width=8, batch_size=2,
                       workers=workers, **options)  # fmt: skip
    data.setup()
    return data


def record(n: int, width: int = 8) -> dict[str, Any]:
    boxes = np.array([[10.0 * i, 10, 10 * i + 20, 30] for i in range(n)]).reshape(-1, 4)
    features = np.arange(n * width, dtype=np.float32).reshape(n, width)
    return {"features": features, "boxes": boxes, "image_h": 100, "image_w": 200}


def lay(folder: Path, rows: list[dict[str, Any]], ocr_rows: int = 3, kind: str = "npy") -> Path:
    (folder / "imdb").mkdir(parents=True)
    for part in ("train", "val", "test"):
        file = folder / "imdb" / f"imdb_{part}.{kind}"
        if kind == "npy":
            np.save(file, np.array([HEADER, *rows], dtype=object), allow_pickle=True)
        else:
            file.write_text(json.dumps({"data": rows}))
    for name, n in (("obj", 4), ("ocr", ocr_rows)):
        for image in {str(row.get("image_id", row.get("image_path"))).removesuffix(".jpg") for row in rows}:
            file = folder / "features" / name / f"{image}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **record(n))
    return folder


@pytest.mark.parametrize("kind", ["npy", "json"])
def test_a_question_with_its_features(tmp_path: Path, kind: str) -> None:
    data = QuestionsOnDisk(lay(tmp_path, [ROW, ROW | {"question_id": 8}], kind=kind), "textvqa", "train")
    assert len(data) == 2  # the header of an .npy is no question
    sample = data[1]
    assert sample.sample_id == "8"
    assert sample.image_id == "textvqa/a1"
    assert sample.ocr_tokens == ["stop", "main", "st"]
    assert sample.obj_boxes[1].tolist() == pytest.approx([0.05, 0.1, 0.15, 0.3])
    assert sample.ocr_features is not None
    assert sample.ocr_features.shape == (3, 8)
    assert sample.image_size == (200, 100)


def test_stvqa_has_image_paths_and_fewer_answers(tmp_path: Path) -> None:
    row = {k: v for k, v in ROW.items() if k != "image_id"} | {"image_path": "coco/a1.jpg", "answers": ["a", "b"]}
    sample = QuestionsOnDisk(lay(tmp_path, [row]), "stvqa", "val")[0]
    assert sample.image_id == "stvqa/coco/a1"
    assert sample.answers == ["a", "b"] * 5


def test_no_tokens_and_no_answers_are_fine(tmp_path: Path) -> None:
    row = {k: v for k, v in ROW.items() if k != "answers"} | {"google_ocr_tokens_filtered": []}
    data = QuestionsOnDisk(lay(tmp_path, [row]), "textvqa", "test")
    (tmp_path / "features/ocr/a1.npz").unlink()  # nothing to look at: not asked for
    assert data[0].ocr_tokens == data[0].answers == []


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_cut_and_does_not_fit_is_counted_and_said_once(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After the first pass, whichever process has read the samples."""
    lay(tmp_path / "textvqa", [ROW, ROW | {"question_id": 8}, ROW | {"google_ocr_tokens_filtered": []}], ocr_rows=2)
    data = on_disk(tmp_path, workers, max_objects=3)
    assert data.val[0].ocr_tokens == ["stop", "main"]
    loader = data.val_dataloader()
    assert "cut" not in next(iter(loader))
    for _ in range(2):
        assert len(list(loader)) == 2
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "3 samples had more objects than max_objects keeps: the rest was cut",
        "3 samples had a question longer than question_length: the rest was cut",
        "2 samples had fewer feature rows than OCR tokens: the rest was cut",
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": ""}, r"imdb_train\.npy, record 2: question is ''"),
        ({"question": None}, "record 2: question is None"),
        ({"image_id": ""}, "record 2: neither image_id nor image_path"),
        ({"answers": "stop"}, "record 2: answers has to be a list of texts"),
        ({"answers": [1]}, "record 2: answers has to be a list of texts"),
        ({"google_ocr_tokens_filtered": {"a": 1}}, "record 2: google_ocr_tokens_filtered has to be a list"),
        ({"google_ocr_tokens_filtered": None}, "record 2: google_ocr_tokens_filtered is missing: expected the list"),
        ({"answers": None}, "record 2: answers are missing: expected a list of at least one"),
        ({"answers": []}, "record 2: answers are missing: expected a list of at least one"),
        ({"question": "a \ud800"}, r"record 2: 'a \\ud800' has half of a surrogate pair"),
    ],
)
def test_a_wrong_record_says_which_and_why(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    changed = {key: value for key, value in (ROW | change).items() if value is not None or key == "question"}
    lay(tmp_path, [ROW, changed])
    with pytest.raises(UserError, match=says):
        read_imdb(imdb_file(tmp_path, "train"))


class Evil:
    def __reduce__(self) -> Any:
        return (subprocess.getoutput, ("true",))


def test_a_pickle_can_bring_no_code(tmp_path: Path) -> None:
    file = tmp_path / "imdb.npy"
    np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"imdb\.npy: not read, as it holds more than plain data \(subprocess"):
        read_object_array(file)
    with pytest.raises(UserError, match="damaged, or no pickle"):
        plain_pickle(b"abc", "x")
    assert plain_pickle(pickle.dumps({"a": np.float32(2), "b": np.ones(2)}), "x")["a"] == 2


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles_of_every_protocol_are_read(protocol: int) -> None:
    whole = {"features": np.arange(6, dtype=np.float32).reshape(2, 3), "image_h": np.int64(7), "tokens": ["a"]}
    read = plain_pickle(pickle.dumps(whole, protocol), "x")
    assert (read["features"] == whole["features"]).all()
    assert read["features"].dtype == np.float32
    assert (read["image_h"], read["tokens"]) == (7, ["a"])
    listed = np.array([HEADER, {"tokens": np.array(["stop"])}], dtype=object)
    assert plain_pickle(pickle.dumps(listed, protocol), "x")[1]["tokens"].tolist() == ["stop"]


@pytest.mark.parametrize("call", [("_codecs", "encode", ("abc", "zip")), ("_codecs", "decode", (b"abc", "utf-8"))])
def test_a_pickle_can_call_no_codec_but_latin1(call: tuple[str, str, tuple]) -> None:
    class Coded:
        def __reduce__(self) -> tuple:
            return getattr(__import__(call[0]), call[1]), call[2]

    with pytest.raises(UserError, match=r"no pickle|more than plain data"):
        plain_pickle(pickle.dumps(Coded(), 2), "x")


def test_files_that_are_no_imdb(tmp_path: Path) -> None:
    (tmp_path / "imdb").mkdir()
    with pytest.raises(UserError, match=r"has no \*train\*\.npy or \.json"):
        imdb_file(tmp_path, "train")
    for name in ("train.npy", "a_train.npy"):
        np.save(tmp_path / "imdb" / name, np.ones(3))
    with pytest.raises(UserError, match="has 2 files for train"):
        imdb_file(tmp_path, "train")
    with pytest.raises(UserError, match=r"train\.npy: expected a \.npy of records"):
        read_imdb(tmp_path / "imdb" / "train.npy")
    (tmp_path / "imdb" / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json: expected JSON"):
        read_imdb(tmp_path / "imdb" / "x.json")
    (tmp_path / "imdb" / "x.json").write_text("[1]")
    with pytest.raises(UserError, match=r"x\.json, record 0: expected a mapping"):
        read_imdb(tmp_path / "imdb" / "x.json")
    for name in ("folder.json", "folder.npy"):
        (tmp_path / "imdb" / name).mkdir()
        with pytest.raises(UserError, match=rf"{name}: Is a directory: expected a"):
            read_imdb(tmp_path / "imdb" / name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"boxes": np.zeros((2, 4))}, r"features \(3, 8\) and boxes \(2, 4\)"),
        ({"features": np.full((3, 8), np.nan)}, "features hold NaN"),
        ({"image_w": 0}, "image_w is 0"),
        ({"image_h": None}, "image_h is missing"),
    ],
)
def test_wrong_features_name_the_file(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    content = {k: v for k, v in (record(3) | change).items() if v is not None}
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=rf"a\.npz: {says}"):
        FeatureFolder(tmp_path)("a")


def test_features_that_are_missing_or_outside(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"b\.npz is missing: features of image b"):
        FeatureFolder(tmp_path)("b")
    with pytest.raises(UserError, match="leads out of"):
        FeatureFolder(tmp_path)("../b")
    (tmp_path / "c.npz").write_bytes(b"PK damaged")
    with pytest.raises(UserError, match=r"c\.npz: expected an \.npz"):
        FeatureFolder(tmp_path)("c")
    np.savez_compressed(tmp_path / "c.npz", **record(30))
    content = bytearray((tmp_path / "c.npz").read_bytes())
    content[200:260] = bytes(60)  # inside the deflated data
    for damaged in (bytes(content), b""):
        (tmp_path / "c.npz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"c\.npz: expected an \.npz"):
            FeatureFolder(tmp_path)("c")
    with (tmp_path / "c.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(UserError, match=r"c\.npz: expected an \.npz"):
        FeatureFolder(tmp_path)("c")
    with pytest.raises(UserError, match=r"neither .*obj/ with \.npz files nor obj\.lmdb"):
        features_in(tmp_path / "obj")


def test_an_lmdb_has_pickled_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the lmdb package, which is not among the tests' dependencies."""
    (tmp_path / "obj.lmdb").mkdir()
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="pip install lmdb"):
        features_in(tmp_path / "obj")

    class Transaction:
        def __enter__(self) -> "Transaction":
            return self

        def __exit__(self, *_: object) -> None: ...

        def get(self, key: bytes) -> bytes | None:
            return {b"a": pickle.dumps(record(3)), b"list": pickle.dumps([1])}.get(key)

    fake = types.ModuleType("lmdb")
    fake.open = lambda *_, **__: types.SimpleNamespace(begin=Transaction)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lmdb", fake)
    found = features_in(tmp_path / "obj")
    assert found("a").features.shape == (3, 8)
    with pytest.raises(UserError, match="no features of image b"):
        found("b")
    with pytest.raises(UserError, match="image list: expected a record"):
        found("list")


def test_the_fingerprint_follows_questions_and_features(tmp_path: Path) -> None:
    before = fingerprint(lay(tmp_path, [ROW]), "textvqa")
    np.savez(tmp_path / "features/obj/b.npz", **record(2))
    assert fingerprint(tmp_path, "textvqa") != before


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["file", "box"])
def test_a_bad_sample_is_one_line_in_whichever_process_it_was_read(tmp_path: Path, workers: int, damage: str) -> None:
    lay(tmp_path / "textvqa", [ROW])
    file = tmp_path / "textvqa/features/obj/a1.npz"
    np.savez(file, **(record(4) | {"boxes": np.full((4, 4), -500.0)}))
    if damage == "file":
        file.write_bytes(b"PK damaged")
    data = on_disk(tmp_path, workers)
    assert data.val_dataloader().persistent_workers == bool(workers)
    with pytest.raises(UserError, match={"file": r"a1\.npz: expected an \.npz", "box": "sample 7: box 0"}[damage]) as e:
        next(iter(data.val_dataloader()))
    assert "\n" not in str(e.value)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_run_on_files_ends_with_the_same_weights(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order and drawn answers hang on seed, epoch and question, not on the processes that read."""
    from shared.cli import train_and_test

    monkeypatch.setenv("WANDB_MODE", "offline")
    rows = [
        {"question": "what is left of total", "question_id": number, "image_id": f"i{number % 3}",
         "answers": ["stop main"] * 5 + ["main"] * 5, "google_ocr_tokens_filtered": ["stop", "main", "stop"]}
        for number in range(10)
    ]  # fmt: skip
    lay(tmp_path / "textvqa", rows)
    (tmp_path / "words.txt").write_text("<pad>\n<s>\n</s>\n<unk>\nstop\nmain\n")
    data = {"dataset": "textvqa", "root": str(tmp_path), "vocabulary": str(tmp_path / "words.txt"), "feature_width": 8,
            "steps": 3, "batch_size": 3, "workers": workers}  # fmt: skip
    model = {"dim": 24, "ffn": 24, "layers": "ns", "text_layers": 0, "init": "default", "lr": 3e-3, "drops": []}

    def trained(folder: Path, epochs: int) -> None:
        trainer = {"max_epochs": epochs, "accelerator": "cpu", "log_every_n_steps": 100}
        config = {"model": model, "data": data, "trainer": trainer}
        about = (folder, "spatial_textvqa", "x", "fit")
        train_and_test(SpatialTextVQA, TextVQAData, config, 0, *about, every_seconds=0)

    trained(tmp_path / "whole", 3)
    trained(tmp_path / "broken", 1)
    trained(tmp_path / "broken", 3)
    one, other = (torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("whole", "broken"))
    one, other = one["state_dict"], other["state_dict"]
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
