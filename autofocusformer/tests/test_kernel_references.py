"""Definitions of the custom operators against the authors' numbers, and what the CPU runs against the definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from autofocusformer.kernels.cluster_attention import blocked as attention_blocked
from autofocusformer.kernels.cluster_attention import cluster_attention, members, unions
from autofocusformer.kernels.cluster_attention import reference as attention_reference
from autofocusformer.kernels.cluster_attention.rivals import RIVALS
from autofocusformer.kernels.nearest_clusters import nearest_clusters
from autofocusformer.kernels.nearest_clusters import reference as nearest_reference
from autofocusformer.kernels.offsets import features
from autofocusformer.kernels.point_merge import blocked as merge_blocked
from autofocusformer.kernels.point_merge import point_merge
from autofocusformer.kernels.point_merge import reference as merge_reference
from autofocusformer.kernels.point_ops import av, qk, wf
from autofocusformer.kernels.points import clustered_points
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return {k: torch.from_numpy(stored[k]) for k in stored.files}


def close(got: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=atol)


def test_members_of_short_lists_are_those_of_long_ones() -> None:
    """Cluster 4095 of 8 starts at row 32,760, cluster 4096 beyond what 16 bits hold."""
    near = torch.tensor([[[4095, 4096]]])
    for got, expected in zip(members(near.short(), 8, 32_772), members(near, 8, 32_772)):
        assert torch.equal(got, expected)


OPERATORS = {"qk": (qk, "q", "k"), "av": (av, "a", "v"), "wf": (wf, "w", "x")}


@pytest.mark.parametrize("name", OPERATORS)
def test_point_operators_are_the_authors(name: str) -> None:
    data, (function, one, two) = golden("ops"), OPERATORS[name]
    a, b = (data[f"{name}_{x}"].requires_grad_() for x in (one, two))
    out = function(a, b, data[f"{name}_idx"])
    close(out, data[f"{name}_out"])
    for got, x in zip(torch.autograd.grad(out, (a, b), data[f"{name}_gout"]), (one, two)):
        close(got, data[f"{name}_d{x}"])


def test_features_are_the_authors() -> None:
    data = golden("relpos")
    offsets, expected = (next(x for x in data.values() if x.shape[-1] == width) for width in (2, 5))
    dx, dy = offsets.float().unbind(-1)
    close(features(dx, dy).movedim(0, -1), expected.float())


def attention_parts(data: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Heads' operands of the golden attention module, differentiable in its parameters."""
    heads = 2
    p = {k[2:]: x.requires_grad_() for k, x in data.items() if k.startswith("p.")}
    x = data["x"].requires_grad_()
    batch, n, width = x.shape
    each = width // heads
    q = torch.nn.functional.linear(x, p["q.weight"], p["q.bias"]) * each**-0.5
    kv = torch.nn.functional.linear(x, p["kv.weight"], p["kv.bias"]).view(batch, n, heads, 2, each)
    q, k, v = q.view(batch, n, heads, each).transpose(1, 2), *(kv[:, :, :, i].transpose(1, 2) for i in (0, 1))
    blanks = (p[name].view(heads, each) for name in ("blank_k", "blank_v"))
    return q, k, v, p["pos_embed.weight"], p["pos_embed.bias"], *blanks


@pytest.mark.parametrize("function", [cluster_attention, attention_reference.cluster_attention])
def test_attention_is_the_authors(function: object) -> None:
    data = golden("attention")
    near, positions = data["idx"][:, :, ::8].long() // 8, data["pos"].long()
    idx, valid = members(near, 8, 87)
    assert torch.equal(idx[valid], data["idx"].long()[valid])
    assert torch.equal(valid, data["valid"].bool())
    q, k, v, *rest = attention_parts(data)
    out = function(q, k, v, positions, near, *rest, 8).transpose(1, 2).flatten(2)  # type: ignore[operator]
    out = torch.nn.functional.linear(out, data["p.proj.weight"], data["p.proj.bias"])
    close(out, data["out"])
    names = [k[2:] for k in data if k.startswith("p.")]
    grads = torch.autograd.grad(out, [data["x"], *(data[f"p.{k}"] for k in names)], data["gout"])
    for got, expected in zip(grads, [data["dx"], *(data[f"g.{k}"] for k in names)]):
        close(got, expected)


