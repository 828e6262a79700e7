"""One's own data: what is right is read, what is wrong is said with line and question, statistics by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shared.errors import UserError

from spatial_textvqa import custom

EXIT = {"text": "EXIT", "box": [10, 20, 60, 35]}
OPEN = {"text": "open", "box": [70, 20, 95, 35]}
ROW: dict[str, Any] = {
    "question_id": 1, "image_id": "street", "question": "What is left of the door?", "answers": ["exit"], "width": 100,
    "height": 50, "ocr": [EXIT, OPEN], "objects": [{"box": [0, 0, 65, 50], "label": "sign"}],
}  # fmt: skip


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "data.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return path


def test_a_data_file_is_read(tmp_path: Path) -> None:
    one, two = custom.read_questions(written(tmp_path, ROW, ROW | {"question_id": "b", "answers": []}))
    assert (one.question_id, one.image_id, one.question, one.answers) == ("1", "street", ROW["question"], ("exit",))
    assert [word.text for word in one.picture.words] == ["EXIT", "open"]
    assert one.picture.objects[0].label == "sign"
    assert (two.question_id, two.answers) == ("b", ())


SECOND = ROW | {"question_id": 2}
WRONG: dict[str, tuple[Any, str]] = {
    "not json": ("{", "line 2: not json"),
    "no object": ("[]", "line 2: expected an object with"),
    "no id": (ROW | {"question_id": True}, "line 2: question_id is True"),
    "no image": (SECOND | {"image_id": ""}, "line 2 (question 2): image_id is ''"),
    "misspelt key": (SECOND | {"anwsers": []}, "line 2 (question 2): unknown key 'anwsers'"),
    "nothing asked": (SECOND | {"question": " "}, "line 2 (question 2): the question is ' '"),
    "half a pair": (SECOND | {"question": "\ud800?"}, "line 2, question: '\\ud800?' has half of a surrogate pair"),
    "a long question": (SECOND | {"question": "w " * 900}, "line 2 (question 2): the question has 1800 ch"),
    "no ocr": ({k: v for k, v in SECOND.items() if k != "ocr"}, "line 2 (question 2): 'ocr' is missing"),
    "answers": (SECOND | {"answers": "exit"}, "line 2 (question 2): `answers` has to be a list"),
    "ocr": (SECOND | {"ocr": {}}, "line 2 (question 2): found {}: expected a list of"),
    "nan": (SECOND | {"ocr": [{"text": "A", "box": [float("nan"), 1, 2, 3]}]},
            "line 2 (question 2), word 0 ('A'): box [nan, 1, 2, 3] has a coordinate that is not finite"),
    "size": (SECOND | {"width": -1}, "line 2 (question 2): the image size is -1 x 50"),
    "twice": (ROW, "line 2: question_id '1' is that of line 1"),
    "another graph": (SECOND | {"ocr": [OPEN, EXIT]}, "one image has one graph"),
    "out of the folder": (SECOND | {"features": "../f.npz"}, "(question 2): '../f.npz' leads out of"),
    "no features": (SECOND | {"features": "none.npz"}, "none.npz: no such feature file"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, what: str) -> None:
    row, message = WRONG[what]
    path = written(tmp_path, ROW, row, ROW | {"question_id": 3})
    checked = custom.validate(path)
    assert [q.question_id for q in checked.questions] == ["1", "3"]
    assert len(checked.wrong) == 1
    assert checked.wrong[0].startswith(f"{path}, line 2")
    assert message in checked.wrong[0]
    assert "\n" not in checked.wrong[0]
    with pytest.raises(UserError, match=r", line 2"):
        custom.read_questions(path)


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="empty, expected json-lines"):
        custom.read_questions(written(tmp_path))


def test_features_have_a_row_for_each_box(tmp_path: Path) -> None:
    objects, words = np.ones((1, 8), np.float32), np.zeros((2, 8), np.float32)
    np.savez(tmp_path / "f.npz", object_features=objects, ocr_features=words)
    (question,) = custom.read_questions(written(tmp_path, ROW | {"features": "f.npz"}))
    np.testing.assert_array_equal(question.picture.object_features, objects)
    np.testing.assert_array_equal(question.picture.word_features, words)
    np.savez(tmp_path / "f.npz", object_features=objects, ocr_features=words[:1])
    with pytest.raises(UserError, match=r"ocr_features is \(1, 8\): expected \(2, F\)"):
        custom.read_questions(written(tmp_path, ROW | {"features": "f.npz"}))
    with (tmp_path / "f.npz").open("wb") as file:
        np.save(file, objects)
    for content in (b"", (tmp_path / "f.npz").read_bytes()):
        (tmp_path / "f.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"line 1 .*f\.npz: expected an npz with object_features"):
            custom.read_questions(written(tmp_path, ROW | {"features": "f.npz"}))
    np.savez(tmp_path / "f.npz", object_features=np.array([{}], dtype=object), ocr_features=words)
    with pytest.raises(UserError, match="expected an npz with object_features"):  # a pickle is never loaded
        custom.read_questions(written(tmp_path, ROW | {"features": "f.npz"}))


def test_conversion_gives_what_the_reader_takes(tmp_path: Path) -> None:
    for folder in ("ocr", "objects", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ocr/street.json").write_text(json.dumps([EXIT]))
    (tmp_path / "objects/street.json").write_text(json.dumps([{"box": [0, 0, 65, 50], "label": "sign"}]))
    Image.new("RGB", (100, 50)).save(tmp_path / "images/street.png")
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"image_id": "street", "question": "what is written?", "answers": ["exit", "Exit"]}))
    out = tmp_path / "out.jsonl"
    folders = tmp_path / "ocr", out, tmp_path / "objects"
    assert custom.convert(asked, *folders, tmp_path / "images") == 1
    (question,) = custom.read_questions(out)
    assert (question.question_id, question.answers) == ("1", ("exit", "Exit"))
    assert question.picture.width == 100
    assert question.picture.words[0].box == (10.0, 20.0, 60.0, 35.0)
    assert question.picture.objects[0].label == "sign"
    with pytest.raises(UserError, match="does not say the image's size"):
        custom.convert(asked, *folders)
    asked.write_text(json.dumps({"image_id": "../street", "question": "what?"}))
    with pytest.raises(UserError, match=r"'\.\./street\.json' leads out of"):
        custom.convert(asked, *folders)
    asked.write_text(json.dumps({"image_id": "park", "question": "what?"}))
    with pytest.raises(UserError, match=r"asked.jsonl, line 1: neither park.json nor park.tsv lies in"):
        custom.convert(asked, *folders)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"answers": "exit"}], "asked.jsonl, line 1 .*`answers` has to be a list of texts"),
        ([{"answers": [1]}], "asked.jsonl, line 1 .*`answers` has to be a list of texts"),
        ([{"question_id": "q"}, {"question_id": "q"}], "asked.jsonl, line 2: question_id 'q' is that of line 1"),
        ([{}, {"question_id": "1"}], "asked.jsonl, line 2: question_id '1' is that of line 1"),
    ],
)
def test_what_conversion_would_not_read_again_is_not_written(tmp_path: Path, rows: list[dict], says: str) -> None:
    (tmp_path / "street.json").write_text(json.dumps({"width": 100, "height": 50, "ocr": [EXIT]}))
    asked = tmp_path / "asked.jsonl"
    asked.write_text("\n".join(json.dumps({"image_id": "street", "question": "what?"} | row) for row in rows))
    with pytest.raises(UserError, match=says):
        custom.convert(asked, tmp_path, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_conversion_says_what_was_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blank = {"text": " ", "box": [1, 2, 3, 4]}
    (tmp_path / "street.json").write_text(json.dumps({"width": 100, "height": 50, "ocr": [EXIT, blank]}))
    asked = tmp_path / "asked.jsonl"
    line = json.dumps({"image_id": "street", "question": "what?"})
    asked.write_text(f"{line}\n{line}")
    assert custom.convert(asked, tmp_path, tmp_path / "out.jsonl") == 2
    assert caplog.text.count("street.json: 1 of 2 words are blank or padding, and left out") == 1


def test_statistics_by_hand(tmp_path: Path) -> None:
    other = {"image_id": "park", "ocr": [], "objects": [], "question": "what brand is it"}
    long = SECOND | {"question": "w " * 21, "answers": ["open exit"]}
    blank = ROW | other
    rows = [ROW, long, blank | {"question_id": 3, "answers": ["yes"]}, blank | {"question_id": 4, "answers": []}]
    found = custom.statistics(custom.read_questions(written(tmp_path, *rows)))
    assert (found["questions"], found["images"], found["answered"]) == (4, 2, 3)
    assert found["spatial"] == 1 / 4
    assert found["OCR-answerable"] == 2 / 3
    assert found["questions over 20 words"] == 1
    assert found["images without text"] == 1
    # EXIT lies in the sign, open to the right of both: every pair is near, so two edges each; none without entities
    assert found["mean degree"] == found["mean degree of all"] == 1.0
    level = [{"text": text, "box": [x, 20, x + 10, 30]} for text, x in (("a", 60), ("b", 20))]
    pair = ROW | {"image_id": "pair", "ocr": level, "objects": [], "answers": []}
    found = custom.statistics(custom.read_questions(written(tmp_path, pair, blank | {"question_id": 2})))
    # a is right of b at the very same height: 3 in the official mode, 11 in the clean one; none of the other image
    assert found["pairs that differ between the modes, an image"] == 1 / 2


def test_statistics_of_questions_alone(tmp_path: Path) -> None:
    rows = [
        {"question_id": "a", "text": "what is on top?\nOCR tokens: A, B, C\nAnswer."},
        {"question_id": "b", "text": "who?"},
    ]
    found = custom.question_only_statistics(written(tmp_path, *rows))
    assert (found["spatial questions"], found["spatial"], found["questions without text"]) == (1, 0.5, 1)
    assert found["words an image, median"] == 1.5
