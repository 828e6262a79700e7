"""The graph against the authors' matrices, its quirks, and what is said of bad boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.errors import UserError
from spatial_textvqa.spatial_graph import check_boxes, head_masks, head_table, relations

from spatial_textvqa import spatial_graph

GOLDEN = np.load(Path(__file__).parent / "golden" / "relations.npz", allow_pickle=False)
SCENES = ["mix12", "mix40", "full150"]


def golden(key: str) -> torch.Tensor:
    return torch.from_numpy(np.array(GOLDEN[key]))


@pytest.mark.parametrize("thr", ["0.25", "0.5", "1.0"])
@pytest.mark.parametrize("scene", SCENES)
def test_relations_are_the_authors(scene: str, thr: str) -> None:
    expected = golden(f"{scene}_rel_thr{thr}").to(torch.uint8)
    boxes = golden(f"{scene}_boxes")
    assert torch.equal(relations(boxes, float(thr)), expected)
    batch = torch.stack([boxes, boxes.flip(0)])
    assert torch.equal(relations(batch, float(thr))[0], expected)


def test_ties_are_the_authors_but_for_an_exact_diagonal() -> None:
    ours, expected = relations(golden("ties_boxes_f64")), golden("ties_rel").to(torch.uint8)
    differ = {tuple(pair) for pair in (ours != expected).nonzero().tolist()}
    assert differ <= {(2, 8), (8, 2)}
    assert {int(ours[2, 8]), int(ours[8, 2])} in ({6, 10}, {7, 11})


def pixel_boxes(generator: torch.Generator, n: int, width: int, height: int) -> torch.Tensor:
    """Boxes on a coarse grid of pixels, divided by the image's size: many centres are equal but for rounding."""
    x = torch.randint(0, 20, (n,), generator=generator) * (width // 24) + 53
    y = torch.randint(0, 12, (n,), generator=generator) * (height // 14) + 25
    half_width, half_height = (torch.randint(4, most, (n,), generator=generator) for most in (50, 20))
    corners = torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)
    return (corners.double() / torch.tensor([width, height, width, height])).float()


@pytest.mark.parametrize("thr", [0.25, 0.5, 1.0])
def test_the_official_graph_is_the_double_loops_but_for_exact_diagonals(
    thr: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    from double_loop import relations as double_loop

    generator, rounded = torch.Generator().manual_seed(0), 0
    for width, height in ((1024, 768), (640, 480), (1000, 667), (1600, 1200)):
        boxes = pixel_boxes(generator, 40, width, height)
        expected = torch.tensor(double_loop(boxes.double().tolist(), thr))
        low, high = boxes.double().split(2, 1)
        dx, dy = ((low + high)[:, None] / 2 - (low + high) / 2).unbind(-1)
        diagonal = (dx.abs() == dy.abs()) & (dx != 0)
        assert torch.equal(relations(boxes, thr)[~diagonal], expected[~diagonal].to(torch.uint8))
        distance = (dx * dx + dy * dy).sqrt()
        rounded += int(((distance == dx.abs()) & (dy != 0) | (distance == dy.abs()) & (dx != 0)).sum())
    assert rounded > 20  # the case of the next test, found in pixels


def test_near_an_axis_the_published_rounding_is_followed() -> None:
    y = 0.1 - 2.0**-27  # one step of float32 above
    boxes = torch.tensor([[0.1, y, 0.2, 0.2], [0.6, 0.1, 0.7, 0.2]])
    assert relations(boxes).tolist() == [[12, 7], [3, 12]]
    assert relations(boxes, mode="clean").tolist() == [[12, 8], [4, 12]]
    turned = boxes.flip(0)[:, [1, 0, 3, 2]]  # the one below comes first: ordinary
    assert relations(turned).tolist() == [[12, 5], [9, 12]]
    turned = boxes.flip(0)[:, [1, 0, 3, 2]] * torch.tensor([1, -1, 1, -1]) + torch.tensor([0.0, 1.0, 0.0, 1.0])
    turned = turned[:, [0, 3, 2, 1]]
    assert relations(turned).tolist() == [[12, 9], [5, 12]]


@pytest.mark.parametrize("context", [1, 3, 5, 7, 9])
def test_head_subsets_are_the_authors(context: int) -> None:
    assert torch.equal(head_table(context), golden(f"head_type_table_c{context}"))
    for scene in SCENES:
        graph = relations(golden(f"{scene}_boxes"))
        masks = head_masks(graph, context)
        size = masks.numel()
        expected = np.unpackbits(GOLDEN[f"{scene}_headmask_c{context}_packed"])[:size].astype(bool)
        assert np.array_equal(masks.numpy().reshape(-1), expected)
        assert torch.equal(masks.sum((0, 1)), golden(f"{scene}_headmask_c{context}_count_per_head"))


corner = st.integers(0, 6).map(lambda k: k / 8)
size = st.integers(0, 6).map(lambda k: k / 16)
box = st.tuples(corner, corner, size, size).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@settings(max_examples=60, deadline=None)
@given(st.lists(box, min_size=1, max_size=7), st.sampled_from([0.25, 0.5, 1.0]))
def test_labels_of_a_pair_are_each_others_mirror(boxes: list[tuple[float, ...]], thr: float) -> None:
    """On a grid, where ties are the rule."""
    graph = relations(torch.tensor(boxes), thr, "clean").int()
    valid = torch.tensor(boxes).sum(1) != 0
    mirror = torch.tensor([0, 2, 1, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12])
    assert torch.equal(graph.T, mirror[graph])
    assert torch.equal(graph.diagonal() == 12, valid)
    assert not graph[~valid].any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=2, max_size=6))
