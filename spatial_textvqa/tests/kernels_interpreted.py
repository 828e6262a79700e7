"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: see `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared.kernels.harness import TOLERANCE, Check, compare
from shared.kernels.harness import draw as operands
from spatial_textvqa.kernels.checks import CHECKS
from spatial_textvqa.kernels.relation_attention import Layout, reference, relation_attention, subset_bits
from spatial_textvqa.kernels.relation_attention import triton as kernel
from spatial_textvqa.kernels.relations import build_relations
from spatial_textvqa.model import SAM4C, SAM4CConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime import interpreter

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles each way, of unequal sides, at the lengths of a test."""
    for table in (kernel.FORWARD, kernel.BACKWARD):
        for arithmetic, launch in table.items():
            monkeypatch.setitem(table, arithmetic, {**launch, "ROWS": 16, "COLUMNS": 8})


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_against_the_definition(check: Check, dtype: torch.dtype) -> None:
    for shape in check.small:
        errors = compare(check, operands(check, shape, "cpu", dtype))
        assert ("grad3" in errors) == check.gradients
        assert max(errors.values()) <= TOLERANCE[dtype], errors


Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def drawn(layout: Layout, b: int = 1, h: int = 2, d: int = 5, seed: int = 0) -> Inputs:
    """q, k, v, beta, R and valid keys."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(b, h, layout.length, d, generator=draw) for _ in range(3))
    beta = torch.randn(h, 13, generator=draw)
    relations = torch.randint(0, 13, (b, layout.entities, layout.entities), generator=draw).to(torch.uint8)
    valid = torch.rand(b, layout.length, generator=draw) < 0.7
    valid[:, layout.parts[2]] = True
    return q, k, v, beta, relations, valid


def both(
    inputs: Inputs, layout: Layout, bits: Sequence[int], quadrants: Sequence[int], with_beta: bool
) -> list[tuple[Tensor, ...]]:
    """Output and gradients of the kernel, and of the definition in float64."""
    out = []
    for dtype, function in ((torch.float32, relation_attention), (torch.float64, reference.relation_attention)):
        q, k, v, beta, relations, valid = inputs
        leaves = [x.to(dtype).requires_grad_() for x in ((q, k, v, beta) if with_beta else (q, k, v))]
        table = leaves[3] if with_beta else None
        y = function(*leaves[:3], relations, valid, layout, bits, table, quadrants)
        up = torch.linspace(-1, 2, y.numel(), dtype=dtype).view(y.shape).cos()
        out.append((y, *torch.autograd.grad(y, leaves, up)))
    return out


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("quadrants", [(1, 2), (), (1, 2, 4), (1, 2, 8), (5, 9)], ids=str)
@pytest.mark.parametrize("with_beta", [True, False])
def test_every_rule(quadrants: tuple[int, ...], with_beta: bool, launches: list[str]) -> None:
    layout = Layout(17, 9, 5)  # the question has a tile for itself, no length is a multiple of a tile
    for ours, expected in zip(*both(drawn(layout), layout, subset_bits(3)[3:5], quadrants, with_beta)):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)
    assert launches == ["attention_kernel", "keys_gradient_kernel", "queries_gradient_kernel"]


def test_rows_that_see_nothing_are_zero_with_zero_gradient() -> None:
    layout = Layout(3, 4, 2)
    q, k, v, _, relations, valid = drawn(layout)
    valid[:, :3] = False
    relations.zero_()
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = relation_attention(*leaves, relations, valid, layout, subset_bits(1)[:2])
    assert not out[:, :, :7].any()
    assert out[:, :, 7:].any()
    grads = torch.autograd.grad(out.sum(), leaves)
    assert all(g.isfinite().all() for g in grads)
    assert not grads[0][:, :, :7].any()


def test_attention_is_the_authors() -> None:
    with np.load(GOLDEN / "attention.npz", allow_pickle=False) as file:
        values = {key: torch.from_numpy(np.array(file[key])) for key in file.files}
    x = values["attn_c3_x"].requires_grad_()
    q, k, v = (
        (x @ values[f"attn_w{s}"].T + values[f"attn_b{s}"]).unflatten(-1, (12, 4)).transpose(1, 2) for s in "qkv"
    )
    assert not q.is_contiguous()
    masks = torch.cat([values[f"{name}_mask"] for name in ("question", "obj", "ocr")], 1)
    valid = torch.nn.functional.pad(masks, (0, 4), value=1.0).bool()
    out = relation_attention(q, k, v, values["rel"].to(torch.uint8), valid, (6, 12, 4), 3).transpose(1, 2).flatten(2)
    torch.testing.assert_close(out, values["attn_c3_out"], rtol=0, atol=2e-5)
    (grad,) = torch.autograd.grad(out, x, values["attn_c3_gout"])
    torch.testing.assert_close(grad, values["attn_c3_gx"], rtol=0, atol=2e-5)


