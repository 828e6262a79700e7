"""The score network against the reference's numbers, its parameter counts, and what must not influence what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusion_fields.errors import FieldError
from diffusion_fields.models import PAPER_SIZES, ScoreNetwork, build, cost
from diffusion_fields.models.attention import FEW_KEYS, Layer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from diffusion_fields import kernels

INPUTS = ("context_coords", "context_signal", "t", "query_coords", "query_signal")


def golden(name: str) -> tuple[ScoreNetwork, list[Tensor], Tensor, dict[str, Any]]:
    arrays = dict(np.load(Path(__file__).parent / "golden" / f"score_net_{name}.npz"))
    net = ScoreNetwork(**json.loads(str(arrays["cfg"]))).eval()
    net.load_reference(arrays)
    return net, [torch.from_numpy(arrays[key]) for key in INPUTS], torch.from_numpy(arrays["eps"]), arrays


def quick(**options: Any) -> ScoreNetwork:
    """The quick tier's network."""
    torch.manual_seed(0)
    return ScoreNetwork(2, 1, 2, 32, 12, 32, 2, 1, 4, **options).eval()


@pytest.fixture
def fields() -> list[Tensor]:
    """Context, steps and queries of three fields with points of their own."""
    make = torch.Generator().manual_seed(1)
    coords, signal = torch.randn(3, 20, 2, generator=make), torch.randn(3, 20, 1, generator=make)
    return [coords[:, :9], signal[:, :9], torch.tensor([3, 500, 999]), coords[:, 5:], signal[:, 5:]]


# --- exactly the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_output_is_the_references(name: str) -> None:
    net, inputs, expected, _ = golden(name)
    with torch.no_grad():
        assert (net(*inputs) - expected).abs().max() <= 1e-5


def test_gradients_are_those_of_the_plain_definition() -> None:
    """Section 3 written out with one concatenation and one product a line, in float64, differentiated by autograd."""
    net, inputs, _, _ = golden("a")
    net, inputs = net.double(), [x.double() if x.is_floating_point() else x for x in inputs]
    weights = dict(net.named_parameters())
    names = list(weights)
    mine = torch.autograd.grad(net(*inputs).square().sum(), [weights[n] for n in names])
    plain = _plain(weights, net.tok.num_freq, 2, 1, 2, *inputs)
    assert torch.allclose(net(*inputs), plain, atol=1e-12)
    theirs = torch.autograd.grad(plain.square().sum(), [weights[n] for n in names])
    for parameter, a, b in zip(names, mine, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-9), parameter


def _plain(
    w: dict[str, Any],
    bands: int,
    blocks: int,
    own: int,
    heads: int,
    cx: Tensor,
    cy: Tensor,
    t: Tensor,
    qx: Tensor,
    qy: Tensor,
) -> Tensor:
    from diffusion_fields.models.features import fourier_features, timestep_features
    from torch.nn import functional as F

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def feature(name: str, x: Tensor) -> Tensor:
        return F.gelu(norm(f"tok.{name}.norm", linear(f"tok.{name}.linear", x)))

    def tokens(side: str, x: Tensor, e_y: Tensor) -> Tensor:
        e_x = feature(f"{side}_x", fourier_features(x, bands))
        e_t = feature("t", timestep_features(t, e_x.shape[-1]).double()).unsqueeze(1).expand_as(e_x)
        return feature(f"{side}_cat", torch.cat((e_x, e_y, e_t), -1))

    def layer(name: str, x: Tensor, kv: Tensor | None) -> Tensor:
        h = norm(f"{name}.norm_q", x)
        kv = h if kv is None else norm(f"{name}.norm_kv", kv)
        q, k, v = linear(f"{name}.q", h), linear(f"{name}.k", kv), linear(f"{name}.v", kv)
        out = []
        for a, b, c in zip(*(u.chunk(heads, -1) for u in (q, k, v)), strict=True):
            out.append(torch.softmax(a @ b.transpose(1, 2) / a.shape[-1] ** 0.5, -1) @ c)
        x = x + linear(f"{name}.o", torch.cat(out, -1))
        return x + linear(f"{name}.mlp.2", F.gelu(linear(f"{name}.mlp.0", norm(f"{name}.norm_mlp", x))))

    context, e_y = tokens("ctx", cx, feature("ctx_y", cy)), feature("qry_y", qy)
    z = w["latents"].expand(len(t), -1, -1)
    for block in range(blocks):
        z = layer(f"enc.cross.{block}", z, context)
        for i in range(own):
            z = layer(f"enc.self.{block}.{i}", z, None)
    x = linear("dec.proj", layer("dec.cross", tokens("qry", qx, e_y), z))
    return linear("head", torch.cat((x, e_y), -1))


