"""The network against the authors': attention, transformer, decoding; the encoders; the numbers of parameters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spatial_textvqa.checkpoint import published_names, to_published
from spatial_textvqa.decoder import MASKED
from spatial_textvqa.encoders import ObjectEncoder, OCREncoder
from spatial_textvqa.kernels.relation_attention import Layout, relation_attention
from spatial_textvqa.model import SAM4C, SAM4CConfig, parameter_counts
from spatial_textvqa.transformer import Scene
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
ATTENTION, MMT, ENCODERS = (
    {
        key: torch.from_numpy(np.array(value))
        for key, value in np.load(GOLDEN / f"{name}.npz", allow_pickle=False).items()
    }
    for name in ("attention", "mmt", "encoders")
)
LAYOUT = Layout(6, 12, 4)


def validity(values: dict[str, Tensor], decoder: int = 4) -> Tensor:
    parts = [values[f"{name}_mask"] for name in ("question", "obj", "ocr")]
    return torch.nn.functional.pad(torch.cat(parts, 1), (0, decoder), value=1.0).bool()


def heads(x: Tensor, letter: str) -> Tensor:
    projected = x @ ATTENTION[f"attn_w{letter}"].to(x).T + ATTENTION[f"attn_b{letter}"].to(x)
    return projected.unflatten(-1, (12, 4)).transpose(1, 2)


def attention(x: Tensor, context: int, quadrants: tuple[int, ...]) -> Tensor:
    q, k, v = (heads(x, letter) for letter in "qkv")
    relations = ATTENTION["rel"].to(torch.uint8)
    out = relation_attention(q, k, v, relations, validity(ATTENTION), LAYOUT, context, None, quadrants)
    return out.transpose(1, 2).flatten(2)


@pytest.mark.parametrize(
    ("key", "context", "quadrants"),
    [
        ("c1_out", 1, (1, 2)),
        ("c3_out", 3, (1, 2)),
        ("c5_out", 5, (1, 2)),
        ("c3_out_quadrants_none", 3, ()),
        ("c3_out_quadrants_124", 3, (1, 2, 4)),
        ("c3_out_quadrants_128", 3, (1, 2, 8)),
    ],
)
def test_spatial_attention_is_the_authors(key: str, context: int, quadrants: tuple[int, ...]) -> None:
    out = attention(ATTENTION["attn_c3_x"], context, quadrants)
    torch.testing.assert_close(out, ATTENTION[f"attn_{key}"], rtol=0, atol=2e-5)
    assert out[:, :6].any() == (1 not in quadrants)


def test_gradients_of_spatial_attention_are_the_authors() -> None:
    x = ATTENTION["attn_c3_x"].clone().requires_grad_()
    weights = [ATTENTION[f"attn_w{letter}"].requires_grad_() for letter in "qkv"]
    grads = torch.autograd.grad(attention(x, 3, (1, 2)), [x, *weights], ATTENTION["attn_c3_gout"])
    for name, grad in zip(("gx", "gwq", "gwk", "gwv"), grads):
        torch.testing.assert_close(grad, ATTENTION[f"attn_c3_{name}"], rtol=0, atol=2e-5)


def small(**options: object) -> SAM4C:
    settings: dict = {
        "vocab_size": 30, "question": "words", "question_vocab": 9, "text_layers": 0, "dim": 48, "ffn": 96,
        "feature_width": 16, "steps": 4, "question_length": 6,
    }  # fmt: skip
    return SAM4C(SAM4CConfig(**(settings | options))).eval()


def mmt_model() -> SAM4C:
    """Transformer, pointer and classifier with the golden weights."""
    model, names = small(), published_names("nnssss")
    theirs = {key[2:].replace("ptr.", "ocr_ptr_net."): value for key, value in MMT.items() if key.startswith("w:")}
    state = model.state_dict()
    for name in state:
        published = to_published(name, names)
        if published in theirs:
            value = theirs.pop(published)
            state[name][: len(value)] = value
    assert not theirs
    model.load_state_dict(state)
    return model


def mmt_inputs() -> tuple[Tensor, Tensor, Scene, dict[str, Tensor]]:
    x = torch.cat([MMT["text_emb"], MMT["obj_in"], MMT["ocr_in"]], 1)
    scene = Scene(MMT["rel"].to(torch.uint8), validity(MMT, 0), 6)
    return x, MMT["ocr_in"], scene, {"ocr_mask": MMT["ocr_mask"].bool()}


def close(scores: Tensor, expected: Tensor) -> None:
    """To 1e-4 of the largest score, padded slots apart."""
    padded = torch.cat([torch.zeros(2, 30), 1 - MMT["ocr_mask"]], 1).bool()[:, None].expand_as(expected)
    bound = 1e-4 * float(expected[~padded].abs().max())
    torch.testing.assert_close(scores[~padded], expected[~padded], rtol=0, atol=bound)
    torch.testing.assert_close(scores[padded], expected[padded], rtol=0, atol=2e-2)
    assert (scores[padded] < -MASKED / 2).all()


def test_transformer_and_scores_are_the_authors() -> None:
    model, (x, ocr, scene, batch) = mmt_model(), mmt_inputs()
    scores, out = model.teacher_forced(x, ocr, scene, MMT["prev_inds"], batch)
    torch.testing.assert_close(out, MMT["seq_output"], rtol=0, atol=1e-4 * float(MMT["seq_output"].abs().max()))
    close(scores, MMT["scores"])


def test_every_gradient_has_the_authors_norm() -> None:
    model, (x, ocr, scene, batch) = mmt_model(), mmt_inputs()
    expected = json.loads((GOLDEN / "mmt_grad_norms.json").read_text())
    scores, _ = model.teacher_forced(x, ocr, scene, MMT["prev_inds"], batch)
    each = torch.nn.functional.binary_cross_entropy_with_logits(scores, MMT["targets"], reduction="none")
    loss = (each * MMT["loss_mask"][..., None]).sum() / MMT["loss_mask"].sum().clamp_min(1)
    torch.testing.assert_close(loss, MMT["loss"], rtol=1e-4, atol=0)
    loss.backward()
    names, seen = published_names("nnssss"), set()
    for name, parameter in model.named_parameters():
        published = (to_published(name, names) or "").replace("ocr_ptr_net.", "ptr.")
        wanted = expected.get(published, expected.get(published.replace("ptr.", "ocr_ptr_net.")))
        if wanted is None:
            assert name.split(".")[0] in ("question", "objects", "ocr"), name
            continue
        norm = 0.0 if parameter.grad is None else float(parameter.grad.norm())
        assert norm == pytest.approx(wanted, rel=1e-3, abs=1e-3), name
        seen.add(published)
    assert len(seen) == len(expected)


@pytest.mark.parametrize("cached", [True, False])
def test_greedy_answers_are_the_authors(cached: bool) -> None:
    model, inputs = mmt_model(), mmt_inputs()
    model.config.start_index = 1
    model.entities = lambda batch: inputs[:3]  # type: ignore[method-assign]
    decoded = model.decode(inputs[3], cached=cached)
    assert torch.equal(decoded.indices, MMT["greedy_argmax"])
    close(decoded.scores, MMT["greedy_scores"])


def test_encoders_are_the_authors() -> None:
    p = float(ENCODERS["phase"])

    def g(s: float, *shape: int) -> Tensor:
        i, j, k = (torch.arange(n, dtype=torch.float64) for n in shape)
        return torch.cos(0.7 * i[:, None, None] + 0.13 * j[:, None] + 0.029 * k + s)

    def fill(linear: torch.nn.Linear, s: float) -> None:
        a, b = (torch.arange(n, dtype=torch.float64) for n in linear.weight.shape)
        linear.weight.data = 0.05 * torch.sin(0.37 * a[:, None] + 0.011 * b + s)
        linear.bias.data = 0.1 * torch.sin(0.5 * a + s)

    objects, ocr = ObjectEncoder(2048, 16, 0.0).double(), OCREncoder(2048, 16, 0.0).double()
    for encoder, first in ((objects, 0.1), (ocr, 0.3)):
        fill(encoder.feature, p + first)
        fill(encoder.box, p + first + 0.1)
    out = objects(g(p, 2, 5, 2048), (0.5 * g(p + 0.3, 2, 5, 5) + 0.5)[..., :4])
    torch.testing.assert_close(out, ENCODERS["obj_in"].double(), rtol=0, atol=1e-4)
    vectors, phoc = g(p + 0.9, 2, 50, 300), (g(p + 1.1, 2, 50, 604) > 0.5).double()
    vectors[:, 40:], phoc[:, 40:] = 0, 0
    boxes = (0.5 * g(p + 0.7, 2, 50, 5) + 0.5)[..., :4]
    out = ocr.tokens(vectors, phoc, g(p + 0.5, 2, 50, 2048), boxes)[:, ::7]
    torch.testing.assert_close(out, ENCODERS["ocr_in"].double(), rtol=0, atol=1e-4)


def test_the_paper_s_network_has_its_number_of_parameters() -> None:
    expected = json.loads((GOLDEN / "schedule_and_parameters.json").read_text())["parameter_counts"]
    with torch.device("meta"):
        counts = parameter_counts(SAM4C(SAM4CConfig()))
        baseline = parameter_counts(SAM4C(SAM4CConfig(layers="nnnnnn")))
        biased = parameter_counts(SAM4C(SAM4CConfig(relation_bias=True)))
    assert counts["total"] == baseline["total"] == expected["total"] == 96_633_224
    assert counts["question"] == expected["text_bert"]
    assert counts["transformer"] + counts["previous"] == expected["mmt"]
    assert counts["previous"] == expected["mmt_prev_pred_embeddings"]
    assert counts["pointer"] == expected["pointer_network"]
    assert counts["classifier"] == expected["classifier"]
    for ours, theirs in (("objects", "obj"), ("ocr", "ocr")):
        parts = ("linear_{}_feat", "linear_{}_bbox", "{}_feat_layer_norm", "{}_bbox_layer_norm")
        assert counts[ours] == sum(expected[part.format(theirs)] for part in parts)
    assert biased["total"] == counts["total"] + 4 * 12 * 13