def test_two_backwards_agree_bit_for_bit() -> None:
    layout = Layout(3, 12, 4)
    runs = []
    for _ in range(2):
        q, k, v, beta, relations, valid = drawn(layout)
        leaves = [x.requires_grad_() for x in (q, k, v, beta)]
        out = relation_attention(*leaves[:3], relations, valid, layout, subset_bits(9)[3:5], beta)
        runs.append(torch.autograd.grad(out.square().sum(), leaves))
    assert all(torch.equal(a, b) for a, b in zip(*runs))


@pytest.mark.usefixtures("small_tiles")
def test_dropout_is_the_same_in_both_directions() -> None:
    """With unit vectors as values the output shows the probabilities that were kept; then autograd with these."""
    layout, share = Layout(4, 20, 6), 0.3
    q, k, _, _, relations, valid = drawn(layout, d=layout.length)
    bits = subset_bits(9)[4:6]
    unit = torch.eye(layout.length).expand(1, 2, -1, -1).contiguous()
    seeds = []
    for v in (unit, torch.randn(unit.shape, generator=torch.Generator().manual_seed(5))):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        torch.manual_seed(7)
        out = relation_attention(*leaves, relations, valid, layout, bits, dropout=share)
        seeds.append((out, torch.autograd.grad(out.cos().sum(), leaves), leaves))
    plain = relation_attention(q, k, unit, relations, valid, layout, bits)
    shown, seen = seeds[0][0].detach(), plain > 0
    factor = torch.where(seen, shown / plain.clamp_min(1e-30), 0)
    kept = factor[seen] > 0
    torch.testing.assert_close(factor[seen][kept], torch.full_like(factor[seen][kept], 1 / (1 - share)))
    assert abs(float(kept.float().mean()) - (1 - share)) < 0.08
    out, grads, leaves = seeds[1]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    mask = reference.softmax_mask(reference.allowed(relations, valid, layout, bits))
    scores = exact[0] @ exact[1].mT / layout.length**0.5
    expected = (reference.probabilities(scores, mask) * factor.double().round(decimals=6)) @ exact[2]
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(grads, torch.autograd.grad(expected.cos().sum(), exact)):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4)


class Largest(TorchDispatchMode):
    """The largest tensor that comes to be inside."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(out) if isinstance(x, Tensor))])
        return out


def test_no_tensor_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launchers allocate grows with L and not with its square; the kernels can't allocate."""
    layout = Layout(8, 72, 8)
    q, k, v, beta, relations, valid = drawn(layout, h=1, d=3)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", lambda self, *args, **kwargs: None)
    bits = (subset_bits(3)[5],)
    with Largest() as largest:
        out, lse = kernel.launch_forward(q, k, v, relations, valid, layout, bits, beta, 3, 0.1, 1)
        kernel.launch_backward(out, q, k, v, relations, valid, layout, bits, beta, 3, 0.1, 1, out, lse)
    assert largest.numel <= max(q.numel(), relations.numel())
    assert largest.numel < layout.length**2
    assert relations.element_size() == 1


