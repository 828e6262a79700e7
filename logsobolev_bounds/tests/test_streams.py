"""Every purpose of every seed has random numbers of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import pytest
import torch
from logsobolev_bounds.certify import certificates
from logsobolev_bounds.data import Examples
from logsobolev_bounds.layers import Bayes, BayesLinear
from logsobolev_bounds.models import build
from logsobolev_bounds.prior import measure
from logsobolev_bounds.streams import Purpose, stream


def examples(**settings: Any) -> Examples:
    data = Examples(**settings)
    data.setup()
    return data


@pytest.fixture
def noises(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first numbers, as bits, that each call for weights takes from its generator."""
    found: list[int] = []
    for name in ("draws", "prior_draws"):
        original = getattr(BayesLinear, name)

        def watched(self: Bayes, k: int, generator: torch.Generator, original: Any = original) -> Any:
            found.append(hash(generator.get_state().numpy().tobytes()))
            return original(self, k, generator)

        monkeypatch.setattr(BayesLinear, name, watched)
    return found


def test_no_two_quantities_of_a_network_share_their_draws(noises: list[int]) -> None:
    """Prior draws, both risks and the inverted one, of neighbouring seeds: C and the risk are independent estimates."""
    data = examples(m=200)
    net = build("linear", data.inputs, data.classes, 0.3)
    for seed in range(4):
        certificates(net, data, prior_draws=3, examples=100, posterior_draws=3, certificate_draws=3, seed=seed)
    assert not [state for state, times in Counter(noises).items() if times > 1]
    assert len(noises) == 4 * 4 * 3


def test_a_prior_is_not_drawn_with_the_numbers_that_chose_its_images(
    noises: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[int] = []
    original = torch.randperm

    def watched(n: int, *, generator: torch.Generator) -> torch.Tensor:
        orders.append(hash(generator.get_state().numpy().tobytes()))
        return original(n, generator=generator)

    monkeypatch.setattr(torch, "randperm", watched)
    measure(examples(m=200), 0, 0.1, draws=3, examples=100, modes=("identity",))
    assert orders[0] not in noises
    assert (len(noises), len(orders)) == (3, 1)


def test_a_stream_repeats_and_every_other_one_is_another() -> None:
    def start(*key: Any) -> tuple[float, ...]:
        return tuple(torch.randn(4, generator=stream(*key)).tolist())

    assert start(3, "look") == start(3, "look")
    keys = [(seed, purpose, *part) for seed in range(9) for purpose in get_args(Purpose) for part in ((), (1,), (2,))]
    assert len({start(*key) for key in keys}) == len(keys)
    large = 2**31 - 1
    assert start(large, "look") != start(large - 1, "look")
