"""The published networks: their exact sizes, and a stretch scored at once against its windows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mma_realtime.errors import SearchError
from mma_realtime.models import DeepFilterDeep, DeepFilterShallow, build
from torch import nn

torch.set_num_threads(1)
COUNTS = json.loads((Path(__file__).parent / "golden" / "param_counts.json").read_text())


@pytest.mark.parametrize("case", COUNTS)
def test_parameters_and_features_are_the_published_ones(case: str) -> None:
    name, length = case.split("_")
    expected = COUNTS[case]
    if "error" in expected:
        with pytest.raises(SearchError, match=rf"input_length is {length}: DeepFilterDeep needs at least \d+ samples"):
            build(f"deepfilter_{name}", input_length=int(length))
        return
    net = build(f"deepfilter_{name}", input_length=int(length))
    assert sum(p.numel() for p in net.parameters()) == expected["params"]
    with torch.no_grad():
        assert list(net.trunk(torch.zeros(1, 1, int(length))).shape[1:]) == expected["last_conv_shape"]


def test_the_shortest_window_is_the_one_that_is_named() -> None:
    least = DeepFilterDeep().samples_for(1)
    assert DeepFilterDeep(least).length == 1
    with pytest.raises(SearchError, match=f"at least {least} samples"):
        DeepFilterDeep(least - 1)


def as_published(channels: int, length: int) -> nn.Sequential:
    """Written out by hand: convolution, maximum, ReLU, as the paper's table has them."""
    return nn.Sequential(
        nn.Conv1d(channels, 16, 16), nn.MaxPool1d(4), nn.ReLU(),
        nn.Conv1d(16, 32, 8, dilation=4), nn.MaxPool1d(4), nn.ReLU(),
        nn.Conv1d(32, 64, 8, dilation=4), nn.MaxPool1d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * length, 64), nn.ReLU(), nn.Linear(64, 2),
    )  # fmt: skip


@pytest.mark.parametrize(("channels", "samples", "length"), [(1, 1024, 7), (2, 1024, 7), (1, 1070, 7), (1, 2048, 23)])
def test_values_and_gradients_are_those_of_plain_layers(channels: int, samples: int, length: int) -> None:
    torch.manual_seed(0)
    net, plain = DeepFilterShallow(samples, channels).double(), as_published(channels, length).double()
    for own, other in zip(net.parameters(), plain.parameters(), strict=True):
        own.data.copy_(other.data)
    x = torch.randn(5, channels, samples, dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    out, expected = net(x), plain(z)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for own, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)
    torch.testing.assert_close(x.grad, z.grad)


@pytest.mark.parametrize("hop", [64, 128, 50])
@pytest.mark.parametrize("samples", [1024, 1087, 1088, 9500])
def test_a_stretch_scored_at_once_equals_its_windows(hop: int, samples: int) -> None:
    torch.manual_seed(1)
    net = DeepFilterShallow(1024)
    x = torch.randn(2, samples)
    series = net.statistic_series(x, hop)
    assert series.shape == (2, (samples - 1024) // hop + 1)
    windows = x.unfold(1, 1024, hop)
    with torch.no_grad():
        by_hand = torch.stack([net.statistic(row[:, None]) for row in windows])
        logits = net(windows[0][:, None])
    torch.testing.assert_close(series, by_hand, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(series[0], logits[:, 1] - logits[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_the_deep_network_over_a_stretch() -> None:
    torch.manual_seed(2)
    net = DeepFilterDeep(8192)
    x = torch.randn(1, 8192 + 3 * 256 + 17)
    with torch.no_grad():
        by_hand = net.statistic(x.unfold(1, 8192, 256)[0][:, None])
    torch.testing.assert_close(net.statistic_series(x, 256)[0], by_hand, atol=1e-5, rtol=1e-5)


def test_two_detectors_together_give_one_series() -> None:
    net = DeepFilterShallow(1024, channels=2)
    assert net.statistic_series(torch.randn(2, 2048), 64).shape == (1, 17)
    with pytest.raises(SearchError, match="looks at 2 detectors together, the strain has 3"):
        net.statistic_series(torch.randn(3, 2048), 64)


@pytest.mark.parametrize(("samples", "hop", "says"), [(1023, 64, "has 1023 samples"), (2048, 0, "the hop is 0")])
def test_stretches_that_can_not_be_scored(samples: int, hop: int, says: str) -> None:
    with pytest.raises(SearchError, match=says):
        DeepFilterShallow(1024).statistic_series(torch.zeros(1, samples), hop)


def test_the_predictor_initialises_all_but_the_last_layer() -> None:
    predictor, classifier = DeepFilterShallow(1024), DeepFilterShallow(1024)
    before = {name: p.clone() for name, p in classifier.named_parameters()}
    classifier.init_from(predictor)
    for (name, own), given in zip(classifier.named_parameters(), predictor.parameters(), strict=True):
        source = before[name] if name.startswith("head.3.") else given
        assert torch.equal(own, source), name
    with pytest.raises(SearchError, match="have to be alike"):
        classifier.init_from(DeepFilterShallow(2048))


def test_unknown_networks_and_sizes() -> None:
    with pytest.raises(SearchError, match="network is 'deep': use one of deepfilter_shallow"):
        build("deep")
    with pytest.raises(SearchError, match="lenght"):
        build("deepfilter_shallow", lenght=3)