SMALL, BASE, LARGE = (tuple(PAPER_SIZES[name].values()) for name in ("small", "base", "large"))


@pytest.mark.parametrize(
    ("source", "sizes", "options", "expected"),
    [
        ((3, 1, 6), SMALL, {}, 11_626_898),
        ((2, 3, 10), BASE, {}, 59_942_559),
        ((3, 1, 10), BASE, {}, 60_076_274),
        ((75, 3, 0), SMALL, {"coord_embedding": "trainable"}, 11_991_043),
        ((75, 3, 0), BASE, {"coord_embedding": "trainable"}, 60_559_619),
        ((75, 3, 0), LARGE, {"coord_embedding": "trainable"}, 236_178_179),
        ((2, 1, 2), (32, 12, 32, 2, 1, 4), {}, 36_577),
        ((2, 1, 4), (64, 16, 64, 2, 1, 4), {}, 140_305),
        ((3, 1, 3), (96, 32, 96, 3, 1, 4), {}, 421_414),
        ((2, 1, 2), (32, 12, 32, 2, 1, 4), {"signal_embedding": "raw"}, 35_992),
    ],
)
def test_parameter_counts_are_the_specifications(
    source: tuple[int, ...], sizes: tuple[int, ...], options: dict[str, str], expected: int
) -> None:
    with torch.device("meta"):
        assert ScoreNetwork(*source, *sizes, **options).num_parameters() == expected


def test_load_reference_refuses_missing_surplus_and_misshapen_weights() -> None:
    net, _, _, arrays = golden("a")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    missing = {name: array for name, array in arrays.items() if name != "w/head.bias"}
    with pytest.raises(ValueError, match=r"no weight 'head\.bias'"):
        net.load_reference(missing)
    with pytest.raises(ValueError, match=r"the network has no weight 'tok\.extra'"):
        net.load_reference({**arrays, "w/tok.extra": np.zeros(3)})
    with pytest.raises(ValueError, match=r"weight 'latents' has shape \(5, 16\): expected \(6, 16\)"):
        net.load_reference({**arrays, "w/latents": np.zeros((5, 16), np.float32)})
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# --- the calls that sampling makes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"signal_embedding": "raw"}, {"normalize": "per_set"}])
def test_the_three_calls_are_the_forward_pass(fields: list[Tensor], options: dict[str, str]) -> None:
    net, (cx, cy, t, qx, qy) = quick(**options), fields
    z = net.encode_context(cx, cy, t, embedded=net.embed(cx, "context"))
    assert torch.equal(net.decode(z, t, qx, qy, embedded=net.embed(qx, "query")), net(*fields))


def test_a_shared_grid_is_as_good_as_a_copy_for_every_field(fields: list[Tensor]) -> None:
    net, (cx, cy, t, qx, qy) = quick(), fields
    shared = net(cx[0], cy, t, qx[0], qy)
    copies = net(cx[:1].expand(3, -1, -1), cy, t, qx[:1].expand(3, -1, -1), qy)
    assert (shared - copies).abs().max() < 1e-6
    assert net.embed(qx[0], "query").shape == (15, 32)  # once, not once a field


