"""Cached decoding, beams, controls and options of the network, on random weights."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shared.errors import UserError
from spatial_textvqa.decoder import beam_search
from spatial_textvqa.model import SAM4C, SAM4CConfig
from torch import Tensor

from spatial_textvqa import spatial_graph

V, NO, NC, T, S = 9, 4, 3, 5, 4
SMALL: dict[str, Any] = {
    "vocab_size": V, "question": "words", "question_vocab": 11, "question_length": T, "text_layers": 1, "dim": 24,
    "ffn": 32, "layers": "nss", "feature_width": 8, "steps": S, "dropout": 0.0,
}  # fmt: skip
VARIANTS: list[dict[str, Any]] = [
    {},
    {"layers": "nnn"},
    {"layers": "snsn", "context": [1, 5]},
    {"masked_quadrants": (1, 2, 8)},
    {"masked_quadrants": (4, 7, 9)},
    {"relation_bias": True},
    {"attention": "full", "relation_bias": True},
    {"attention": "neighbours"},
    {"attention": "top_k", "top_k": 2},
    {"attention": "relative"},
]


def batch(seed: int = 0, b: int = 3, no: int = NO, nc: int = NC) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(b, no + nc, 2, generator=draw) * 0.7
    boxes = torch.cat([corner, corner + 0.05 + 0.2 * torch.rand(b, no + nc, 2, generator=draw)], -1)
    valid = torch.rand(b, T + no + nc, generator=draw) < 0.8
    valid[:, 0] = True
    boxes[~valid[:, T:]] = 0
    return {
        "question_ids": torch.randint(0, 11, (b, T), generator=draw), "question_mask": valid[:, :T],
        "obj_features": torch.randn(b, no, 8, generator=draw), "obj_boxes": boxes[:, :no],
        "obj_mask": valid[:, T : T + no], "ocr_features": torch.randn(b, nc, 8, generator=draw),
        "ocr_fasttext": torch.randn(b, nc, 300, generator=draw),
        "ocr_phoc": (torch.rand(b, nc, 604, generator=draw) < 0.1).float(), "ocr_boxes": boxes[:, no:],
        "ocr_mask": valid[:, T + no :], "relations": spatial_graph.relations(boxes),
        "prev_inds": torch.randint(0, V + nc, (b, S), generator=draw) if nc else torch.zeros(b, S, dtype=torch.long),
    }  # fmt: skip


def made(seed: int = 0, **options: Any) -> SAM4C:
    """With weights large enough that answers differ."""
    torch.manual_seed(seed)
    model = SAM4C(SAM4CConfig(**(SMALL | options))).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 or "beta" in name:
                p.normal_(std=0.3)
    return model


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_cached_decoding_is_recomputing_everything(options: dict[str, Any]) -> None:
    for seed in range(3):
        model, given = made(seed, **options), batch(seed)
        cached, anew = model.decode(given), model.decode(given, cached=False)
        assert torch.equal(cached.indices, anew.indices)
        valid = torch.cat([torch.ones(3, V, dtype=torch.bool), given["ocr_mask"]], 1)[:, None].expand_as(anew.scores)
        torch.testing.assert_close(cached.scores[valid], anew.scores[valid], rtol=0, atol=1e-4)
        start = torch.full((3, 1), model.config.start_index)
        forced = model({**given, "prev_inds": torch.cat([start, cached.indices[:, :-1]], 1)})
        torch.testing.assert_close(forced[valid], cached.scores[valid], rtol=0, atol=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_a_beam_of_one_is_greedy_and_a_wider_one_is_not_worse(cached: bool) -> None:
    better = 0
    for seed in range(6):
        model, given = made(seed), batch(seed, b=4)
        greedy, end = model.decode(given), model.config.end_index
        wide, whole = model.decode(given, beam=5, cached=cached), model.decode(given, beam=5, cached=not cached)
        assert torch.equal(wide.indices, whole.indices)
        torch.testing.assert_close(wide.log_score, whole.log_score, rtol=0, atol=1e-3)
        # Every step's scores are the network's own, given the words before it: each beam has its own past.
        start = torch.full((4, 1), model.config.start_index)
        forced = model({**given, "prev_inds": torch.cat([start, wide.indices[:, :-1]], 1)})
        valid = torch.cat([torch.ones(4, V, dtype=torch.bool), given["ocr_mask"]], 1)[:, None].expand_as(forced)
        torch.testing.assert_close(wide.scores[valid], forced[valid], rtol=0, atol=1e-4)
        better += int((wide.log_score > greedy.log_score + 1e-4).sum())
        for row, answer in enumerate(wide.indices.tolist()):
            stop = answer.index(end) if end in answer else len(answer)
            assert set(answer[stop:]) <= {end}
            # Its score is that of its own words, given its own words.
            chosen = F.logsigmoid(wide.scores[row]).gather(-1, wide.indices[row][:, None])[: stop + 1].sum()
            assert float(chosen) == pytest.approx(float(wide.log_score[row]), abs=1e-3)
    assert better


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_beam_search_finds_what_listing_all_answers_finds(seed: int) -> None:
    """Scores that depend on the whole past, three words and an end that comes late; a beam that holds everything."""
    steps, width, end = 3, 4, 3
    draw = torch.Generator().manual_seed(seed)
    table = {
        past: torch.randn(width, generator=draw)
        for n in range(steps)
        for past in itertools.product(range(width), repeat=n)
    }
    for scores in table.values():
        scores[end] -= 4
    for beam in (1, 2, 64):
        pasts: list[tuple[int, ...]] = [()] * beam

        def step(previous: Tensor, t: int, pasts: list[tuple[int, ...]] = pasts) -> Tensor:
            if t:
                pasts[:] = [(*past, int(index)) for past, index in zip(pasts, previous)]
            return torch.stack([table[past] for past in pasts])

        def reorder(rows: Tensor, pasts: list[tuple[int, ...]] = pasts) -> None:
            pasts[:] = [pasts[int(row)] for row in rows]

        out = beam_search(step, reorder, torch.zeros(beam, dtype=torch.long), steps, end, beam)

        def value(answer: tuple[int, ...]) -> float:
            return sum(float(F.logsigmoid(table[answer[:t]])[y]) for t, y in enumerate(answer))

        best = -math.inf
        for answer in itertools.product(range(width), repeat=steps):
            stop = answer.index(end) + 1 if end in answer else steps
            best = max(best, value(answer[:stop]))
        if beam == 1:
            expected, past = 0.0, ()
            while len(past) < steps and end not in past:
                past = (*past, int(table[past].argmax()))
            expected = value(past)
        else:
            expected = best
        assert float(out.log_score) <= best + 1e-5
        if beam != 2:
            assert float(out.log_score) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_attention_maps_sum_to_one_where_something_is_seen(options: dict[str, Any]) -> None:
    model, given = made(**options), batch()
    maps = model.attention_maps(given)
    assert len(maps) == len(model.config.layers)
    length = T + NO + NC + S
    valid = torch.cat([given["question_mask"], given["obj_mask"], given["ocr_mask"]], 1)
    for kind, each in zip(model.config.layers, maps):
        assert each.shape == (3, 12, length, length)
        total = each.sum(-1)
        assert (((total - 1).abs() < 1e-5) | (total == 0)).all()
        assert not each[:, :, :, : T + NO + NC].transpose(2, 3)[~valid[:, None, :].expand(-1, 12, -1)].any()
        assert not each[:, :, : T + NO + NC, T + NO + NC :].any()
        dark = (
            kind == "s" and model.config.attention in ("spatial", "neighbours") and 1 in model.config.masked_quadrants
        )
        assert (total[:, :, :T] == 0).all() == dark
    del given["prev_inds"]
    assert len(model.attention_maps(given)) == len(maps)


def test_heads_look_along_their_relations_only() -> None:
    model, given = made(context=1), batch()
    graph, last = given["relations"], model.attention_maps(given)[-1][:, :, T : T + NO + NC, T : T + NO + NC]
    for head in range(12):
        seen = last[:, head] > 0
        assert torch.equal(seen, graph == head + 1)


def test_top_k_sees_so_many_entities() -> None:
    model, given = made(attention="top_k", top_k=2), batch()
    inner = model.attention_maps(given)[-1][:, :, T : T + NO + NC, T : T + NO + NC]
    entities = torch.cat([given["obj_mask"], given["ocr_mask"]], 1).sum(1).clamp_max(2)
    assert torch.equal((inner > 0).sum(-1), entities[:, None, None].expand(inner.shape[:3]))


def test_encoder_positions_never_see_the_answer() -> None:
    model, given = made(), batch()
    x, ocr, scene = model.entities(given)
    outs = [
        model.teacher_forced(x, ocr, scene, previous, given)
        for previous in (given["prev_inds"], given["prev_inds"] * 0)
    ]
    assert torch.equal(outs[0][1][:, : T + NO + NC], outs[1][1][:, : T + NO + NC])
    changed = given["prev_inds"].clone()
    changed[:, 2] = (changed[:, 2] + 1) % V
    later = model({**given, "prev_inds": changed})
    assert torch.equal(later[:, :2], model(given)[:, :2])
    assert not torch.equal(later[:, 2:], model(given)[:, 2:])


@pytest.mark.parametrize(("no", "nc"), [(0, 3), (4, 0), (0, 0)])
def test_no_objects_or_no_tokens(no: int, nc: int) -> None:
    model, given = made(), batch(no=no, nc=nc)
    out = model.decode(given)
    assert out.scores.shape == (3, S, V + nc)
    assert out.scores.isfinite().all()
    assert torch.equal(out.indices, model.decode(given, cached=False).indices)
    model(given).sum().backward()


def test_all_padding_has_a_finite_answer_and_gradient() -> None:
    model, given = made(), batch()
    for name in ("obj", "ocr"):
        given[f"{name}_mask"] = torch.zeros_like(given[f"{name}_mask"])
        given[f"{name}_boxes"] = torch.zeros_like(given[f"{name}_boxes"])
    given["relations"] = torch.zeros_like(given["relations"])
    scores = model(given)
    scores.clamp_min(-100).sum().backward()
    assert scores.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert (model.decode(given).indices < V).all()


def test_the_bias_of_a_relation_is_learned() -> None:
    model, given = made(relation_bias=True), batch()
    model(given)[..., :V].square().sum().backward()
    grad = model.transformer.layers[1].attention.beta.grad
    assert grad is not None
    present = set(given["relations"].unique().tolist())
    table = spatial_graph.head_table(3)
    for head, relation in table.nonzero().tolist():
        assert relation in present or not grad[head, relation]
    assert not grad[~table].any()
    assert grad.any()


def test_dropout_drops_in_training_only() -> None:
    model, given = SAM4C(SAM4CConfig(**(SMALL | {"dropout": 0.5}))), batch()
    assert not torch.equal(model(given), model(given))
    model.eval()
    assert torch.equal(model(given), model(given))


def test_scores_stay_in_float32_under_autocast() -> None:
    model, given = made(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(given)
    assert scores.dtype is torch.float32
    torch.testing.assert_close(scores[..., :V], model(given)[..., :V], rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": "nnx"}, "layers is 'nnx'"),
        ({"layers": ""}, "layers is ''"),
        ({"attention": "local"}, "attention is 'local': use one of spatial"),
        ({"masked_quadrants": (0,)}, "masked_quadrants is .0.: numbers from 1 to 9"),
        ({"context": [3]}, "context has 1 values for 2 spatial layers"),
        ({"context": 4}, "context is 4"),
        ({"heads": 5}, "dim is 24: a multiple of the 5 heads"),
        ({"heads": 6}, "heads is 6: a spatial layer has 12"),
        ({"question": "char"}, "question is 'char'"),
        ({"steps": 101}, "steps is 101: at most 100"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"end_index": V}, "end_index is 9: an index of the 9 words"),
        ({"init": "zeros"}, "init is 'zeros'"),
        ({"top_k": 0}, "top_k is 0"),
        ({"dim": 0}, "dim is 0"),
    ],
)
def test_bad_settings_are_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        SAM4C(SAM4CConfig(**(SMALL | options)))


def test_what_decoding_and_questions_refuse() -> None:
    model, given = made(), batch()
    with pytest.raises(UserError, match="beam is 0"):
        model.decode(given, beam=0)
    long = {**given, "question_ids": torch.zeros(3, 7, dtype=torch.long), "question_mask": torch.ones(3, 7).bool()}
    with pytest.raises(UserError, match="a question of 7 words: the model was made for 5"):
        model(long)
