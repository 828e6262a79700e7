"""The points kept are those of the authors' code; the rule is integer arithmetic in every mode and on every canvas."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from autofocusformer.positions import canvas_positions, relative_features
from autofocusformer.sampling import (
    Mode,
    budget,
    check_sampling,
    grid_prior,
    importance_at,
    keep,
    local_spacing,
    on_grid,
    score,
)
from shared.errors import UserError

from autofocusformer import sampling

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("stride", [2, 4])
def test_scores_and_kept_points_are_those_of_the_golden_case(stride: int) -> None:
    data = np.load(GOLDEN / f"merge_stride{stride}.npz")
    _, _, h, w, n, _, kept, reserved = data["cfg"].tolist()
    alpha, rate = data["alpha_rate"].tolist()
    positions, s = torch.from_numpy(data["pos"]).long(), torch.from_numpy(data["prob"])[..., 0]
    assert budget(n, (h, w), stride, rate)[:2] == (kept, reserved)
    np.testing.assert_allclose(score(s, positions, stride, alpha, (h, w)), data["score"], rtol=1e-5, atol=1e-5)
    rows = keep(s, positions, stride, (h, w), rate, alpha)
    assert np.array_equal(positions[0][rows[0]], data["out_pos"][0])


def test_position_features_are_the_golden_ones() -> None:
    data = np.load(GOLDEN / "relpos.npz")
    np.testing.assert_allclose(relative_features(torch.from_numpy(data["rel_xy"])), data["feat"], rtol=1e-6, atol=1e-6)
    assert relative_features(torch.zeros(2, 2, dtype=torch.long)).count_nonzero() == 0


@pytest.mark.parametrize("canvas", [(24, 32), (9, 40), (33, 25)])
def test_the_local_spacing_is_that_of_all_distances(canvas: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    grid = canvas_positions(*canvas)
    for n in (2, 3, 10, 100):
        positions = torch.stack([grid[torch.randperm(len(grid), generator=generator)[:n]] for _ in range(2)])
        squared = (positions[:, :, None] - positions[:, None]).square().sum(-1)
        squared += torch.eye(n, dtype=torch.long) * 10**9
        expected = [[2 ** (math.ceil(math.log2(d) / 2) + 1) for d in row] for row in squared.amin(-1).tolist()]
        assert local_spacing(positions, canvas).tolist() == expected


@pytest.mark.parametrize("mode", ["adaptive", "oracle", "grid"])
@pytest.mark.parametrize("canvas", [(24, 32), (9, 40), (33, 25), (8, 8), (7, 3), (1, 1)])
def test_no_farther_than_the_grid_that_is_there_need_be_searched(canvas: tuple[int, int], mode: Mode) -> None:
    """Stage by stage as a network keeps points: the same spacings as by all discs, up to a corner beyond the grid."""
    generator = torch.Generator().manual_seed(2)
    positions = canvas_positions(*canvas)[None].expand(3, -1, -1)
    for stride in (2, 4, 8):
        assert torch.equal(local_spacing(positions, canvas, stride), local_spacing(positions, canvas))
        s = torch.rand(positions.shape[:2], generator=generator)
        rows = keep(s, positions, stride, canvas, 0.25, 4.0, mode)
        positions = positions.gather(1, rows[..., None].expand(-1, -1, 2))


@pytest.mark.parametrize(("grid", "widest"), [(4, 8), (8, 16), (None, 128)])
def test_a_compiled_search_has_no_disc_that_finds_nothing(
    grid: int | None, widest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a program is being traced no search ends early, and none depends on the image that it is traced with."""
    radii = []
    disc = sampling._disc

    def told(radius: int, device: torch.device) -> torch.Tensor:
        radii.append(radius)
        return disc(radius, device)

    monkeypatch.setattr(sampling, "_disc", told)
    positions = canvas_positions(96, 96)[None]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    local_spacing(positions, (96, 96), grid)
    assert max(radii) == widest
    monkeypatch.undo()
    compiled = radii.copy()
    radii.clear()
    monkeypatch.setattr(sampling, "_disc", told)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    local_spacing(positions, (96, 96), grid)
    assert radii == compiled