def test_one_step_stands_for_all_fields(fields: list[Tensor]) -> None:
    net, (cx, cy, _, qx, qy) = quick(), fields
    assert torch.equal(net(cx, cy, torch.tensor(7), qx, qy), net(cx, cy, torch.tensor([7, 7, 7]), qx, qy))


@pytest.mark.parametrize("latents", [FEW_KEYS, FEW_KEYS + 1])
def test_queries_do_not_depend_on_each_other_and_context_has_no_order(fields: list[Tensor], latents: int) -> None:
    """Invariants 1 and 2, for both forms of attention."""
    torch.manual_seed(0)
    net, (cx, cy, t, qx, qy) = ScoreNetwork(2, 1, 2, 32, latents, 32, 2, 1, 4).eval(), fields
    out = net(*fields)
    order = torch.randperm(15)
    assert (net(cx, cy, t, qx[:, order], qy[:, order]) - out[:, order]).abs().max() < 1e-5
    order = torch.randperm(9)
    assert (net(cx[:, order], cy[:, order], t, qx, qy) - out).abs().max() < 1e-5
    alone = torch.cat([net(cx, cy, t, qx[:, i : i + 4], qy[:, i : i + 4]) for i in range(0, 15, 4)], 1)
    assert (alone - out).abs().max() < 1e-5
    other = qy.clone()
    other[:, 1:] += 3.0
    assert (net(cx, cy, t, qx, other) - out)[:, 0].abs().max() < 1e-5
    assert (net(cx, cy, t, qx, other) - out)[:, 1:].abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"signal_embedding": "raw"}, {"normalize": "per_set"}])
def test_masked_context_has_exactly_no_influence(fields: list[Tensor], options: dict[str, str]) -> None:
    """Invariant 10: whatever stands at a masked place, NaN included, the output is the same to the last bit."""
    net, (cx, cy, t, qx, qy) = quick(**options), fields
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[0, 4:], mask[1, 7:] = False, False
    out = net(*fields, context_mask=mask)
    other_x, other_y = cx.clone(), cy.clone()
    other_x[~mask], other_y[~mask] = 1e4, float("nan")
    assert torch.equal(net(other_x, other_y, t, qx, qy, context_mask=mask), out)
    cut = net(cx[:1, :4], cy[:1, :4], t[:1], qx[:1], qy[:1])
    assert (cut - out[:1]).abs().max() < 1e-5
    assert (net(*fields) - out)[0].abs().max() > 1e-5  # the mask does hide something
    all_seen = net(*fields, context_mask=torch.ones_like(mask))
    assert (all_seen - net(*fields)).abs().max() < 1e-5


def test_masked_context_gets_no_gradient(fields: list[Tensor]) -> None:
    net, (cx, cy, t, qx, qy) = quick(), fields
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[0, 4:] = False
    mask[2] = False  # a field without any context is no accident: its queries see their own values alone
    values = cy.clone().requires_grad_()
    net(cx, values, t, qx, qy, context_mask=mask).square().sum().backward()
    assert values.grad is not None
    assert (values.grad[~mask] == 0).all()
    assert (values.grad[mask] != 0).all()
    assert values.grad.isfinite().all()


def test_gradients_reach_context_values_coordinates_and_every_weight(fields: list[Tensor]) -> None:
    for options in ({}, {"signal_embedding": "raw"}, {"num_classes": 3}):
        net, (cx, cy, t, qx, qy) = quick(**options).train(), fields
        values, points = cy.clone().requires_grad_(), qx.clone().requires_grad_()
        net(cx, values, t, points, qy).square().mean().backward()
        assert values.grad is not None
        assert values.grad.abs().min() > 0
        assert points.grad is not None  # surface normals need it
        assert points.grad.abs().min() > 0
        without = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "b"])
