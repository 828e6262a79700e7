"""Receipts in the layout of SROIE, made up here: lines to words, questions, parts, and what is wrong with a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared.errors import UserError
from spatial_textvqa.data import receipts as R
from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.data.tensors import TensorSet
from spatial_textvqa.evaluation import answerable

ROWS = [
    "100,20,300,20,300,40,100,40,BIG, SHOP & CO",
    "100,60,200,60,200,80,100,80,DATE:",
    "300,60,400,60,400,80,300,80,25/12/2018 8:13 PM",
    "100,100,200,100,200,120,100,120,TOTAL",
    "300,100,360,100,360,120,300,120,9.00",
    "100,140,200,140,200,160,100,160,CASH",
    "300,140,360,140,360,160,300,160,10.00",
]
FIELDS = {"company": "BIG, SHOP & CO", "date": "25/12/2018", "address": "", "total": "9.00"}


def lay(folder: Path, count: int = 10) -> Path:
    (folder / "box").mkdir(parents=True)
    (folder / "key").mkdir()
    for number in range(count):
        (folder / "box" / f"{number:03}.csv").write_text("\n".join(ROWS) + "\n")
        (folder / "key" / f"{number:03}.json").write_text(json.dumps(FIELDS))
    return folder


def test_text_may_hold_commas_and_a_line_becomes_its_words(tmp_path: Path) -> None:
    lines = R.read_lines(lay(tmp_path) / "box" / "000.csv")
    assert lines[0].text == "BIG, SHOP & CO"
    words = R.words_of(lines[2])
    assert [word for word, _ in words] == ["25/12/2018", "8:13", "PM"]
    assert words[0][1] == pytest.approx((300, 60, 300 + 100 * 10 / 18, 80))
    assert words[2][1][2] == pytest.approx(400)


def test_questions_ask_for_fields_and_beside_labels(tmp_path: Path) -> None:
    samples = {s.question: s for s in R.read(lay(tmp_path), "test", 50)[: len(R.read(tmp_path, "test", 50)) // 2]}
    total = samples["what is the total to pay"]
    assert total.answers == ["9.00"] * 10
    assert [total.ocr_tokens[slot] for slot in total.target_ocr] == ["9.00"]
    assert "what is the address" not in samples  # the annotators found none
    right = samples["what is to the right of date"]
    assert right.answers[0] == "25/12/2018 8:13 PM"
    assert [right.ocr_tokens[slot] for slot in right.target_ocr] == ["25/12/2018", "8:13", "PM"]
    assert samples["what is below total"].answers[0] == "CASH"
    assert samples["what is above total"].answers[0] == "DATE:"
    assert "what is to the left of total" not in samples
    assert total.ocr_boxes.max() <= 1  # the image's size is that of what is on it
    assert total.image_size == (400, 160)
    assert {word for question in samples for word in question.split()} <= set(R.QUESTION_WORDS)


def test_lines_without_room_are_cut_whole_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = R.read(lay(tmp_path), "test", 5)
    assert samples[0].ocr_tokens == ["BIG,", "SHOP", "&", "CO", "DATE:"]
    assert "10 text lines had no room" in caplog.text  # five of each of two receipts


def test_a_receipt_is_in_one_part(tmp_path: Path) -> None:
    lay(tmp_path, 30)
    images = [{s.image_id for s in R.read(tmp_path, part)} for part in ("train", "val", "test")]
    assert [len(names) for names in images] == [21, 3, 6]
    assert not images[0] & images[1]
    assert not (images[0] | images[1]) & images[2]


def test_a_label_that_comes_twice_is_no_anchor() -> None:
    lines = [R.Line("TOTAL", (0, 0, 10, 10)), R.Line("TOTAL", (0, 20, 10, 30)), R.Line("9.00", (20, 0, 30, 10))]
    assert R.samples_of("x", lines, {}, 50) == ([], 0)


def test_beside_needs_lines_that_share_half_their_height() -> None:
    boxes = np.array([[0.1, 0.1, 0.2, 0.2], [0.3, 0.16, 0.4, 0.26], [0.5, 0.1, 0.6, 0.2], [0.95, 0.1, 1.0, 0.2]])
    assert R.beside(boxes, 0, "right") == 2
    assert R.beside(boxes, 0, "left") is None
    assert R.beside(boxes[[0, 3]], 0, "right") is None  # too far


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("box/004.csv", b"1,2,3,4,5,6,7,TOTAL\n", r"004\.csv, line 1: expected eight corner numbers and a text"),
        ("box/004.csv", b"1,2,3,4,5,6,7,nan,TOTAL\n", r"004\.csv, line 1: expected eight"),
        ("box/004.csv", b"\n1,2,3,4,5,6,7,x,TOTAL\n", r"004\.csv, line 2: expected eight"),
        ("box/004.csv", b"\xff\xfe", r"004\.csv: expected UTF-8"),
        ("key/004.json", b"{", r"004\.json: expected JSON"),
        ("key/004.json", b"[1]", r"004\.json: expected texts"),
        ("key/004.json", b'{"total": 9}', r"004\.json: expected texts"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_place(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (lay(tmp_path) / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        R.read(tmp_path, "test")


def test_missing_folders_say_where_they_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no box/ and key/"):
        R.read(tmp_path, "test")
    lay(tmp_path, 0)
    with pytest.raises(UserError, match="no receipt has both"):
        R.read(tmp_path, "test")


def test_the_fingerprint_follows_the_contents(tmp_path: Path) -> None:
    before = R.fingerprint(lay(tmp_path))
    (tmp_path / "key" / "003.json").write_text(json.dumps(FIELDS | {"total": "9.01"}))
    assert R.fingerprint(tmp_path) != before


def test_questions_whose_answer_was_cut_are_told_from_the_others(tmp_path: Path) -> None:
    """With room for five words the company is left, and what is above the date; the date and the total are not."""
    lay(tmp_path / "sroie")
    shares = []
    for room in (5, 50):
        data = TextVQAData("receipts", str(tmp_path / "sroie"), max_objects=0, max_ocr=room, question_length=8,
                           question="words", feature_width=1, steps=8)  # fmt: skip
        data.setup()
        by_kind = {data.test.kinds[kind]: kept for kind, kept in zip(data.test.kind.tolist(), said(data.test))}
        shares.append(answerable(data.test))
        assert by_kind["company"]
        assert by_kind["total"] == by_kind["date"] == (room == 50)
    assert shares == [1 / 2, 1.0]


def said(data: TensorSet) -> list[bool]:
    return [bool(answer.any()) for answer in data.batch(torch.arange(len(data)))["targets"]]


@pytest.mark.parametrize("most", [1, 5, 7, 11, 50])
def test_a_part_has_as_many_questions_as_were_asked_for_spread_evenly(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path / "sroie")
    options: dict[str, Any] = {"max_objects": 0, "question_length": 8, "question": "words", "feature_width": 1}
    whole = TextVQAData("receipts", str(tmp_path / "sroie"), test_samples=None, **options)
    part = TextVQAData("receipts", str(tmp_path / "sroie"), test_samples=most, **options)
    one = R.read(tmp_path / "sroie", "test")[0]
    monkeypatch.setattr(R, "read", lambda *_: [replace(one, image_id=str(n), sample_id=str(n)) for n in range(11)])
    for each in (whole, part):
        each.setup()
    assert len(whole.test) == 11
    assert len(part.test) == min(most, 11)


def test_the_readme_has_the_measured_ceiling() -> None:
    folder = Path(__file__).resolve().parent.parent
    measured = json.loads((folder / "benchmarks" / "bench.json").read_text())["receipts"]
    readme = " ".join((folder / "README.md").read_text().split())
    assert f"cuts {100 * measured['lines_cut']:.1f} % of their text lines" in readme
    assert f"{100 * measured['answerable_test_questions']:.1f} % of the test questions are still among" in readme
