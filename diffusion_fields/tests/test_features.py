"""Coordinate and step features against the reference code's own numbers (golden/embeddings.npz)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_fields.errors import FieldError
from diffusion_fields.models.features import TrainableEmbedding, fourier_features, timestep_features

GOLDEN = {
    name: torch.from_numpy(array)
    for name, array in np.load(Path(__file__).parent / "golden" / "embeddings.npz").items()
}


@pytest.mark.parametrize(("coords", "bands", "tolerance"), [(2, 4, 1e-5), (2, 10, 2e-4), (3, 4, 1e-5), (3, 6, 1e-5)])
def test_coordinate_features_are_the_references(coords: int, bands: int, tolerance: float) -> None:
    expected = GOLDEN[f"four{coords}_nf{bands}"]
    features = fourier_features(GOLDEN[f"coords{coords}"], bands)
    assert features.shape == expected.shape
    assert (features - expected).abs().max() <= tolerance


def test_set_normalised_features_are_the_references() -> None:
    features = fourier_features(GOLDEN["coords2"], 4, normalize="per_set")
    assert (features - GOLDEN["four2_nf4_setnormalised"]).abs().max() <= 1e-5


@pytest.mark.parametrize(("dim", "name"), [(64, "t_emb"), (63, "t_emb_odd")])
def test_step_features_are_the_references(dim: int, name: str) -> None:
    assert (timestep_features(GOLDEN["t"], dim) - GOLDEN[name]).abs().max() <= 1e-4


def test_a_scale_of_pi_makes_the_lowest_band_one_period() -> None:
    ends = fourier_features(torch.tensor([[-1.0], [1.0]]), 1, freq_scale=math.pi)
    assert torch.allclose(ends[0, 1:], ends[1, 1:], atol=1e-6)
    assert not torch.allclose(*(fourier_features(torch.tensor([[x]]), 1)[0, 1:] for x in (-1.0, 1.0)), atol=1e-2)


def test_set_normalisation_looks_at_valid_points_only() -> None:
    x = torch.randn(1, 6, 2)
    mask = torch.tensor([[True, True, True, True, False, False]])
    alone = fourier_features(x[:, :4], 2, normalize="per_set")
    padded = fourier_features(torch.cat((x[:, :4], 100 * x[:, 4:]), 1), 2, normalize="per_set", mask=mask)
    assert torch.equal(padded[:, :4], alone)


def test_a_constant_column_is_finite_when_set_normalised() -> None:
    assert fourier_features(torch.ones(3, 2), 2, normalize="per_set").isfinite().all()


def test_no_bands_leave_the_coordinates() -> None:
    x = torch.randn(5, 3)
    assert torch.equal(fourier_features(x, 0), x)


def test_features_differentiate_with_respect_to_coordinates() -> None:
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: fourier_features(u, 3), x)


def test_fractional_steps_have_features_too() -> None:
    """Rectified flow has continuous times."""
    below, at, above = timestep_features(torch.tensor([3.0, 3.01, 3.02]), 8)
    assert torch.allclose(at, (below + above) / 2, atol=1e-3)
    assert torch.equal(below, timestep_features(torch.tensor([3]), 8)[0])


def test_the_trainable_embedding_has_the_references_size() -> None:
    embedding = TrainableEmbedding(75)
    assert embedding(torch.randn(4, 75)).shape == (4, 128)
    assert sum(p.numel() for p in embedding.parameters()) == 75 * 128 + 128 + 2 * (128 * 128 + 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_freq": -1}, "num_freq is -1: a number of frequency bands is 0 or more"),
        ({"num_freq": 1, "normalize": "batch"}, "normalize is 'batch': use 'none' or 'per_set'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        fourier_features(torch.zeros(2, 2), **options)  # type: ignore[arg-type]