def test_sectors_are_angles(corners: list[tuple[float, ...]]) -> None:
    """Against the arc tangent, away from its borders."""
    a = torch.tensor(corners, dtype=torch.float64)
    boxes = torch.cat([torch.minimum(a[:, :2], a[:, 2:]), torch.maximum(a[:, :2], a[:, 2:])], 1)
    graph, centre = relations(boxes, 2.0).long(), (boxes[:, :2] + boxes[:, 2:]) / 2
    step = centre[:, None] - centre
    angle = torch.atan2(step[..., 1], step[..., 0]) % (2 * torch.pi) / (torch.pi / 4)
    inner = (graph >= 4) & (graph <= 11) & ((angle - angle.round()).abs() > 1e-6)
    assert torch.equal(graph[inner], angle[inner].ceil().long() + 3)


def test_directions_are_seen_from_the_second_box_with_y_down() -> None:
    """i is right of, below, left of and above j, in this order: first sector on either side of the axis."""
    j = torch.tensor([0.45, 0.45, 0.55, 0.55])
    for (dx, dy), label in {(0.2, 0.05): 4, (0.05, 0.2): 5, (-0.2, 0.05): 7, (0.05, -0.2): 10}.items():
        i = j + torch.tensor([dx, dy, dx, dy])
        graph = relations(torch.stack([i, j]))
        assert graph.tolist() == [[12, label], [4 + label % 8, 12]]


def test_quirks_of_the_official_mode() -> None:
    right, left = [0.6, 0.4, 0.7, 0.5], [0.2, 0.4, 0.3, 0.5]
    assert relations(torch.tensor([right, left])).tolist() == [[12, 3], [7, 12]]
    assert relations(torch.tensor([left, right])).tolist() == [[12, 7], [11, 12]]
    assert relations(torch.tensor([right, left]), mode="clean").tolist() == [[12, 11], [7, 12]]
    cross = torch.tensor([[0.25, 0.375, 0.75, 0.625], [0.375, 0.25, 0.625, 0.75]])
    assert relations(cross).tolist() == [[12, 4], [4, 12]]
    assert relations(cross, mode="clean").tolist() == [[12, 3], [3, 12]]
    assert spatial_graph.pairs_that_differ(torch.tensor([right, left])) == 1
    assert spatial_graph.pairs_that_differ(cross) == 2


def test_boxes_without_area_and_no_boxes() -> None:
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]] * 2)
    assert relations(point).tolist() == [[12, 4], [4, 12]]
    assert relations(torch.zeros(3, 4)).sum() == 0
    assert relations(torch.zeros(2, 0, 4)).shape == (2, 0, 0)
    assert spatial_graph.mean_degree(relations(torch.zeros(3, 4))) == 0
    assert spatial_graph.mean_degree(relations(point)) == 1
    graph = torch.tensor([[12, 4, 1], [8, 12, 0], [2, 0, 12]], dtype=torch.uint8)
    assert spatial_graph.mean_degree(graph) == pytest.approx(4 / 3)


def test_labels_dealt_anew_are_the_same_labels_in_the_same_graph() -> None:
    graph = relations(golden("full150_boxes"))
    other = spatial_graph.permute_labels(graph[None], torch.Generator().manual_seed(0))[0]
    assert torch.equal(other.flatten().bincount(), graph.flatten().bincount())
    assert (other != graph).float().mean() > 0.3
    assert torch.equal(other.diagonal(), graph.diagonal())
    assert not other[graph.diagonal() == 0].any()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([0.1, float("nan"), 0.2, 0.3], "is not finite"),
        ([0.1, 0.1, float("inf"), 0.3], "is not finite"),
        ([0.5, 0.1, 0.2, 0.3], "x_max < x_min"),
        ([0.5, 0.1, 20.0, 30.0], "outside the image .*divide by its width and height"),
    ],
)
def test_a_bad_box_is_named(row: list[float], says: str) -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.2], row])
    with pytest.raises(UserError, match=rf"sample q7: box 1 \(.*\) .*{says}"):
        check_boxes(boxes, "q7")


def test_bad_boxes_are_clipped_where_that_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    boxes = torch.tensor([[0.5, 0.1, 0.2, 1.5], [1.005, 0.1, 1.005, 0.3]])
    assert check_boxes(boxes, "a", "clip").tolist() == torch.tensor([[0.2, 0.1, 0.5, 1.0], boxes[1].tolist()]).tolist()
    assert "sample a: 1 of 2 boxes" in caplog.text
    with pytest.raises(UserError, match="not finite"):
        check_boxes(boxes / 0, "a", "clip")
    with pytest.raises(UserError, match=r"shape \(4,\), expected \(n, 4\)"):
        check_boxes(torch.zeros(4), "a")
    with pytest.raises(UserError, match="use error or clip"):
        check_boxes(boxes, "a", "drop")


def test_bad_settings_are_one_line() -> None:
    boxes = torch.zeros(1, 4)
    with pytest.raises(UserError, match="mode of the graph is 'fast': use one of official, clean"):
        relations(boxes, mode="fast")
    with pytest.raises(UserError, match="thr is 0"):
        relations(boxes, thr=0)
    for bad in (float("nan"), float("inf")):
        two = torch.zeros(2, 3, 4)
        two[1, 2, 3] = bad
        with pytest.raises(UserError, match=rf"box 2 of graph 1 \(0, 0, 0, {bad}\) is not finite: check the boxes"):
            relations(two)
        with pytest.raises(UserError, match=rf"box 2 \(0, 0, 0, {bad}\) is not finite"):
            relations(two[1])
    with pytest.raises(UserError, match="context is 2: use one of 1, 3, 5, 7, 9"):
        head_table(2)
