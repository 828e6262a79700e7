"""What is measured of a network on a whole set: of which layer, of which token, and never of a way that was drawn."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from spatial_textvqa.data.encode import Encoder, Encoding
from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.data.tensors import encoded
from spatial_textvqa.decoder import Decoded
from spatial_textvqa.vocabulary import Vocabulary

from spatial_textvqa import evaluation


class Said(torch.nn.Module):
    """A network that gives these indices, and looks at reference and self in its layers."""

    def __init__(self, indices: list[list[list[int]]], size: int, layers: str = "n", maps: Any = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(vocab_size=size)
        self.transformer = SimpleNamespace(kinds=layers)
        self.indices, self.maps = [torch.tensor(each) for each in indices], maps

    def decode(self, batch: dict[str, Any], beam: int = 1) -> Decoded:
        found = self.indices.pop(0)
        width = self.config.vocab_size + batch["ocr_mask"].shape[1]
        scores = torch.nn.functional.one_hot(found, width).float()
        return Decoded(found, scores, torch.zeros(len(found)))

    def attention_maps(self, batch: dict[str, Any]) -> list[torch.Tensor]:
        return self.maps


def test_a_token_s_twin_is_as_right() -> None:
    """`st` is there twice: which of the two was the first way to say it decides nothing."""
    import numpy as np

    vocabulary = Vocabulary.of(())
    tokens = ["main", "st", "exit", "st"]
    boxes = np.linspace(0.1, 0.9, 16, dtype=np.float32).reshape(4, 4)
    sample = Sample("1", "1", "what is it", answers=["main st"] * 10, ocr_tokens=tokens, ocr_boxes=boxes)
    words = ("<pad>", "<unk>", "what", "is", "it")
    encoding = Encoding("words", words, question_length=3, max_objects=0, max_ocr=4, feature_width=1, steps=3)
    data = encoded([sample], Encoder(encoding, vocabulary))
    for second in (5, 7):
        net = Said([[[4, second, 2]]], len(vocabulary))
        assert evaluation.measure(net, vocabulary, data)["accuracy"] == 1  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> TextVQAData:
    torch.manual_seed(0)
    made = TextVQAData(train_samples=4, val_samples=4, test_samples=40, feature_width=8)
    made.setup()
    return made


def test_reference_attention_is_of_the_last_spatial_layer_and_the_answered_token(data: TextVQAData) -> None:
    """With the order `sn` the second layer is no spatial one; the token is what was answered, right or not."""
    test = data.test
    rows = torch.nonzero((test.reference >= 0) & evaluation.spatial_rows(test))[:, 0]
    size, words, objects = len(data.vocabulary), 3, 6
    length = words + objects + 6 + 2
    first = torch.zeros(len(rows), 12, length, length)
    wrong = (test.wanted[rows].int().argmax(1) + 1) % 6  # another token than the right one
    first[torch.arange(len(rows)), :, words + objects + wrong, words + test.reference[rows]] = 1.0
    answered = torch.stack([size + wrong, torch.full_like(wrong, data.vocabulary.end)], 1)
    net = Said([answered.tolist()], size, "sn", [first, torch.zeros_like(first)])
    visible = int(test.questions["question_mask"][rows[1]].sum()) + 12
    assert evaluation.attended(net, test) == pytest.approx(visible)  # type: ignore[arg-type]


def test_an_answer_has_not_changed_by_what_stands_behind_its_end(data: TextVQAData) -> None:
    size, end = len(data.vocabulary), data.vocabulary.end
    drawn = data.drawn("test", 40)
    count = int((drawn.flipped_target >= 0).sum())
    first, second = [[end, size]] * 40, [[end, size + 1]] * count
    found = evaluation.flips(Said([first, second], size), data)  # type: ignore[arg-type]
    assert found["flipped/changed"] == 0


def test_last_spatial_layer_of_a_network() -> None:
    for layers, last in (("nss", 2), ("ssn", 1), ("nnn", 2)):
        assert evaluation.looking_layer(layers) == last