def test_the_network_runs_through_the_kernels(launches: list[str]) -> None:
    """In training with the learned bias: the kernels' gradients against those of float64, which runs the definition."""
    settings: dict[str, Any] = {
        "vocab_size": 9, "question": "words", "question_vocab": 11, "question_length": 5, "text_layers": 0, "dim": 24,
        "ffn": 8, "layers": "ns", "feature_width": 4, "steps": 3, "dropout": 0.0, "relation_bias": True,
    }  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(1, 6, 2, generator=draw) * 0.7
    boxes = torch.cat([corner, corner + 0.2], -1)
    batch = {
        "question_ids": torch.tensor([[1, 2, 3, 4, 0]]), "question_mask": torch.tensor([[1, 1, 1, 1, 0]]).bool(),
        "obj_features": torch.randn(1, 4, 4, generator=draw), "obj_boxes": boxes[:, :4],
        "obj_mask": torch.ones(1, 4).bool(), "ocr_features": torch.randn(1, 2, 4, generator=draw),
        "ocr_fasttext": torch.randn(1, 2, 300, generator=draw), "ocr_phoc": torch.ones(1, 2, 604),
        "ocr_boxes": boxes[:, 4:], "ocr_mask": torch.ones(1, 2).bool(), "relations": build_relations(boxes),
        "prev_inds": torch.tensor([[1, 10, 4]]),
    }  # fmt: skip
    torch.manual_seed(0)
    model = SAM4C(SAM4CConfig(**settings, init="default"))
    model(batch).square().mean().backward()
    names = ["relations_kernel", *["attention_kernel"] * 2, *["keys_gradient_kernel", "queries_gradient_kernel"] * 2]
    assert launches == names
    ours = [p.grad.double() for p in model.parameters() if p.grad is not None]
    model.double().zero_grad()
    model({name: x.double() if x.is_floating_point() else x for name, x in batch.items()}).square().mean().backward()
    assert launches == names
    for a, b in zip(ours, [p.grad for p in model.parameters() if p.grad is not None], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_opcheck() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    layout = Layout(2, 3, 2)
    q, k, v, beta, relations, valid = drawn(layout, h=1)
    operator = torch.ops.spatial_textvqa
    for table in (beta.requires_grad_(), None):
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        given = (*leaves, relations, valid, list(layout), [EDGES], table, 3, 0.0, 1)
        outcome = torch.library.opcheck(operator.relation_attention.default, given)
        assert set(outcome.values()) == {"SUCCESS"}
    outcome = torch.library.opcheck(operator.relations.default, (torch.rand(2, 3, 4), 0.5, "clean"))
    assert set(outcome.values()) == {"SUCCESS"}


EDGES = (1 << 13) - 2


def test_compile_fullgraph() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False
    layout = Layout(2, 3, 2)
    q, k, v, beta, relations, valid = drawn(layout, h=1)
    leaves = [x.requires_grad_() for x in (q, k, v, beta)]

    def loss(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        return relation_attention(q, k, v, relations, valid, layout, [EDGES], beta).square().sum()

    plain, compiled = loss(*leaves), torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves)
    torch.testing.assert_close(compiled, plain)
    for a, b in zip(torch.autograd.grad(compiled, leaves), torch.autograd.grad(plain, leaves)):
        torch.testing.assert_close(a, b)


def test_relations_are_the_authors(launches: list[str]) -> None:
    with np.load(GOLDEN / "relations.npz", allow_pickle=False) as file:
        for scene in ("mix40", "full150"):
            boxes = torch.from_numpy(np.array(file[f"{scene}_boxes"]))
            expected = torch.from_numpy(np.array(file[f"{scene}_rel_thr0.5"])).to(torch.uint8)
            assert torch.equal(build_relations(boxes), expected)
    assert launches == ["relations_kernel"] * 2
    assert build_relations(torch.zeros(2, 0, 4)).shape == (2, 0, 0)


def test_shapes_that_don_t_belong_together(launches: list[str]) -> None:
    layout = Layout(2, 3, 2)
    q, k, v, beta, relations, valid = drawn(layout)
    bits = [EDGES] * 2
    for change, says in (
        ({"k": k[:, :1]}, "k has shape"),
        ({"R": relations[:, :2]}, r"R has shape \(1, 2, 3\), expected \(1, 3, 3\)"),
        ({"key_valid": valid[:, 1:]}, "key_valid has shape"),
        ({"beta": beta[:, 1:]}, r"beta has shape \(2, 12\), expected \(2, 13\)"),
        ({"layout": (2, 3, 3)}, r"layout \(2, 3, 3\) and 2 subsets for 7 positions and 2 heads"),
        ({"R": relations.int()}, "R is torch.int32"),
    ):
        given = {"q": q, "k": k, "v": v, "R": relations, "key_valid": valid, "layout": layout, "c": bits, "beta": beta}
        with pytest.raises(ValueError, match=says):
            relation_attention(**(given | change))  # type: ignore[arg-type]
    assert relation_attention(q[:0], k[:0], v[:0], relations[:0], valid[:0], layout, bits).shape == (0, 2, 7, 5)
    assert launches == []
