"""Answers, targets and loss against the golden numbers of the published code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.errors import UserError
from spatial_textvqa.answers import answerable_from_ocr, bce_loss, clean, soft_scores, targets
from spatial_textvqa.vocabulary import Vocabulary

GOLDEN = json.loads((Path(__file__).parent / "golden/answers.json").read_text())
VOCABULARY = Vocabulary(GOLDEN["vocab"])


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=range(len(GOLDEN["cases"])))
def test_targets_are_those_of_the_published_code(case: dict[str, Any]) -> None:
    assert [clean(a) for a in case["answers"]] == case["clean_answers"]
    assert [clean(t) for t in case["tokens"]] == case["clean_tokens"]
    found = targets(case["answers"], case["tokens"], VOCABULARY)
    assert len(found.picks) == case["num_sequences"]
    assert [list(way) for way in found.picks[: len(case["first_sequences"])]] == case["first_sequences"]
    for output in case["outputs"]:
        way = found.picks[output["pick"]] if found.picks else None
        dense, prev, mask = found.dense(found.at(way))
        expected = torch.zeros(12, len(VOCABULARY) + 50)
        for step, index, value in output["targets"]:
            expected[step, index] = value
        torch.testing.assert_close(dense, expected, atol=1e-6, rtol=0)
        assert prev.tolist() == output["prev_inds"]
        assert mask.tolist() == output["loss_mask"]


def test_an_answer_is_drawn_uniformly_from_all_ways_to_say_the_ten() -> None:
    case = GOLDEN["cases"][0]
    found, generator = targets(case["answers"], case["tokens"], VOCABULARY), torch.Generator().manual_seed(0)
    seconds = [int(found.sample(generator)[1][1]) for _ in range(2000)]
    assert seconds.count(7) / 2000 == pytest.approx(found.picks.count((7,)) / 25, abs=0.03)  # "red", said once in ten


def test_m4c_has_one_right_index_behind_the_first_step() -> None:
    case = GOLDEN["cases"][3]
    one = targets(case["answers"], case["tokens"], VOCABULARY, multi_target=False)
    assert one.sample(torch.Generator().manual_seed(0))[0][1:].sum(-1).max() == 1


def test_without_answers_nothing_is_in_the_loss() -> None:
    dense, prev, mask = targets([], ["a"], VOCABULARY).sample()
    assert dense.sum() == mask.sum() == prev.sum() == 0


def test_an_answer_that_is_only_punctuation_cannot_be_said() -> None:
    assert targets(["?"] * 10, ["?", "a"], VOCABULARY).picks == []


def test_words_behind_the_last_slot_cannot_be_said() -> None:
    assert targets(["b"] * 10, ["a", "b"], VOCABULARY, max_ocr=1).picks == []


def test_soft_scores() -> None:
    scores = soft_scores(["red"] * 3 + ["blue"] * 7)
    assert scores["red"] == pytest.approx(0.9)
    assert scores["blue"] == 1
    assert soft_scores(["x"] + ["y"] * 9)["x"] == pytest.approx(0.3)


def test_ocr_answerable_needs_every_word_in_the_image() -> None:
    assert answerable_from_ocr(["Main St?"] * 10, ["st", "main"])
    assert not answerable_from_ocr(["main street"] * 10, ["st", "main"])
    assert not answerable_from_ocr([], ["st"])


def test_loss_is_a_sum_over_indices_and_a_mean_over_steps_that_count() -> None:
    scores, wanted = torch.zeros(2, 3, 5), torch.zeros(2, 3, 5)
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    assert bce_loss(scores, wanted, mask) == pytest.approx(5 * torch.log(torch.tensor(2.0)).item())
    assert bce_loss(scores, wanted, torch.zeros(2, 3)) == 0
    half = bce_loss(torch.full((1, 1, 5000), -8.0, dtype=torch.bfloat16), torch.zeros(1, 1, 5000), torch.ones(1, 1))
    assert half.dtype == torch.float32
    assert half == pytest.approx(5000 * 0.000335406, rel=2e-3)


def test_text_stops_at_the_end_and_rejoins_the_possessive() -> None:
    v = len(VOCABULARY)
    text, parts = VOCABULARY.text([v + 1, 15, v + 0, 2, 7], ["exit", "john"])
    assert text == "john's exit"
    assert parts == [("john", "OCR", 1), ("'s", "VOCAB", 15), ("exit", "OCR", 0)]
    assert VOCABULARY.text([v + 3, 0, 1], ["exit"]) == ("", [])  # a padded slot, <pad> and <s> say nothing


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a"], "first word has to be <pad>"),
        (["<pad>", "<s>", "</s>"], "<unk> is missing"),
        (["<pad>", "<s>", "</s>", "<unk>", "a", "a"], "'a' comes twice"),
    ],
)
def test_a_vocabulary_that_is_none_says_why(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Vocabulary(words)


def test_a_vocabulary_file_is_one_word_a_line(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\n".join(GOLDEN["vocab"]) + "\n")
    assert Vocabulary.read(file).words == GOLDEN["vocab"]
    with pytest.raises(UserError, match="no such vocabulary file"):
        Vocabulary.read(tmp_path / "none")
    file.write_text("a\nb\n")
    with pytest.raises(UserError, match=r"words\.txt: vocabulary: the first word"):
        Vocabulary.read(file)