def attention_operands(
    batch: int, n: int, heads: int, width: int, size: int, nnc: int, dtype: torch.dtype = torch.float64
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Real operands in the order of the arguments without positions and lists, and these two."""
    positions, _, near = clustered_points(torch.Generator().manual_seed(0), batch, n, size, nnc)
    generator = torch.Generator().manual_seed(1)
    shapes = [(batch, heads, n, width)] * 3 + [(heads, 5), (heads,), (heads, width), (heads, width)]
    scale = [1, 1, 1, 0.2, 1, 1, 1]
    real = [
        (torch.randn(shape, generator=generator, dtype=torch.float64) * s).to(dtype) for shape, s in zip(shapes, scale)
    ]
    return [x.requires_grad_() for x in real], positions, near


CASES = [  # batch, n, heads, width, size, nnc, global
    (2, 50, 2, 4, 8, 3, False),  # neither a multiple of the cluster nor of the tile
    (1, 16, 1, 8, 4, 2, False),
    (1, 13, 3, 4, 5, 6, False),  # fewer clusters than asked for
    (1, 3, 1, 4, 8, 1, False),  # a cluster that is never full
    (2, 150, 2, 4, 8, 1, True),  # global, two tiles
    (1, 1, 1, 1, 8, 1, True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("block", [1, 2**16])
def test_attention_by_blocks_is_the_definition(
    case: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_blocked, "BLOCK", block)
    *shape, everywhere = case
    real, positions, near = attention_operands(*shape)
    lists = None if everywhere else near
    results = []
    for function in (cluster_attention, attention_reference.cluster_attention):
        out = function(*real[:3], positions, lists, *real[3:], shape[4])
        results.append((out, *torch.autograd.grad(out.sin().sum(), real)))
    for got, expected in zip(*results):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("everywhere", [False, True])
def test_rivals_compute_the_same(name: str, everywhere: bool) -> None:
    real, positions, near = attention_operands(2, 21, 2, 4, 8, 2)
    lists = None if everywhere else near
    results = []
    if name == "FlexAttention":  # it has no gradients on a CPU
        real = [x.detach() for x in real]
    for function in (RIVALS[name], attention_reference.cluster_attention):
        out = function(*real[:3], positions, lists, *real[3:], 8)
        results.append((out, *(torch.autograd.grad(out.sin().sum(), real) if real[0].requires_grad else ())))
    for got, expected in zip(*results):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_attention_by_finite_differences() -> None:
    real, positions, near = attention_operands(1, 11, 2, 3, 4, 2)

    def function(*real: Tensor) -> Tensor:
        return cluster_attention(*real[:3], positions, near, *real[3:], 4)

    assert torch.autograd.gradcheck(function, real)


def test_attention_refuses_what_does_not_belong_together() -> None:
    real, positions, near = attention_operands(1, 11, 2, 3, 4, 2)
    with pytest.raises(ValueError, match=r"positions has shape \(1, 10, 2\), q asks for \(1, 11, 2\)"):
        cluster_attention(*real[:3], positions[:, 1:], near, *real[3:], 4)
    with pytest.raises(ValueError, match=r"near has shape \(1, 10, 2\)"):
        cluster_attention(*real[:3], positions, near[:, 1:], *real[3:], 4)


def test_attention_in_16_bits_and_of_an_image_alone() -> None:
    real, positions, near = attention_operands(3, 50, 2, 8, 8, 3, torch.float32)
    whole = cluster_attention(*real[:3], positions, near, *real[3:], 8)
    alone = cluster_attention(*(x[1:2] for x in real[:3]), positions[1:2], near[1:2], *real[3:], 8)
    close(alone, whole[1:2])
    half = [x.detach().bfloat16().requires_grad_() for x in real]
    out = cluster_attention(*half[:3], positions, near, *half[3:], 8)
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out.float(), whole, rtol=2e-2, atol=2e-2)
    assert all(g.dtype is torch.bfloat16 for g in torch.autograd.grad(out.sum(), half))


def test_unions_name_each_cluster_of_a_tile_once() -> None:
    _, _, near = clustered_points(torch.Generator().manual_seed(0), 2, 50, 4, 3)
    union, count = unions(near, 16)
    assert union.shape == (2, 4, 48)
    for image in range(2):
        for tile in range(4):
            wanted = near[image, 16 * tile : 16 * tile + 16].unique().tolist()
            assert union[image, tile, : count[image, tile]].tolist() == wanted
            assert (union[image, tile, count[image, tile] :] == -1).all()


MERGE_PARAMETERS = ("weight_net.0.weight", "weight_net.0.bias", "weight_net.1.weight", "weight_net.1.bias")


@pytest.mark.parametrize("function", [point_merge, merge_reference.point_merge])
@pytest.mark.parametrize("name", ["merge_stride2", "merge_stride4"])
def test_merging_is_the_authors(name: str, function: object) -> None:
    data = golden(name)
    p = {k[2:]: x.requires_grad_() for k, x in data.items() if k.startswith("p.")}
    x, prob = data["x"].requires_grad_(), data["prob"].requires_grad_()
    where = {tuple(at): i for i, at in enumerate(data["pos"][0].tolist())}
    kept = torch.tensor([[where[tuple(at)] for at in data["out_pos"][0].tolist()]])
    merged = function(  # type: ignore[operator]
        x, prob[..., 0], data["pos"].long(), kept, data["idx"].long().gather(1, kept[..., None].expand(-1, -1, 32)),
        data["valid"].bool().gather(1, kept[..., None].expand(-1, -1, 32)), *(p[k] for k in MERGE_PARAMETERS),
    )  # fmt: skip
    normed = torch.nn.functional.layer_norm(merged.flatten(2), (48,), p["norm.weight"], p["norm.bias"])
    out = torch.nn.functional.linear(normed, p["linear.weight"], p["linear.bias"])
    close(out, data["out"])
    leaves = [x, prob, *p.values()]
    expected = [data["dx"], data["dprob"], *(data[f"g.{k}"] for k in p)]
    for got, true in zip(torch.autograd.grad(out, leaves, data["gout"]), expected):
        close(got, true, atol=1e-4)


def merge_operands(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Real operands x, prob and parameters; positions, kept, idx, valid."""
    positions, _, near = clustered_points(torch.Generator().manual_seed(0), 2, 45, 8, 2)
    idx, valid = members(near, 8, 45)
    generator = torch.Generator().manual_seed(2)
    kept = torch.stack([torch.randperm(45, generator=generator)[:11].sort().values for _ in range(2)])
    at = kept[..., None].expand(-1, -1, idx.shape[-1])
    shapes = [(2, 45, 6), (2, 45), (4, 5), (4,), (4,), (4,)]
    real = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]
    return real, (positions, kept, idx.gather(1, at), valid.gather(1, at))


