"""Three forms of OCR become one picture; what is wrong in a file is said with its name and record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shared.errors import UserError
from spatial_textvqa.ocr_files import parsed_objects, parsed_ocr, read_ocr
from spatial_textvqa.picture import Picture, Thing, Word, opened_image

EXIT = {"text": "EXIT", "box": [10, 20, 60, 35]}
HEAD = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"


def vision(*words: tuple[str, list[tuple[int, int]]], **size: int) -> dict[str, Any]:
    def polygon(corners: list[tuple[int, int]]) -> dict:
        # as Google does: a coordinate that is zero is left out
        return {"vertices": [{k: v for k, v in (("x", x), ("y", y)) if v} for x, y in corners]}

    annotations = [{"description": "all of it", "boundingPoly": polygon([(0, 0), (9, 9)])}]
    annotations += [{"description": text, "boundingPoly": polygon(corners)} for text, corners in words]
    return {"responses": [{"textAnnotations": annotations, "fullTextAnnotation": {"pages": [size]}}]}


def test_a_plain_list() -> None:
    picture = parsed_ocr(json.dumps([EXIT, {"text": "  ", "box": [0, 0, 5, 5]}]), "ocr.json", (100, 50))
    assert picture.words == [Word("EXIT", (10.0, 20.0, 60.0, 35.0))]
    assert (picture.width, picture.height, picture.objects) == (100, 50, [])
    assert picture.notes == ["ocr.json: 1 of 2 words are blank or padding, and left out"]
    assert picture.boxes(picture.words)[0].tolist() == pytest.approx([0.1, 0.4, 0.6, 0.7])


def test_a_list_with_its_size_and_objects() -> None:
    content = {"width": 100, "height": 50, "ocr": [EXIT], "objects": [{"box": [0, 0, 50, 50], "label": "door"}]}
    picture = parsed_ocr(json.dumps(content), "ocr.json")
    assert (picture.width, picture.height) == (100, 50)
    assert picture.objects == [Thing((0.0, 0.0, 50.0, 50.0), "door")]
    assert "scaled" in parsed_ocr(json.dumps(content), "ocr.json", (200, 100)).notes[0]


def test_a_google_vision_reply_turned_and_touching_the_border() -> None:
    turned, at_top = [(0, 8), (30, 0), (34, 12), (4, 20)], [(50, 0), (60, 0), (60, 9), (50, 9)]
    reply = vision(("EXIT", turned), ("2", at_top), width=80, height=40)
    picture = parsed_ocr(json.dumps(reply), "vision.json")
    assert picture.words == [Word("EXIT", (0.0, 0.0, 34.0, 20.0)), Word("2", (50.0, 0.0, 60.0, 9.0))]
    assert (picture.width, picture.height) == (80, 40)
    assert parsed_ocr(json.dumps(reply["responses"][0]), "vision.json").words == picture.words


def test_a_google_vision_reply_with_a_document_only() -> None:
    box = {
        "normalizedVertices": [{"x": 0.1, "y": 0.2}, {"x": 0.5, "y": 0.2}, {"x": 0.5, "y": 0.4}, {"x": 0.1, "y": 0.4}]
    }
    word = {"boundingBox": box, "symbols": [{"text": "N"}, {"text": "o"}]}
    page = {"width": 100, "height": 50, "blocks": [{"paragraphs": [{"words": [word]}]}]}
    picture = parsed_ocr(json.dumps({"fullTextAnnotation": {"pages": [page]}}), "vision.json")
    assert picture.words == [Word("No", (10.0, 10.0, 50.0, 20.0))]


def test_no_text_in_the_picture() -> None:
    assert parsed_ocr('{"responses": [{}]}', "vision.json", (10, 10)).words == []
    assert parsed_ocr("[]", "ocr.json", (10, 10)).words == []


def test_a_tesseract_tsv_with_a_quotation_mark() -> None:
    rows = [HEAD, "1\t1\t0\t0\t0\t0\t0\t0\t100\t50\t-1\t", "5\t1\t1\t1\t1\t1\t10\t20\t50\t15\t91.2\tEXIT",
            '5\t1\t1\t1\t1\t2\t70\t20\t5\t15\t40\t"', "5\t1\t1\t1\t1\t3\t80\t20\t5\t15\t40\t "]  # fmt: skip
    picture = parsed_ocr("\n".join(rows), "page.tsv")
    assert picture.words == [Word("EXIT", (10.0, 20.0, 60.0, 35.0)), Word('"', (70.0, 20.0, 75.0, 35.0))]
    assert (picture.width, picture.height) == (100, 50)


WRONG = {
    '"hello"': "ocr.json: expected a list of",
    '{"words": []}': "ocr.json: expected a list of",
    '[{"text": "A"}]': "ocr.json, word 0: found",
    '[{"text": "A", "box": [1, 2, 3]}]': "ocr.json, word 0 ('A'): box is [1, 2, 3]: expected [x0, y0, x1, y1]",
    '[{"text": "A", "box": [1, 2, 3, "4"]}]': "word 0 ('A'): box is",
    '[{"text": "A", "box": [1, NaN, 3, 4]}]': "word 0 ('A'): box [1, nan, 3, 4] has a coordinate that is not finite",
    '[{"text": "A", "box": [3, 2, 1, 4]}]': "box [3, 2, 1, 4] is turned over",
    '[{"text": "A", "box": [1, 2, 300, 4]}]': "lies outside the image of 100 x 50 pixels",
    '[{"text": "A", "box": [0, 0, 0, 0]}, {"text": "B", "box": [0, 0, 0, 0]}]': "all 2 boxes of words are [0, 0, 0, 0]",
    '[{"text": "A", "box": [1, %s, 3, 4]}]' % ("9" * 400): "word 0 ('A'): box [1, inf, 3, 4] has a coordinate that",
    '[{"text": "A", "box": [1, %s, 3, 4]}]' % ("9" * 5000): "word 0 ('A'): box [1, inf, 3, 4] has a coordinate that",
    '{"width": %s, "height": 5, "ocr": []}' % ("9" * 400): "ocr.json: the image size is inf x 5",
    f"{HEAD}\n5\t1\t1\t1\t1\t1\t{'9' * 400}\t2\t3\t4\t0\tA": "word 0 ('A'): box [9999",
    '[{"text": "A\\ud800", "box": [1, 2, 3, 4]}]': "ocr.json, [0].text: 'A\\ud800' has half of a surrogate pair",
    '[\n{"text": "A", }]': "ocr.json, line 2: not json",
    '{"width": 0, "height": 5, "ocr": []}': "ocr.json: the image size is 0 x 5",
    '{"responses": [{}, {}]}': "one entry in `responses`",
    '{"responses": [{"error": {"code": 3, "message": "Bad image data."}}]}': "with an error: Bad image data.",
    '{"textAnnotations": [{}, {"description": "A"}]}': "word 0: expected a boundingPoly",
    '{"textAnnotations": 5}': "`textAnnotations` is not what a Google-Vision reply has there",
    f"{HEAD}\n5\t1\t1": "ocr.json, line 2: expected 12 fields",
    f"{HEAD}\n1\t2\t0\t0\t0\t0\t0\t0\t100\t50\t-1\t": "line 2: a second page",
    "level\tfoo": "line 1: a Tesseract TSV without the column page_num",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_in_one_line(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed_ocr(text, "ocr.json", (100, 50))
    assert WRONG[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("ocr.json")


def test_no_size_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--image, or --size"):
        parsed_ocr(json.dumps([EXIT]), "ocr.json")
    with pytest.raises(UserError, match="no such file"):
        read_ocr(tmp_path / "none.json")


def test_bad_boxes_can_be_clipped() -> None:
    rows = [{"text": "A", "box": [60, 20, 10, 400]}]
    assert parsed_ocr(json.dumps(rows), "ocr.json", (100, 50), "clip").words[0].box == (10.0, 20.0, 60.0, 50.0)


def test_objects() -> None:
    rows = [{"box": [0, 0, 5, 5], "label": "sign"}, {"box": [0, 0, 0, 0]}]
    assert parsed_objects({"objects": rows}, "objects.json", (10, 10)) == [Thing((0.0, 0.0, 5.0, 5.0), "sign")]
    with pytest.raises(UserError, match=r"objects.json: all 1 boxes of objects are \[0, 0, 0, 0\]"):
        parsed_objects([{"box": [0, 0, 0, 0]}], "objects.json", (10, 10))
    with pytest.raises(UserError, match=r"objects.json, object 0: found 5"):
        parsed_objects([5], "objects.json", (10, 10))


def test_a_picture_of_fifty_megapixels_is_refused_unopened(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (10000, 5000)).save(large)
    with pytest.raises(UserError, match=r"large.png: 10000 x 5000 are 50.0 megapixels: at most 40"):
        opened_image(large, "large.png")
    Image.new("1", (20000, 20000)).save(large)
    with pytest.raises(UserError, match="megapixels"):
        opened_image(large, "large.png")


def test_what_an_image_is_is_read_from_its_bytes(tmp_path: Path) -> None:
    named = tmp_path / "picture.png"
    Image.new("RGB", (4, 3)).save(named, format="JPEG")
    assert opened_image(named, "picture.png").size == (4, 3)
    Image.new("RGB", (4, 3)).save(named, format="GIF")
    with pytest.raises(UserError, match=r"picture.png: not an image of a kind that is read here"):
        opened_image(named, "picture.png")
    with pytest.raises(UserError, match="no such image"):
        opened_image(tmp_path / "none.png", "none.png")


def test_an_empty_picture_has_boxes_of_no_rows() -> None:
    assert Picture("none", 5, 5).boxes([]).shape == (0, 4)