def test_a_point_alone_is_on_no_grid_but_at_the_origin() -> None:
    assert grid_prior(torch.tensor([[[4, 8]]]), 4, (16, 16)).tolist() == [[False]]
    assert grid_prior(torch.tensor([[[0, 0]]]), 4, (16, 16)).tolist() == [[True]]


def test_without_importance_the_first_stage_keeps_the_even_grid() -> None:
    positions = canvas_positions(16, 24)[None]
    rows = keep(torch.rand(1, 384), positions, 2, (16, 24), rate=0.25, alpha=0.0)
    grid = keep(torch.rand(1, 384), positions, 2, (16, 24), rate=0.9, mode="grid")
    assert torch.equal(rows.sort().values, grid)
    assert on_grid(positions[0][grid[0]], 2).all()


def test_equal_importances_keep_the_lower_rows_first() -> None:
    positions = canvas_positions(8, 8)[None]
    rows = keep(torch.ones(1, 64), positions, 2, (8, 8), rate=0.5)[0]
    free = (~on_grid(positions, 4))[0]
    even, rest = (free & on_grid(positions, 2)[0]).nonzero()[:, 0], (free & ~on_grid(positions, 2)[0]).nonzero()[:, 0]
    assert rows.tolist() == [*sorted(even.tolist() + rest[: 28 - len(even)].tolist()), 0, 4, 32, 36]


@pytest.mark.parametrize("mode", ["adaptive", "oracle"])
def test_the_most_important_and_the_reserved_are_kept(mode: str) -> None:
    importance = torch.zeros(1, 16, 16)
    importance[0, 3:6, 5:9] = 1.0
    positions = canvas_positions(16, 16)[None]
    rows = keep(importance_at(importance, positions), positions, 2, (16, 16), 0.25, 4.0, mode)[0]  # type: ignore[arg-type]
    kept = positions[0][rows]
    assert len(rows.unique()) == 64
    assert {(x, y) for x in range(5, 9) for y in range(3, 6)} <= {tuple(p) for p in kept.tolist()}
    assert on_grid(kept[-16:], 4).all()


def test_no_point_is_kept_twice_whatever_alpha() -> None:
    positions = canvas_positions(16, 16)[None]
    importance = torch.where(on_grid(positions, 4), 0.9, 0.1)
    assert len(keep(importance, positions, 2, (16, 16), 0.25, alpha=150.0)[0].unique()) == 64


def test_random_keeps_as_many_as_asked_and_others_each_time() -> None:
    positions = canvas_positions(16, 16)[None].expand(2, -1, -1)
    importance, generators = torch.zeros(2, 256), [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    first, second = (keep(importance, positions, 2, (16, 16), 0.2, mode="random", generator=g) for g in generators)
    assert first.shape == (2, 51)
    assert (first.diff(dim=1) > 0).all()
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_fewer_points_than_are_reserved_cannot_be_kept() -> None:
    assert budget(64, (8, 8), 2, 1 / 32) == (4, 4, 2)
    assert budget(3, (3, 1), 2, 0.2) == (1, 1, 0)
    assert budget(3, (3, 1), 2, 0.2, "random") == (1, 0, 0)
    positions = canvas_positions(8, 8)[None]
    assert keep(torch.rand(1, 64), positions, 2, (8, 8), 1 / 32)[0].tolist() == [0, 4, 32, 36]


def test_n_times_rate_is_floored() -> None:
    assert [budget(n, (56, 56), s, 0.2).kept for n, s in ((3136, 2), (627, 4), (125, 8))] == [627, 125, 25]


def test_the_choice_carries_no_gradient() -> None:
    s = torch.rand(1, 64, requires_grad=True)
    assert not score(s, canvas_positions(8, 8)[None], 2, 4.0, (8, 8)).requires_grad


@pytest.mark.parametrize(
    ("rate", "alpha", "mode", "says"),
    [
        (0.0, 4.0, "adaptive", "rate is 0.0"),
        (1.2, 4.0, "adaptive", "rate is 1.2"),
        (float("nan"), 4.0, "adaptive", "rate is nan"),
        (0.25, -1.0, "adaptive", "alpha is -1.0"),
        (0.25, 4.0, "best", "unknown sampling 'best'"),
    ],
)
def test_bad_settings_are_one_line(rate: float, alpha: float, mode: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_sampling(rate, alpha, mode)
