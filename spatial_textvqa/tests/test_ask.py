"""Asked as a person would: the answer with its sources, what is noted, what is refused in one line, the drawing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from shared.errors import UserError
from spatial_textvqa.__main__ import main
from spatial_textvqa.ask import NO_TEXT, Asker
from spatial_textvqa.custom import picture_of
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.picture import Picture, Thing
from spatial_textvqa.predictions import read_predictions


@pytest.fixture(scope="module")
def asker(small_checkpoint: Path) -> Asker:
    return Asker.load(small_checkpoint)


@pytest.fixture
def files(shown_scenes: list[Sample], tmp_path: Path) -> dict[str, str]:
    """A scene as a person has it: an OCR file, objects, features, a picture."""
    picture = picture_of(shown_scenes[0])
    ocr = [{"text": word.text, "box": word.box} for word in picture.words]
    objects = [{"box": thing.box, "label": thing.label} for thing in picture.objects]
    (tmp_path / "ocr.json").write_text(json.dumps(ocr))
    (tmp_path / "objects.json").write_text(json.dumps(objects))
    assert picture.object_features is not None
    zeros = np.zeros((len(ocr), picture.object_features.shape[1]), np.float32)
    np.savez(tmp_path / "f.npz", object_features=picture.object_features, ocr_features=zeros)
    Image.new("RGB", (1000, 1000), "white").save(tmp_path / "street.png")
    names = {"ocr": "ocr.json", "objects": "objects.json", "features": "f.npz", "image": "street.png"}
    return {name: str(tmp_path / file) for name, file in names.items()}


def command(checkpoint: Path, files: dict[str, str], question: str, *more: str) -> list[str]:
    given = [part for name, file in files.items() for part in (f"--{name}", file)]
    return ["ask", "--ckpt", str(checkpoint), *given, *more, question]


def test_every_known_scene_is_answered_and_the_flipped_question_too(asker: Asker, shown_scenes: list[Sample]) -> None:
    for sample in shown_scenes:
        picture, notes = asker.fitted(picture_of(sample))
        answer = asker.ask(picture, sample.question)
        assert answer.text == sample.answers[0]
        assert notes == []
        assert [word.source for word in answer.words] == ["OCR"]
        assert answer.words[0].box == picture.words[answer.words[0].index].box
        assert answer.candidates[0][0] == answer.words[0]
        assert len(answer.candidates[0]) == 5
        assert sample.flipped is not None
        assert asker.ask(picture, sample.flipped[0]).text == sample.flipped[1] != answer.text


def test_edges_begin_at_the_answer_and_bear_the_relation_of_the_graph(asker: Asker, shown_scenes: list[Sample]) -> None:
    picture, _ = asker.fitted(picture_of(shown_scenes[0]))
    answer = asker.ask(picture, shown_scenes[0].question)
    looked = asker.looked(picture, shown_scenes[0].question)
    assert looked.spatial == [False, True, True]
    token = answer.answered(picture)[0]
    assert answer.edges
    for edge in answer.edges:
        assert edge.source == token
        assert edge.relation == looked.graph[token, edge.target]
        assert edge.weight == pytest.approx(float(looked.attention[edge.layer, :, token, edge.target].max()))
        assert looked.spatial[edge.layer]


def test_what_is_looked_at_is_the_same_however_much_padding_there_is(asker: Asker, shown_scenes: list[Sample]) -> None:
    picture, _ = asker.fitted(picture_of(shown_scenes[0]))
    batch = asker.encoder.collate([replace(shown_scenes[0], image_id="padded")])
    padded = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor) and key != "prev_inds"}
    cut = replace(picture, objects=picture.objects[:4], object_features=picture.object_features[:4])  # type: ignore[index]
    for one, tensors in ((picture, padded), (cut, None)):
        looked = asker.looked(one, shown_scenes[0].question, tensors)
        entities = len(one.objects) + len(one.words)
        assert looked.attention.shape == (3, 12, entities, entities)
        assert (looked.graph.diagonal() == 12).all()
    torch.testing.assert_close(
        asker.looked(picture, shown_scenes[0].question, padded).attention,
        asker.looked(picture, shown_scenes[0].question).attention,
    )


def test_the_command_says_answer_source_candidates_and_edges(
    small_checkpoint: Path, files: dict[str, str], shown_scenes: list[Sample], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    drawing = tmp_path / "out.svg"
    sample = shown_scenes[0]
    assert main(command(small_checkpoint, files, f"{sample.question}?", "--explain", str(drawing))) == 0
    said = capsys.readouterr()
    word = sample.answers[0]
    token = sample.ocr_tokens.index(word)
    assert said.out.startswith(f"answer: {word}\n  {word}: OCR token {token} at [")
    assert f"best of this step: {word} (OCR " in said.out
    assert f"looked: “{word}” " in said.out
    assert said.err == ""
    root = ElementTree.parse(drawing).getroot()
    assert word in "".join(root.itertext())
    image = next(node for node in root.iter() if node.tag.endswith("image"))
    assert image.attrib["href"].startswith("data:image/jpeg;base64,")


def test_no_text_gives_a_word_of_the_vocabulary_and_says_so(asker: Asker) -> None:
    picture, notes = asker.fitted(Picture("blank", 100, 100, [], [Thing((10.0, 10.0, 50.0, 50.0), "door")]))
    assert notes[0] == NO_TEXT
    answer = asker.ask(picture, "left red square")
    assert [word.source for word in answer.words] == ["VOCAB"]
    assert answer.text in asker.vocabulary.words[4:]


def test_nothing_at_all_is_answered_too(asker: Asker) -> None:
    picture, notes = asker.fitted(Picture("blank", 100, 100))
    assert len(notes) == 2
    answer = asker.ask(picture, "left red square")
    assert answer.words
    assert answer.edges == []
    ElementTree.fromstring(answer.svg(picture))


def test_words_alone_are_enough(asker: Asker, shown_scenes: list[Sample]) -> None:
    whole = picture_of(shown_scenes[0])
    picture, notes = asker.fitted(Picture("words", 1000, 1000, whole.words))
    assert notes == ["no objects were given: the answer comes from the words and their places alone"]
    assert asker.ask(picture, "left red square").text
    picture, notes = asker.fitted(replace(whole, object_features=None))
    assert notes == ["the objects have no features: the network knows their places, not what they look like"]


def test_more_boxes_than_a_network_takes_are_cut_and_told(asker: Asker, shown_scenes: list[Sample]) -> None:
    whole = picture_of(shown_scenes[0])
    picture, notes = asker.fitted(replace(whole, words=[*whole.words] * 10))
    assert notes == ["60 words: the first 50 are read, the rest is left out"]
    assert len(picture.words) == 50
    asker.ask(picture, shown_scenes[0].question)
    _, notes = asker.fitted(replace(whole, words=[*whole.words] * 2))
    assert notes == ["12 words: the network was trained on pictures of at most 6"]


def test_a_question_that_is_too_long_is_cut_and_told(asker: Asker, shown_scenes: list[Sample]) -> None:
    picture, _ = asker.fitted(picture_of(shown_scenes[0]))
    answer = asker.ask(picture, "left red square blue star")
    assert answer.notes == ["the question has 5 words that count: the first 3 are read"]
    assert answer.text == asker.ask(picture, "left red square").text
    with pytest.raises(UserError, match="has 1001 characters, at most 1000"):
        asker.ask(picture, "w" * 1001)


def test_two_pictures_of_one_name_have_their_own_graphs(asker: Asker, shown_scenes: list[Sample]) -> None:
    first, second = (replace(picture_of(sample), name="same") for sample in shown_scenes[:2])
    graphs = [asker.batch(picture, "left red square")["relations"] for picture in (first, second)]
    assert not torch.equal(*graphs)


WRONG = [
    ("ocr", '{"words": []}', "expected a list of"),
    ("ocr", '[{"text": "A", "box": [1, NaN, 3, 4]}]', "word 0 ('A'): box [1, nan, 3, 4] has a coordinate that is not"),
    ("ocr", '[{"text": "A", "box": [0, 0, 0, 0]}]', "all 1 boxes of words are [0, 0, 0, 0], which is padding"),
    ("objects", "[3]", "object 0: found 3"),
    ("features", "no npz", "expected an npz with object_features and ocr_features"),
    ("image", "no image", "not an image of a kind that is read here: give a PNG or JPEG"),
]


@pytest.mark.parametrize(("file", "content", "message"), WRONG)
def test_a_file_that_is_wrong_is_named(
    small_checkpoint: Path, files: dict[str, str], file: str, content: str, message: str
) -> None:
    Path(files[file]).write_text(content)
    with pytest.raises(UserError) as caught:
        main(command(small_checkpoint, files, "left red square"))
    assert files[file] in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_of_fifty_megapixels_is_refused(small_checkpoint: Path, files: dict[str, str]) -> None:
    Image.new("1", (10_000, 5_000)).save(files["image"])
    with pytest.raises(UserError, match=r"50.0 megapixels: at most 40 are opened"):
        main(command(small_checkpoint, files, "left red square"))


def test_a_question_without_a_known_word_is_refused(small_checkpoint: Path, files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"ocr.json: no word of the question 'quo vadis' is known"):
        main(command(small_checkpoint, files, "quo vadis"))
    with pytest.raises(UserError, match="expected a text that is not blank"):
        main(command(small_checkpoint, files, "  "))


def test_features_of_another_width_are_refused(small_checkpoint: Path, files: dict[str, str]) -> None:
    np.savez(files["features"], object_features=np.zeros((6, 8)), ocr_features=np.zeros((6, 8)))
    with pytest.raises(UserError, match="features of width 8: the network takes those of width 32"):
        main(command(small_checkpoint, files, "left red square"))


def test_a_place_to_write_to_that_is_not_there_is_told_before_the_answer(
    small_checkpoint: Path, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ckpt = str(tmp_path / "none" / "o.svg"), str(small_checkpoint)
    for argv in (
        command(small_checkpoint, files, "left red square", "--explain", out),
        ["predict", "--ckpt", ckpt, "--data", "none.jsonl", "--out", out],
        ["convert", "--questions", "none.jsonl", "--ocr", ".", "--out", out],
    ):
        with pytest.raises(UserError, match=r"o\.svg: there is no folder .*none: make it first"):
            main(argv)
    with pytest.raises(UserError, match="is a folder: name a file in it"):
        main(command(small_checkpoint, files, "left red square", "--explain", str(tmp_path)))
    assert capsys.readouterr().out == ""


def test_a_question_that_is_no_unicode_is_refused(asker: Asker) -> None:
    with pytest.raises(UserError, match=r"blank: the question 'left \\ud800' has half of a surrogate pair"):
        asker.ask(Picture("blank", 100, 100), "left \ud800")


def test_no_checkpoint_is_told(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        main(command(tmp_path / "none.ckpt", files, "left red square"))


@pytest.mark.parametrize("form", ["evalai", "rrc"])
def test_predictions_of_an_imdb_are_those_of_the_scenes(
    small_checkpoint: Path, shown_scenes: list[Sample], tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part of TextVQA in its real format becomes a server's file, and that of an answered part is scored."""
    rows: list[dict] = [{"version": 0.5}]
    folder = tmp_path / "textvqa"
    for number, sample in enumerate(shown_scenes):
        rows.append({"question_id": number, "image_id": f"a{number}", "question": sample.question,
                     "answers": sample.answers, "google_ocr_tokens_filtered": sample.ocr_tokens})  # fmt: skip
        zeros = np.zeros((len(sample.ocr_tokens), 32), np.float32)
        for kind, boxes, features in (
            ("obj", sample.obj_boxes, sample.obj_features), ("ocr", sample.ocr_boxes, zeros)
        ):  # fmt: skip
            (folder / "features" / kind).mkdir(parents=True, exist_ok=True)
            np.savez(folder / "features" / kind / f"a{number}.npz", features=features, boxes=boxes * 1000,
                     image_h=1000, image_w=1000)  # fmt: skip
    (folder / "imdb").mkdir()
    gold, out = folder / "imdb" / "imdb_test.npy", tmp_path / "predictions.json"
    np.save(gold, np.array(rows, dtype=object), allow_pickle=True)
    argv = ["predict", "--ckpt", str(small_checkpoint), "--imdb", str(folder), "--part", "test", "--form", form]
    assert main([*argv, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [row["question_id"] for row in found] == list(range(len(shown_scenes)))
    assert [row["answer"] for row in found] == [sample.answers[0] for sample in shown_scenes]
    if form == "evalai":
        assert (found[0]["image_id"], found[0]["pred_source"]) == ("a0", ["OCR"])
    assert main(["score", "--predictions", str(out), "--gold", str(gold)]) == 0
    assert capsys.readouterr().out.count("100.00") >= 6
    with pytest.raises(SystemExit):
        main([*argv, "--data", "data.jsonl", "--out", str(out)])


def test_predictions_of_a_data_file_are_scored(
    small_checkpoint: Path, shown_scenes: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way of one's own data: validate, predict, score."""
    rows = []
    for sample in shown_scenes:
        picture = picture_of(sample)
        zeros = np.zeros((len(picture.words), 32), np.float32)
        np.savez(tmp_path / f"{sample.image_id}.npz", object_features=sample.obj_features, ocr_features=zeros)
        rows.append({
            "question_id": sample.sample_id, "image_id": sample.image_id, "question": sample.question,
            "answers": sample.answers, "width": 1000, "height": 1000, "features": f"{sample.image_id}.npz",
            "ocr": [{"text": w.text, "box": w.box} for w in picture.words],
            "objects": [{"box": o.box, "label": o.label} for o in picture.objects],
        })  # fmt: skip
    data, out = tmp_path / "data.jsonl", tmp_path / "predictions.json"
    data.write_text("\n".join(map(json.dumps, rows)))
    assert main(["validate", str(data)]) == 0
    assert main(["predict", "--ckpt", str(small_checkpoint), "--data", str(data), "--out", str(out)]) == 0
    found = read_predictions(out)
    assert [found[s.sample_id].answer for s in shown_scenes] == [s.answers[0] for s in shown_scenes]
    assert found[shown_scenes[0].sample_id].sources == ("OCR",)
    assert main(["score", "--predictions", str(out), "--gold", str(data)]) == 0
    said = capsys.readouterr().out
    assert "lines that are wrong" in said
    assert said.count("100.00") >= 12
    data.write_text(json.dumps(rows[0] | {"width": 0}))
    assert main(["validate", str(data)]) == 1
    assert "line 1 (question" in capsys.readouterr().err
