"""`FD_small`: the classifier, its four baselines as the specification measured them, and resolutions brought down."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from diffusion_fields.data import images
from diffusion_fields.errors import FieldError
from diffusion_fields.small_classifier import (
    SmallClassifier,
    area_average,
    baselines,
    resolution_transfer,
    train_small_classifier,
)
from torch import Tensor

torch.set_num_threads(1)


class Digits(NamedTuple):
    net: SmallClassifier
    train: Tensor
    test: Tensor


@pytest.fixture(scope="module")
def digits() -> Digits:
    fields = images.digits()
    parts = []
    for part in (fields.train, fields.test):
        assert part.size is not None
        batch = part(torch.arange(part.size), torch.Generator().manual_seed(0))
        assert batch.label is not None
        parts += [batch.signal, batch.label]
    before = torch.get_rng_state()
    net = train_small_classifier(*parts)
    assert torch.equal(before, torch.get_rng_state())
    assert (len(parts[0]), len(parts[2])) == (1297, 500)
    return Digits(net, parts[0], parts[2])


def test_baselines_are_those_of_the_specification(digits: Digits) -> None:
    """It measured 3.4 / 24.4 / 86.7 / 482 at an accuracy of 97 %; the scale depends on the classifier."""
    assert digits.net.accuracy > 0.95
    found = baselines(digits.net, digits.train, digits.test)
    assert found["train"] < 7
    assert 17 < found["gaussian"] < 30
    assert 75 < found["pixels"] < 115
    assert 380 < found["noise"] < 620
    assert found == baselines(digits.net, digits.train, digits.test)


def test_features_are_32_of_any_layout(digits: Digits) -> None:
    flat = digits.test[:5].reshape(5, 64)
    found = digits.net.features(flat)
    assert found.shape == (5, 32)
    assert torch.equal(found, digits.net.features(digits.test[:5]))
    assert torch.equal(found, digits.net.features(flat.reshape(5, 1, 8, 8)))
    assert torch.allclose(digits.net.head(found), digits.net(flat))
    assert digits.net.fd_small(digits.test, digits.test) < 1e-6
    with pytest.raises(FieldError, match=r"images of shape \(5, 16, 16\): 8 x 8 digits are expected"):
        digits.net.features(torch.zeros(5, 16, 16))


def test_resolutions_are_brought_down_by_area(digits: Digits) -> None:
    fine = torch.arange(2 * 16 * 16.0).reshape(2, 16, 16)
    found = area_average(fine)
    assert found.shape == (2, 8, 8)
    assert found[1, 2, 3] == fine[1, 4:6, 6:8].mean()
    assert area_average(fine[..., None].expand(2, 16, 16, 3)).shape == (2, 8, 8, 3)
    for shape in ((2, 12, 12), (2, 16, 8), (2, 4, 4), (2, 64)):
        with pytest.raises(FieldError, match=r"\(n, k\*8, k\*8, ...\) is expected"):
            area_average(torch.zeros(shape))

    def enlarged(n: int) -> Tensor:
        return torch.from_numpy(np.kron(digits.test.reshape(-1, 8, 8).numpy(), np.ones((1, n // 8, n // 8))))

    found_at = resolution_transfer(digits.net, lambda n: enlarged(n)[:250], digits.test[250:])
    assert list(found_at) == [8, 16, 32]
    assert found_at[8] == pytest.approx(digits.net.fd_small(digits.test[:250], digits.test[250:]))
    assert found_at[32] == pytest.approx(found_at[8], rel=1e-4)
    assert 0 < found_at[8] < 20
