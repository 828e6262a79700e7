"""Metrics against the golden numbers of the official scripts, and what the goldens do not hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spatial_textvqa.evalai import CONTRACTIONS, normalise
from spatial_textvqa.vocabulary import Vocabulary

from spatial_textvqa import metrics

HERE = Path(__file__).parent / "golden"
GOLDEN = json.loads((HERE / "metrics.json").read_text())
QUESTIONS = json.loads((HERE / "spatial_questions.json").read_text())


@pytest.mark.parametrize("part", ["normalise", "contraction_cases", "number_and_article_cases"])
def test_normaliser_is_the_official_one(part: str) -> None:
    assert {text: normalise(text) for text in GOLDEN[part]} == GOLDEN[part]


def test_contraction_table_has_its_120_words() -> None:
    assert set(CONTRACTIONS) == set(GOLDEN["contraction_cases"])
    assert len(CONTRACTIONS) == 120


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=range(len(GOLDEN["cases"])))
def test_accuracies_and_anls(case: dict[str, Any]) -> None:
    for name in ("textvqa_accuracy", "stvqa_accuracy", "anls"):
        assert getattr(metrics, name)(case["pred"], case["gt"]) == pytest.approx(case[name], abs=1e-9)


@pytest.mark.parametrize("pair", GOLDEN["anls_pairs"], ids=range(len(GOLDEN["anls_pairs"])))
def test_anls_of_pairs(pair: dict[str, Any]) -> None:
    assert metrics.anls(pair["a"], [pair["b"]]) == pytest.approx(pair["anls"], abs=1e-9)


def test_two_empty_answers_are_equal_and_none_is_no_hit() -> None:
    assert metrics.anls("", [" "]) == 1
    assert metrics.anls("", []) == 0


def test_spatial_questions() -> None:
    assert {question: metrics.is_spatial(question) for question in QUESTIONS} == QUESTIONS


@pytest.mark.parametrize(
    ("question", "flipped"),
    [
        ("What is  on the LEFT, below it?", "What is  on the RIGHT, above it?"),
        ("Left or right?", "Right or left?"),
        ("what is on the bright shirt beside the upper one?", None),
        ("the top-left sign", None),
        ("north (up)", "south (down)"),
    ],
)
def test_flips_are_of_whole_words_at_once(question: str, flipped: str | None) -> None:
    assert metrics.flip_question(question) == flipped


@given(st.lists(st.sampled_from([*metrics.FLIPS, "Up", "BELOW!", "bright", "sign", "beside,"]), min_size=1))
def test_flipping_twice_is_the_question_itself(words: list[str]) -> None:
    question = " ".join(words)
    flipped = metrics.flip_question(question)
    assert flipped is None or metrics.flip_question(flipped) == question


def test_classes_add_up_over_batches_and_leave_out_the_unanswered() -> None:
    for made, function in ((metrics.TextVQAAccuracy(), "textvqa_accuracy"), (metrics.ANLS(), "anls")):
        made.update(["red", "x"], [["red"] * 2 + ["blue"] * 8, []])
        made.update(["blue", "sign", "blu"], [["blue"] * 10] * 3)
        each = [getattr(metrics, function)(p, ["red"] * 2 + ["blue"] * 8) for p in ("red",)]
        each += [getattr(metrics, function)(p, ["blue"] * 10) for p in ("blue", "sign", "blu")]
        assert float(made.compute()) == pytest.approx(sum(each) / 4)
    made = metrics.STVQAAccuracy()
    made.update(["a"], [[]])
    assert torch.isnan(made.compute())


def test_states_are_summed_over_processes() -> None:
    """What torchmetrics does in DDP: states of all processes are added, then `compute`."""
    parts = [metrics.STVQAAccuracy(), metrics.STVQAAccuracy()]
    parts[0].update(["red"], [["red"]])
    parts[1].update(["red", "red", "x"], [["x"], ["y"], ["z"]])
    both = metrics.STVQAAccuracy()
    both.total = sum(p.total for p in parts)
    both.count = sum(p.count for p in parts)
    assert both._reductions["total"] is both._reductions["count"] is not None
    assert float(both.compute()) == pytest.approx(1 / 4)


def test_grounding_looks_at_valid_tokens_and_counts_answers_in_the_image() -> None:
    made = metrics.GroundingAccuracy()
    pointer = torch.tensor([[1.0, 9.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    wanted = torch.tensor([[False, False, True], [False, True, False], [False, False, False]])
    valid = torch.tensor([[True, False, True], [True, True, True], [True, True, True]])
    made.update(pointer, wanted, valid)
    assert float(made.compute()) == 0.5


@pytest.mark.parametrize(
    ("indices", "right"),
    [
        ((8, 9, 2), True),  # main st
        ((8, 11, 2), True),  # the other st: whichever of the two was drawn to train on
        ((10, 9, 2), False),  # exit st
        ((8, 2, 9), False),  # main
        ((8, 9, 0), False),  # main st <pad>: it does not end
        ((8, 12, 2), False),  # a slot without a token
        ((4, 2, 0), False),  # red: said by too few
    ],
)
def test_a_whole_answer_is_right_word_for_word_by_whichever_token(indices: tuple[int, ...], right: bool) -> None:
    vocabulary = Vocabulary.of(["red", "five", "six", "seven"])  # V = 8
    tokens, answers = ["Main", "st", "exit", "St,"], ["main st"] * 9 + ["red"]
    assert metrics.whole_answer(indices, tokens, answers, vocabulary) == right


def test_an_answer_longer_than_the_steps_is_right_as_far_as_it_goes() -> None:
    vocabulary = Vocabulary.of(["a", "b", "c"])
    assert metrics.whole_answer([4, 5], [], ["a b c"] * 10, vocabulary)
    assert not metrics.whole_answer([4, 2], [], ["a b c"] * 10, vocabulary)
    assert not metrics.whole_answer([2, 2], [], ["?"] * 10, vocabulary)


def test_whole_answers_leave_out_the_unanswered() -> None:
    vocabulary, made = Vocabulary.of(["a"]), metrics.WholeAnswerAccuracy()
    made.update(torch.tensor([[4, 2], [4, 2], [4, 2]]), [[], [], []], [["a"] * 10, ["b"] * 10, []], vocabulary)
    assert float(made.compute()) == 0.5


def test_kinds_have_shares_of_their_own() -> None:
    found = torch.tensor([False, True, False])
    assert metrics.by_kind(found, torch.tensor([0, 0, 2]), ["on", "left", "right"]) == {"on": 0.5, "right": 0.0}


def test_flips_count_changed_texts_and_both_right() -> None:
    made = metrics.FlipConsistency()
    made.update(["a", "b"], ["a", "c"], torch.tensor([True, True]), torch.tensor([False, True]))
    made.update(["x", "y"], ["z", "y"], torch.tensor([False, False]), torch.tensor([True, False]))
    assert {name: float(value) for name, value in made.compute().items()} == {
        "accuracy": 0.5, "changed": 0.5, "both": 0.25,
    }  # fmt: skip


def test_mean_degree_is_added_up_over_graphs() -> None:
    made = metrics.MeanDegree()
    graphs = torch.tensor([[[12, 4], [8, 12]], [[12, 0], [0, 12]], [[12, 1], [2, 12]]], dtype=torch.uint8)
    made.update(graphs[:2])
    made.update(graphs[2:])
    assert float(made.compute()) == pytest.approx(2 / 3)


def test_uniform_attention_is_one_times_uniform() -> None:
    visible = torch.tensor([True, True, True, True, False])
    attention = torch.zeros(2, 5, 5)
    attention[:, 1, :4] = 0.25
    assert metrics.reference_attention(attention, 1, 2, visible) == pytest.approx(1)
    attention[:, 1] = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0])
    assert metrics.reference_attention(attention, 1, 2, visible) == pytest.approx(2)
    added_up = metrics.ReferenceAttention()
    one = torch.tensor([1])
    added_up.update(attention[None], one, torch.tensor([2]), visible[None])
    added_up.update(attention[None], one, torch.tensor([0]), visible[None])
    assert float(added_up.compute()) == pytest.approx(1)
