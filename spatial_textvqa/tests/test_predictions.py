"""Prediction files in both forms, and their scores by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from shared.errors import UserError
from spatial_textvqa.predictions import Gold, Prediction, read_gold, read_predictions, score, write_predictions

SAID = [Prediction("7", "exit sign", "street", ("OCR", "VOCAB")), Prediction("q8", "", "park")]
GOLD = [
    Gold("7", "what is left of it?", ("exit sign",) * 2 + ("no",) * 8, ("EXIT", "sign")),
    Gold("q8", "what brand?", ("nokia",) * 10, ("samsung",)),
    Gold("9", "what is right of it?", ("open",) * 10, ("open",)),
]


def test_the_form_of_evalai(tmp_path: Path) -> None:
    write_predictions(SAID, tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == [
        {"question_id": 7, "image_id": "street", "answer": "exit sign", "pred_source": ["OCR", "VOCAB"]},
        {"question_id": "q8", "image_id": "park", "answer": "", "pred_source": []},
    ]
    assert list(read_predictions(tmp_path / "p.json").values()) == SAID


def test_the_form_of_rrc(tmp_path: Path) -> None:
    write_predictions(SAID, tmp_path / "p.json", "rrc")
    assert json.loads((tmp_path / "p.json").read_text()) == [
        {"question_id": 7, "answer": "exit sign"}, {"question_id": "q8", "answer": ""},
    ]  # fmt: skip


def test_scores_by_hand() -> None:
    found = score({said.question_id: said for said in SAID} | {"x": Prediction("x", "a")}, GOLD)
    # two of ten said it: 2 (1/3) + 8 (2/3) over 10 = 0.6; one of three questions is right at all
    assert found.by_subset["all"]["TextVQA accuracy"] == pytest.approx(0.6 / 3)
    assert found.by_subset["all"]["ST-VQA accuracy"] == found.by_subset["all"]["ANLS"] == pytest.approx(1 / 3)
    assert found.by_subset["spatial"]["ST-VQA accuracy"] == 0.5
    assert found.by_subset["OCR-answerable"]["TextVQA accuracy"] == pytest.approx(0.3)
    assert found.counts == {"all": 3, "spatial": 2, "OCR-answerable": 2, "spatial and OCR-answerable": 2}
    assert (found.missing, found.unasked) == (1, 1)


def test_without_tokens_there_is_no_subset_of_them_and_no_question_gives_no_number() -> None:
    found = score({"q8": SAID[1]}, [Gold("q8", "what brand?", ("nokia",))])
    assert list(found.by_subset) == ["all", "spatial"]
    assert math.isnan(found.by_subset["spatial"]["ANLS"])


def test_one_answer_counts_as_ten() -> None:
    found = score({"1": Prediction("1", "Nokia")}, [Gold("1", "what brand?", ("nokia",), ("nokia",))])
    assert found.by_subset["OCR-answerable"]["TextVQA accuracy"] == 1.0


def test_an_answer_that_is_missing_is_wrong_where_an_empty_one_would_be_right() -> None:
    gold = [Gold("1", "what?", ("a",) * 10), Gold("2", "what?", ("b",) * 10)]
    assert score({"2": Prediction("2", "b")}, gold).by_subset["all"]["TextVQA accuracy"] == 0.5


def test_predictions_about_other_questions() -> None:
    with pytest.raises(UserError, match="compare the question_ids"):
        score({"x": Prediction("x", "a")}, GOLD)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "expected a list of"),
        ([{"question_id": 1}], "prediction 0: expected an object with question_id and a text"),
        ([{"question_id": 1, "answer": "a"}, {"question_id": "1", "answer": "b"}], "prediction 1: a second answer"),
        ([{"question_id": 1, "answer": "a", "pred_source": ["FILE"]}], "pred_source has to be a list of OCR"),
    ],
)
def test_prediction_files_that_are_wrong(tmp_path: Path, rows: Any, message: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=message):
        read_predictions(tmp_path / "p.json")


def test_gold_of_both_kinds(tmp_path: Path) -> None:
    row = {"question_id": 7, "question": "what?", "answers": ["a"], "image_id": "x"}
    (tmp_path / "g.json").write_text(json.dumps({"data": [row | {"ocr_tokens": ["A"]}]}))
    (tmp_path / "g.jsonl").write_text(json.dumps(row | {"ocr": [{"text": "A", "box": [1, 2, 3, 4]}]}))
    assert read_gold(tmp_path / "g.json") == read_gold(tmp_path / "g.jsonl") == [Gold("7", "what?", ("a",), ("A",))]
    (tmp_path / "g.json").write_text(json.dumps([row]))
    with pytest.raises(UserError, match=r"name it \.jsonl"):
        read_gold(tmp_path / "g.json")
    (tmp_path / "g.jsonl").write_text(json.dumps(row | {"answers": []}))
    with pytest.raises(UserError, match=r"line 1 \(question 7\): no answers"):
        read_gold(tmp_path / "g.jsonl")
