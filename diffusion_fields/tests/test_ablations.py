"""The two networks that PerceiverIO is compared with."""

from __future__ import annotations

import pytest
import torch
from diffusion_fields.errors import FieldError
from diffusion_fields.models import FieldNetwork, MixerNetwork, TransformerNetwork, build
from torch import Tensor

SOURCE = {"coord_dim": 2, "signal_dim": 1, "num_freq": 2, "d_model": 16, "num_blocks": 2}


def transformer() -> FieldNetwork:
    torch.manual_seed(0)
    return build("transformer", **SOURCE, heads=4).eval()


def mixer() -> FieldNetwork:
    torch.manual_seed(0)
    return build("mlp_mixer", **SOURCE, num_context=9, num_query=15, d_tokens=20, signal_embedding="raw").eval()


@pytest.fixture
def fields() -> list[Tensor]:
    make = torch.Generator().manual_seed(1)
    coords, signal = torch.randn(20, 2, generator=make), torch.randn(3, 20, 1, generator=make)
    return [coords[:9], signal[:, :9], torch.tensor([3, 500, 999]), coords[5:], signal[:, 5:]]


@pytest.mark.parametrize("make", [transformer, mixer])
def test_the_three_calls_are_the_forward_pass(make: object, fields: list[Tensor]) -> None:
    assert callable(make)
    net, (cx, cy, t, qx, qy) = make(), fields
    out = net(*fields)
    assert out.shape == (3, 15, 1)
    z = net.encode_context(cx, cy, t, embedded=net.embed(cx, "context"))
    assert torch.equal(net.decode(z, t, qx, qy, embedded=net.embed(qx, "query")), out)


@pytest.mark.parametrize("make", [transformer, mixer])
def test_gradients_reach_context_values_and_every_weight(make: object, fields: list[Tensor]) -> None:
    assert callable(make)
    net, values = make(), fields[1].clone().requires_grad_()
    net(fields[0], values, *fields[2:]).square().mean().backward()
    assert values.grad is not None
    assert values.grad.abs().min() > 0
    assert [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_transformer_keeps_the_invariants_of_sets(fields: list[Tensor]) -> None:
    net, (cx, cy, t, qx, qy) = transformer(), fields
    out, order = net(*fields), torch.randperm(9)
    assert (net(cx[order], cy[:, order], t, qx, qy) - out).abs().max() < 1e-5
    chunks = torch.cat([net(cx, cy, t, qx[i : i + 4], qy[:, i : i + 4]) for i in range(0, 15, 4)], 1)
    assert (chunks - out).abs().max() < 1e-5


def test_masked_context_has_exactly_no_influence_on_the_transformer(fields: list[Tensor]) -> None:
    net, (cx, cy, t, qx, qy) = transformer(), fields
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[0, 4:] = False
    out, other = net(*fields, context_mask=mask), cy.clone()
    other[~mask] = float("nan")
    assert torch.equal(net(cx, other, t, qx, qy, context_mask=mask), out)
    assert (net(cx[:4], cy[:1, :4], t[:1], qx, qy[:1]) - out[:1]).abs().max() < 1e-5
    assert (net(*fields, context_mask=torch.ones_like(mask)) - net(*fields)).abs().max() < 1e-5


def test_the_mixer_mixes_by_position(fields: list[Tensor]) -> None:
    """Why it is an ablation: the order of the context matters to it, and queries see each other."""
    net, (cx, cy, t, qx, qy) = mixer(), fields
    out = net(*fields)
    assert (net(cx.flip(0), cy.flip(1), t, qx, qy) - out).abs().max() > 1e-4
    other = qy.clone()
    other[:, 1:] += 3.0
    assert (net(cx, cy, t, qx, other) - out)[:, 0].abs().max() > 1e-4


def test_the_mixer_refuses_sets_of_another_size(fields: list[Tensor]) -> None:
    net, (cx, cy, t, qx, qy) = mixer(), fields
    with pytest.raises(FieldError, match="the context set has 8 points: this MLP-mixer is built for 9"):
        net(cx[:8], cy[:, :8], t, qx, qy)
    with pytest.raises(FieldError, match="the query set has 5 points: this MLP-mixer is built for 15"):
        net(cx, cy, t, qx[:5], qy[:, :5])
    with pytest.raises(FieldError, match="context_mask is given to the MLP-mixer"):
        net(*fields, context_mask=torch.ones(3, 9, dtype=torch.bool))


def test_build_knows_its_networks() -> None:
    assert isinstance(transformer(), TransformerNetwork)
    assert isinstance(mixer(), MixerNetwork)
    with pytest.raises(FieldError, match="network is 'unet': use one of perceiver, transformer, mlp_mixer"):
        build("unet")
    with pytest.raises(FieldError, match=r"network 'mlp_mixer': .*num_context"):
        build("mlp_mixer", **SOURCE)
