"""Neighbourhoods, attention and merging are those of the authors' code, with every gradient."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from autofocusformer.attention import Attention, Block, drop_path
from autofocusformer.clustering import balanced_clusters
from autofocusformer.merging import Merging
from autofocusformer.neighbourhood import Neighbourhood, members, neighbourhood, neighbours_of
from autofocusformer.positions import canvas_positions
from autofocusformer.sampling import keep
from torch import nn

GOLDEN = Path(__file__).parent / "golden"
META = json.loads((GOLDEN / "cluster_meta.json").read_text())


def load_parameters(module: nn.Module, data: np.lib.npyio.NpzFile) -> None:
    module.load_state_dict({name[2:]: torch.from_numpy(data[name]) for name in data.files if name.startswith("p.")})


def assert_gradients(module: nn.Module, data: np.lib.npyio.NpzFile, atol: float) -> None:
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(parameter.grad, data[f"g.{name}"], rtol=1e-4, atol=atol, err_msg=name)


def clusters_of(idx: np.ndarray, size: int) -> torch.Tensor:
    """The lists of clusters behind lists of all their members."""
    return torch.from_numpy(idx[..., ::size] // size).long()


@pytest.mark.parametrize("case", sorted(META))
def test_the_six_nearest_clusters_are_those_of_the_golden_cases(case: str) -> None:
    data, meta = np.load(GOLDEN / "cluster.npz"), META[case]
    order = torch.from_numpy(data[f"{case}_perm"]).long()
    positions = torch.from_numpy(data[f"{case}_pos"]).long().gather(1, order[..., None].expand(-1, -1, 2))
    clusters = balanced_clusters(positions, meta["m"], (meta["h"], meta["w"]))
    centres = torch.from_numpy(data[f"{case}_mean"])
    torch.testing.assert_close(clusters.centres.float(), centres)
    near = neighbourhood(positions, clusters, 6).near
    assert near is not None
    sure = ~data[f"{case}_near6_tie"]
    assert np.array_equal(near.sort(-1).values[sure], data[f"{case}_near6"][sure])


def test_equally_near_clusters_are_taken_from_the_lower_index_on() -> None:
    positions = canvas_positions(16, 16)[None]
    clusters = balanced_clusters(positions, 8, (16, 16))
    ordered = positions.gather(1, clusters.order[..., None].expand(-1, -1, 2))
    squared = (ordered.double()[:, :, None] - clusters.centres[:, None]).square().sum(-1)
    expected = (squared * 1e9).round().sort(dim=-1, stable=True).indices[..., :6].sort(-1).values
    near = neighbourhood(ordered, clusters, 6).near
    assert near is not None
    assert torch.equal(near.long().sort(-1).values, expected)


def test_members_are_rows_of_the_clusters_and_blanks_are_row_0() -> None:
    idx, valid = members(torch.tensor([[[0, 2]]]), 3, 8)
    assert idx.tolist() == [[[0, 1, 2, 6, 7, 0]]]
    assert valid.tolist() == [[[True, True, True, True, True, False]]]


def test_a_shared_neighbourhood_is_one_list_for_a_cluster() -> None:
    positions = canvas_positions(9, 9)[None]
    clusters = balanced_clusters(positions, 8, (9, 9))
    ordered = positions.gather(1, clusters.order[..., None].expand(-1, -1, 2))
    near = neighbourhood(ordered, clusters, 3, shared=True).near
    assert near is not None
    assert near.shape == (1, 81, 3)
    for j in range(clusters.count):
        rows = near[0, 8 * j : 8 * j + 8]
        assert (rows == rows[0]).all()
        assert j in rows[0]


def test_attention_is_the_golden_one() -> None:
    data = np.load(GOLDEN / "attention.npz")
    attention = Attention(16, 2)
    load_parameters(attention, data)
    x = torch.from_numpy(data["x"]).requires_grad_()
    near, positions = clusters_of(data["idx"], 8), torch.from_numpy(data["pos"]).long()
    idx, valid = members(near, 8, positions.shape[1])
    assert np.array_equal(idx, data["idx"])
    assert np.array_equal(valid, data["valid"].astype(bool))
    out = attention(x, Neighbourhood(positions, near, 8))
    out.backward(torch.from_numpy(data["gout"]))
    np.testing.assert_allclose(out.detach(), data["out"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(x.grad, data["dx"], rtol=1e-4, atol=1e-5)
    assert_gradients(attention, data, 1e-5)


@pytest.mark.parametrize("stride", [2, 4])
def test_downsampling_and_merging_are_the_golden_ones(stride: int) -> None:
    data = np.load(GOLDEN / f"merge_stride{stride}.npz")
    c, c_next, h, w = data["cfg"][:4].tolist()
    alpha, rate = data["alpha_rate"].tolist()
    merging = Merging(c, c_next)
    load_parameters(merging, data)
    positions = torch.from_numpy(data["pos"]).long()
    x, s = (torch.from_numpy(data[name]).requires_grad_() for name in ("x", "prob"))
    around = Neighbourhood(positions, clusters_of(data["idx"], 8), 8)
    kept = keep(s[..., 0], positions, stride, (h, w), rate, alpha)
    out = merging(x, s[..., 0], kept, around)
    out.backward(torch.from_numpy(data["gout"]))
    np.testing.assert_allclose(out.detach(), data["out"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(x.grad, data["dx"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(s.grad, data["dprob"], rtol=1e-4, atol=1e-4)
    assert_gradients(merging, data, 1e-4)


def test_a_global_stage_is_one_whose_lists_hold_every_cluster() -> None:
    torch.manual_seed(0)
    positions = canvas_positions(5, 5)[None]
    attention, merging, x, s = Attention(16, 2), Merging(16, 8), torch.randn(1, 25, 16), torch.rand(1, 25)
    kept = torch.tensor([[3, 7, 20]])
    nowhere = Neighbourhood(positions, None, 8)
    everywhere = Neighbourhood(positions, torch.arange(4).expand(1, 25, 4).contiguous(), 8)
    torch.testing.assert_close(attention(x, nowhere), attention(x, everywhere))
    torch.testing.assert_close(merging(x, s, kept, nowhere), merging(x, s, kept, everywhere))
    assert neighbours_of(nowhere, kept)[0].shape == (1, 3, 25)


def test_at_the_start_a_kept_point_alone_has_no_weight_and_the_importance_scale_none() -> None:
    torch.manual_seed(0)
    merging, positions = Merging(16, 8), canvas_positions(4, 4)[None]
    nn.init.zeros_(merging.weight_net[0].bias)
    around, kept = Neighbourhood(positions, torch.zeros(1, 16, 1, dtype=torch.long), 1), torch.tensor([[0]])
    changed = torch.randn(1, 16, 16)
    out = merging(changed, torch.ones(1, 16), kept, around)
    torch.testing.assert_close(out, merging(torch.zeros(1, 16, 16), torch.ones(1, 16), kept, around))
    far = Neighbourhood(positions, None, 8)
    merging.norm.eps = 0.0
    torch.testing.assert_close(
        merging(changed, torch.ones(1, 16), kept, far), merging(changed, torch.full((1, 16), 0.01), kept, far)
    )


def test_paths_are_dropped_for_whole_images_in_training_only() -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 2, 3)
    assert drop_path(x, 0.4, False) is x
    share = drop_path(x, 0.4, True)[:, :1, :1]
    assert torch.equal(share.expand_as(x), drop_path(x, 0.0, True) * share)
    assert share.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert abs(float((share > 0).float().mean()) - 0.6) < 0.05


def test_a_layer_scale_of_zero_is_none() -> None:
    assert not any("gamma" in name for name, _ in Block(16, 2, 32, 0.0, 0.0).named_parameters())
    scales = {name: p for name, p in Block(16, 2, 32, 0.0, 1e-5).named_parameters() if "gamma" in name}
    assert set(scales) == {"gamma1", "gamma2"}
    assert all((scale == 1e-5).all() for scale in scales.values())