@pytest.mark.parametrize("block", [1, 2**18])
def test_merging_by_blocks_is_the_definition(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_blocked, "BLOCK", block)
    real, lists = merge_operands()
    results = []
    for function in (point_merge, merge_reference.point_merge):
        out = function(*real[:2], *lists, *real[2:])
        results.append((out, *torch.autograd.grad(out.sin().sum(), real)))
    for got, expected in zip(*results):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_merging_by_finite_differences() -> None:
    real, lists = merge_operands()
    assert torch.autograd.gradcheck(lambda *r: point_merge(*r[:2], *lists, *r[2:]), real, fast_mode=True)


@pytest.mark.parametrize("tile", [1, 100, 2**20])
def test_nearest_clusters_take_the_lower_index_of_ties(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_reference, "TILE", tile)
    y, x = torch.meshgrid(torch.arange(9), torch.arange(7), indexing="ij")
    positions = torch.stack([x, y], -1).view(1, -1, 2).repeat(2, 1, 1)  # a grid of centres: ties everywhere
    centres = torch.stack([positions[0, ::3].double(), positions[0, 1::3].double() + 1 / 3])
    for nnc in (1, 4, 6, 100):
        near = nearest_clusters(positions, centres, nnc)
        squared = (positions[:, :, None].double() - centres[:, None]).square().sum(-1)
        order = (squared * 2**30).round().argsort(dim=-1, stable=True)
        assert torch.equal(near, order[..., :nnc].sort(-1).values)


def test_nearest_clusters_never_hold_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    """n = 32,768 tokens and k = 4,096 centres: a table of all distances would be 1 GB."""
    sizes = list[int]()

    def watched(keys: Tensor, count: int) -> Tensor:
        sizes.append(keys.numel())
        return torch.zeros(len(keys), count, dtype=torch.long)

    monkeypatch.setattr(nearest_reference, "smallest", watched)
    positions = torch.zeros(1, 32768, 2, dtype=torch.long)
    assert nearest_clusters(positions, torch.zeros(1, 4096, 2), 6).shape == (1, 32768, 6)
    assert max(sizes) <= 2**20
    assert sum(sizes) == 32768 * 4096