def test_bfloat16_autocast_stays_close(name: str) -> None:
    """Invariant 7."""
    net, inputs, _, _ = golden(name)
    with torch.no_grad():
        exact = net(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(*inputs).float()
    error = ((rough - exact).norm() / exact.norm()).item()
    assert 1e-4 < error < 3e-2


def test_raw_signals_reach_the_tokens_and_the_head_themselves() -> None:
    net = quick(signal_embedding="raw")
    assert net.tok.ctx_cat.linear.in_features == 2 * 10 + 1
    assert net.head.in_features == 32 + 1
    assert sum(p.numel() for p in net.parameters() if not p.requires_grad) == 2 * 10 * (1 + 3)


def test_a_label_changes_the_output_and_none_is_the_null_class(fields: list[Tensor]) -> None:
    net = quick(num_classes=3)
    assert net.num_parameters() == 36_577 + 4 * 10 + 2 * 10 + 2 * 10 * 32
    null, first, second = (net(*fields, label=torch.tensor([c] * 3)) for c in (3, 0, 1))
    assert torch.equal(net(*fields), null)
    assert (first - second).abs().max() > 1e-4
    assert (first - null).abs().max() > 1e-4


def test_dropout_acts_in_training_only(fields: list[Tensor]) -> None:
    net, plain = quick(dropout=0.5), quick()
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net(*fields), plain(*fields))
    net.train()
    assert not torch.equal(net(*fields), net(*fields))


def test_set_normalisation_depends_on_the_other_points(fields: list[Tensor]) -> None:
    """The reference code's defect, which the option keeps: a chunk of queries is another set."""
    net, (cx, cy, t, qx, qy) = quick(normalize="per_set"), fields
    assert (net(cx, cy, t, qx[:, :5], qy[:, :5]) - net(*fields)[:, :5]).abs().max() > 1e-4


@pytest.mark.parametrize(("embedding", "bands", "width"), [("none", 0, 4), ("trainable", 0, 128), ("fourier", 1, 12)])
def test_coordinate_embeddings_have_their_widths(embedding: str, bands: int, width: int) -> None:
    net = ScoreNetwork(4, 2, bands, 16, 4, 16, 1, 0, 2, coord_embedding=embedding)
    assert net.tok.width == width
    assert net(
        torch.randn(5, 4), torch.randn(2, 5, 2), torch.tensor([1, 2]), torch.randn(6, 4), torch.randn(2, 6, 2)
    ).shape == (2, 6, 2)


def test_both_forms_of_attention_agree() -> None:
    torch.manual_seed(0)
    layer, x, kv = Layer(16, 4, 24), torch.randn(2, 9, 16), torch.randn(2, FEW_KEYS, 24)
    everything = torch.ones(2, FEW_KEYS, dtype=torch.bool)  # a mask takes the library's kernel
    assert (layer(x, kv) - layer(x, kv, everything)).abs().max() < 1e-6


def test_on_a_gpu_the_operator_says_when_to_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any size: the only threshold is the operator's. Not where a gradient, a mask or dropout is wanted."""
    asked = list[int]()

    def operator(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        asked.append(k.shape[2])
        return q

    monkeypatch.setattr(kernels, "split_kv_cross_attention", operator)
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, *_: q)
    layer, dropping = Layer(16, 4, 24), Layer(16, 4, 24, 0.1)
    with FakeTensorMode():  # shapes and devices without numbers
        q, k, few = (torch.empty(2, size, 24, device="cuda") for size in (300, 3000, 5))
        mask = torch.ones(2, 3000, dtype=torch.bool)
        with torch.no_grad():
            assert layer._attend(q, k, k, None).shape == q.shape
            layer._attend(q, few, few, None)
            assert asked == [3000, 5]
            layer._attend(q, k, k, mask)
            dropping._attend(q, k, k, None)
        layer._attend(q, k, k, None)
        assert asked == [3000, 5]
        with torch.no_grad():
            dropping.eval()._attend(q, k, k, None)
    assert asked == [3000, 5, 3000]


