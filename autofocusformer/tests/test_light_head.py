"""The light head against a slow one, and what it needs to be."""

from __future__ import annotations

import torch
from autofocusformer.heads.light import LightHead
from autofocusformer.heads.shepard import nearest_tokens, weights
from autofocusformer.positions import canvas_positions, relative_features


def points(h: int, w: int, n: int, seed: int) -> torch.Tensor:
    order = torch.randperm(h * w, generator=torch.Generator().manual_seed(seed))[:n]
    return torch.stack([order % w, order // w], -1)


def test_nearest_tokens_with_ties_to_the_lower_row() -> None:
    places = torch.stack([points(6, 9, 17, seed) for seed in (0, 1)])
    cells = canvas_positions(6, 9)
    rows = nearest_tokens(cells.expand(2, -1, -1), places, 4)
    for b in range(2):
        distances = (cells[:, None] - places[b][None]).square().sum(-1)
        expected = distances.argsort(dim=1, stable=True)[:, :4]
        assert torch.equal(rows[b], expected.sort(-1).values)


def test_a_cell_on_a_token_takes_that_token_s_value() -> None:
    near = torch.tensor([[[[0, 0], [1, 0], [1, 1], [2, 0]], [[1, 0], [0, 1], [2, 0], [0, 2]]]])
    found = weights(torch.zeros(1, 2, 2), near)
    assert torch.allclose(found[0, 0], torch.tensor([1.0, 0, 0, 0]), atol=1e-6)
    assert torch.allclose(found[0, 1, :2], torch.full((2,), 0.5 / (1 + 1 / 64)))


def test_the_head_is_what_it_says_for_one_cell() -> None:
    """Every step written out for one cell of a canvas with ties; the read-out is the network's own."""
    torch.manual_seed(0)
    head, place, feature = LightHead([5], 3, width=8), points(6, 9, 17, 0), torch.randn(1, 17, 5)
    scores, cell = head([feature], [place[None]], (6, 9)), torch.tensor([4, 2])
    squared = (place - cell).square().sum(-1)
    rows = squared.argsort(stable=True)[:4]
    share = 1 / (squared[rows].double() ** 3 + 1e-11)
    seen = head.lateral[0](feature)[0, rows] + head.offset[0](relative_features(place[rows] - cell))
    expected = head.read(((share / share.sum()).float()[:, None] * torch.nn.functional.gelu(seen)).sum(0))
    assert torch.allclose(scores[0, :, 8:12, 16:20].reshape(-1), expected, atol=1e-5)


def test_scores_do_not_depend_on_the_order_of_tokens_and_reach_every_level() -> None:
    torch.manual_seed(0)
    head = LightHead([5, 7], 3, width=8)
    places = [points(4, 6, 24, 0)[None], points(4, 6, 6, 1)[None]]
    features = [torch.randn(1, 24, 5, requires_grad=True), torch.randn(1, 6, 7, requires_grad=True)]
    scores = head(features, places, (4, 6))
    assert scores.shape == (1, 3, 16, 24)
    scores.square().sum().backward()
    assert all((f.grad != 0).any() for f in features)
    order = torch.randperm(24)
    again = head([features[0][:, order], features[1]], [places[0][:, order], places[1]], (4, 6))
    assert torch.allclose(scores, again, atol=1e-5)


def test_a_pixel_of_a_cell_has_its_own_score_and_offsets_are_seen() -> None:
    torch.manual_seed(0)
    head = LightHead([5], 2, width=8)
    place, feature = torch.tensor([[[1, 1]]]), torch.randn(1, 1, 5)
    scores = head([feature], [place], (3, 3))
    assert scores[0, 0, 4:8, 4:8].unique().numel() == 16
    assert not torch.allclose(scores[..., :4, :4], scores[..., 8:, 8:])  # one token, but other offsets
    blind = LightHead([5], 2, width=8, offsets=False)([feature], [place], (3, 3))
    assert torch.allclose(blind[..., :4, :4], blind[..., 8:, 8:])
