"""Clusters are those of the authors' code, balanced whatever the points, and compact."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from autofocusformer.clustering import (
    Curve,
    anchor_grid,
    balance,
    balanced_clusters,
    cluster_of_point,
    kmeans_clusters,
)
from autofocusformer.curves import hilbert_index, peano_index
from shared.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
META = json.loads((GOLDEN / "cluster_meta.json").read_text())
CURVES: tuple[Curve, ...] = ("snake", "hilbert", "peano", "hilbert-direct", "peano-direct", "scan-line")


def canvas_positions(h: int, w: int, batch: int = 1) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([x, y], -1).view(1, -1, 2).expand(batch, -1, -1)


@pytest.mark.parametrize("case", sorted(META))
def test_the_clusters_are_those_of_the_golden_cases(case: str) -> None:
    data, meta = np.load(GOLDEN / "cluster.npz"), META[case]
    positions = torch.from_numpy(data[f"{case}_pos"]).long()
    canvas = (meta["h"], meta["w"])
    clusters = balanced_clusters(positions, meta["m"], canvas)
    assert clusters.count == meta["k"]
    assert list(anchor_grid(canvas, meta["k"]).rank.shape) == meta["anchors_h_w"]
    assert np.array_equal(cluster_of_point(clusters), data[f"{case}_cluster_of_token"])
    np.testing.assert_allclose(clusters.centres, data[f"{case}_mean"], atol=1e-4)
    assert clusters.count * clusters.size - positions.shape[1] == data[f"{case}_nblank"]
    if meta["exact_perm"]:
        assert np.array_equal(clusters.order, data[f"{case}_perm"])


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("canvas", [(1, 1), (1, 2), (3, 2), (2, 9), (1, 40), (40, 1), (17, 23), (24, 64)])
@pytest.mark.parametrize("size", [1, 8, 24])
def test_each_cluster_but_the_last_has_exactly_its_size(curve: Curve, canvas: tuple[int, int], size: int) -> None:
    positions = canvas_positions(*canvas, batch=2)
    clusters = balanced_clusters(positions, size, canvas, curve)
    n = canvas[0] * canvas[1]
    assert torch.equal(clusters.order.sort().values, torch.arange(n).expand(2, -1))
    sizes = torch.bincount(cluster_of_point(clusters)[0], minlength=clusters.count)
    assert (sizes[:-1] == size).all()
    assert 1 <= sizes[-1] <= size
    assert sizes.sum() == n


def test_an_image_is_clustered_in_a_batch_as_it_is_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = canvas_positions(20, 30)[0]
    batch = torch.stack([grid[torch.randperm(600, generator=generator)[:150]] for _ in range(3)])
    together = balanced_clusters(batch, 8, (20, 30))
    for i in range(3):
        alone = balanced_clusters(batch[i : i + 1], 8, (20, 30))
        assert torch.equal(alone.order[0], together.order[i])
        assert torch.equal(alone.centres[0], together.centres[i])


@pytest.mark.parametrize(("curve", "side"), [(hilbert_index, 16), (peano_index, 27)])
def test_the_curves_step_to_the_next_cell_and_never_jump(curve, side: int) -> None:  # type: ignore[no-untyped-def]
    base = 2 if curve is hilbert_index else 3
    for width in (side // base, side, 2 * side, 2 * side + side // base):
        y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(side), torch.arange(width), indexing="ij"))
        index = curve(x, y, side)
        assert torch.equal(index.sort().values, torch.arange(side * width))
        walk = index.argsort()
        steps = (x[walk].diff().abs() + y[walk].diff().abs()).unique()
        assert steps.tolist() == [1]


def test_the_curves_keep_clusters_together_better_than_scan_lines() -> None:
    positions = canvas_positions(56, 56)
    distance = {}
    for curve in CURVES:
        clusters = balanced_clusters(positions, 8, (56, 56), curve)
        distance[curve] = balance(positions[0], cluster_of_point(clusters)[0], clusters.count).distance
    assert all(distance[curve] < 0.75 * distance["scan-line"] for curve in CURVES if curve != "scan-line"), distance


def test_kmeans_is_what_it_is_called_and_unbalanced() -> None:
    positions = canvas_positions(28, 28)[0]
    label = kmeans_clusters(positions, 98)
    found = balance(positions, label, 98)
    assert found.smallest < 8 < found.largest
    assert found.distance < 1.3


@pytest.mark.parametrize(("size", "curve", "says"), [(0, "snake", "clusters of 0"), (8, "spiral", "unknown curve")])
def test_what_cannot_be_clustered_is_one_line(size: int, curve: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        balanced_clusters(canvas_positions(4, 4), size, (4, 4), curve)  # type: ignore[arg-type]