def test_the_cost_is_what_pytorch_counts() -> None:
    net = ScoreNetwork(2, 3, 4, 64, 16, 32, 2, 1, 4)
    x, y = torch.randn(16, 2), torch.randn(1, 16, 3)
    grids = net.embed(x, "context"), net.embed(x, "query")
    with FlopCounterMode(display=False) as counter:
        z = net.encode_context(x, y, torch.tensor([3]), embedded=grids[0])
        net.decode(z, torch.tensor([3]), x, y, embedded=grids[1])
    assert cost(net, 16, 16).forward_flops == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_the_large_network_takes_one_teraflop_a_field() -> None:
    with torch.device("meta"):
        net = ScoreNetwork(2, 3, 10, **PAPER_SIZES["large"])
    assert cost(net, 4096, 4096).forward_flops == pytest.approx(1e12, rel=0.05)
    assert cost(net, 4096, 4096).parameters == net.num_parameters()


# --- bad input --------------------------------------------------------------------------------------------------------


def _bad(position: int, value: Tensor) -> Any:
    return lambda fields: [value if i == position else x for i, x in enumerate(fields)]


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.zeros(3, 9, 3), r"context_coords has shape \(3, 9, 3\): expected .*since coord_dim is 2"),
        (3, torch.zeros(15, 1), r"query_coords has shape \(15, 1\): expected .*since coord_dim is 2"),
        (1, torch.zeros(3, 9, 2), r"context_signal has shape \(3, 9, 2\): expected .*since signal_dim is 1"),
        (4, torch.zeros(3, 15), r"query_signal has shape \(3, 15\): expected \(batch, points, 1\)"),
        (0, torch.zeros(3, 8, 2), r"context_coords has \(3, 8\) points and context_signal \(3, 9\)"),
        (0, torch.zeros(2, 9, 2), r"context_coords has \(2, 9\) points and context_signal \(3, 9\)"),
        (3, torch.zeros(0, 2), r"query_coords has shape \(0, 2\): expected .*at least one point"),
        (4, torch.zeros(2, 15, 1), "query_signal has 2 fields: expected 3"),
        (2, torch.tensor([1, 2]), r"t has shape \(2,\): expected one diffusion step for each of 3 fields"),
    ],
)
def test_inputs_of_the_wrong_shape_are_named(fields: list[Tensor], position: int, value: Tensor, message: str) -> None:
    fields[position] = value
    with pytest.raises(FieldError, match=message):
        quick()(*fields)


def test_masks_and_labels_of_the_wrong_kind_are_named(fields: list[Tensor]) -> None:
    with pytest.raises(FieldError, match=r"context_mask has shape \(3, 8\).*expected booleans of shape \(3, 9\)"):
        quick()(*fields, context_mask=torch.ones(3, 8, dtype=torch.bool))
    with pytest.raises(FieldError, match=r"type torch.float32: expected booleans"):
        quick()(*fields, context_mask=torch.ones(3, 9))
    with pytest.raises(FieldError, match="label is given to a network without classes"):
        quick()(*fields, label=torch.tensor([0, 1, 2]))
    with pytest.raises(FieldError, match=r"label has shape \(2,\): expected one class for each of 3 fields"):
        quick(num_classes=3)(*fields, label=torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads is 5: it has to divide the attention's width 32"),
        ({"d_model": 0}, "d_model is 0: it has to be 1 or more"),
        ({"num_latents": 0}, "num_latents is 0"),
        ({"num_freq": -2}, "num_freq is -2"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"signal_embedding": "row"}, "signal_embedding is 'row': use one of 'reference', 'raw'"),
        ({"coord_embedding": "learned"}, "coord_embedding is 'learned'"),
        ({"normalize": "batch"}, "normalize is 'batch'"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"bands": 3}, "network 'perceiver': .*bands"),
    ],
)
def test_settings_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    sizes = {"coord_dim": 2, "signal_dim": 1, "num_freq": 2, "d_model": 32, "num_latents": 12, "d_latents": 32}
    with pytest.raises(FieldError, match=message):
        build("perceiver", **{**sizes, "num_blocks": 2, "self_per_block": 1, "heads": 4, **options})
