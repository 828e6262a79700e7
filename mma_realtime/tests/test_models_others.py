"""Residual network, WaveNet and its stream, ensembles, denoiser and the glitch classifier."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SearchError
from mma_realtime.models import (
    SMALL,
    CoherentResNet1d,
    ConstantQMap,
    DeepFilterShallow,
    Denoiser,
    Ensemble,
    GlitchNet,
    SearchNetwork,
    WaveNet,
    WaveNetEnsemble,
    WaveNetStream,
    build,
)
from mma_realtime.models.resnet1d import MaxPool
from torch import nn

torch.set_num_threads(1)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# ---- residual network ----


def test_the_published_residual_network_has_its_size() -> None:
    """Stages 3, 4, 6, 3 of two 3-wide convolutions, counted by hand."""
    count = 2 * 64 * 7 + 2 * 64
    before = 64
    for number, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3))):
        for place in range(blocks):
            count += 3 * before * width + 3 * width * width + 4 * width
            if not place and number:
                count += before * width + 2 * width
            before = width
    assert size(CoherentResNet1d()) == count + 512 + 1
    assert size(CoherentResNet1d(**SMALL)) == 106_817


@pytest.mark.parametrize("samples", [1, 2, 7, 8])
def test_the_maximum_of_three_is_the_librarys(samples: int) -> None:
    torch.manual_seed(0)
    x, y = (torch.randn(2, 3, samples).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    a, b = MaxPool()(x), nn.functional.max_pool1d(y, 3, 2, 1)
    assert torch.equal(a, b)
    weight = torch.randn_like(a)
    for out in (a, b):
        (out * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_a_window_does_not_depend_on_its_batch_and_detectors_matter() -> None:
    torch.manual_seed(0)
    net = CoherentResNet1d(1024, **SMALL)
    x = torch.randn(3, 2, 1024)
    with torch.no_grad():
        alone, together = net.statistic(x[:1]), net.statistic(x)
        swapped = net.statistic(x.flip(1))
    torch.testing.assert_close(alone, together[:1], atol=1e-5, rtol=1e-5)
    assert (swapped - together).abs().min() > 1e-5


def test_the_residual_network_over_a_stretch_is_its_windows() -> None:
    torch.manual_seed(0)
    net, x = CoherentResNet1d(256, widths=(8, 8), blocks=(1, 1), groups=4), torch.randn(2, 700)
    series = net.statistic_series(x, 100)
    assert series.shape == (1, 5)
    with torch.no_grad():
        by_hand = torch.cat([net.statistic(x[None, :, k * 100 : k * 100 + 256]) for k in range(5)])
    torch.testing.assert_close(series[0], by_hand, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"widths": (16, 20), "blocks": (1, 1)}, "multiple of groups, 16"),
        ({"widths": (16,), "blocks": (1, 1)}, "one width and >= 1 block"),
        ({"channels": 0}, "channels is 0"),
    ],
)
def test_residual_networks_that_can_not_be(size: dict, says: str) -> None:
    with pytest.raises(SearchError, match=says):
        build("coherent_resnet", **size)


# ---- WaveNet ----


def wavenet(channels: int = 2, outputs: int = 1) -> WaveNet:
    torch.manual_seed(3)
    net = WaveNet(64, channels, outputs, width=4, skip=5, depth=4, stacks=2)  # reach 31
    for p in net.parameters():
        p.data = 0.5 * torch.randn_like(p)
    return net


def by_definition(net: WaveNet, x: torch.Tensor) -> torch.Tensor:
    """The logits of each sample with torch's own dilated convolution and zeros on the left of each layer."""
    y, total = net.first(x), 0.0
    for layer in net.layers:
        a = layer.gate(nn.functional.pad(y, (layer.dilation, 0)))
        towers = a.view(len(x), net.channels, 2, net.width, -1)
        z = (torch.tanh(towers[:, :, 0]) * torch.sigmoid(towers[:, :, 1])).reshape(len(x), -1, y.shape[-1])
        total = total + layer.skip(z)
        y = y + layer.residual(z)
    return net.fuse(total)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_unfolded_is_the_definition_and_windows_are_its_samples(channels: int) -> None:
    net = wavenet(channels)
    assert net.reach == 1 + 2 * 15
    x = torch.randn(2, channels, 200)
    with torch.no_grad():
        expected = by_definition(net, x)
        torch.testing.assert_close(net.unfolded(x), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net.settled(x), expected[..., net.reach - 1 :], atol=1e-5, rtol=1e-5)
        windows = x.unfold(-1, 64, 10)
        by_hand = torch.stack([net(windows[:, :, k]) for k in range(windows.shape[2])], dim=-1)
        torch.testing.assert_close(net.dense(x, 10), by_hand, atol=1e-5, rtol=1e-5)


def test_pieces_of_a_long_stretch_join(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = wavenet(), torch.randn(1, 2, 301)
    with torch.no_grad():
        whole = net.dense(x, 3)
        monkeypatch.setattr("mma_realtime.models.wavenet.PIECE", 37)
        torch.testing.assert_close(net.dense(x, 3), whole, atol=1e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(hops=st.lists(st.integers(1, 40), min_size=1, max_size=8), cut=st.integers(0, 7))
def test_a_stream_of_any_hops_equals_the_unfolded_network(hops: list[int], cut: int) -> None:
    """Also where it is saved and goes on in another stream."""
    net = wavenet()
    x = torch.randn(2, sum(hops))
    with torch.no_grad():
        expected = net.unfolded(x[None])[0]
    stream, out, place = WaveNetStream(net), [], 0
    for number, hop in enumerate(hops):
        if number == cut:
            state = copy.deepcopy(stream.state_dict())
            stream.push(torch.randn(2, 5))  # what comes after the state was taken does not matter
            stream = WaveNetStream(net)
            stream.load_state_dict(state)
        out.append(stream.push(x[:, place : place + hop]))
        place += hop
    torch.testing.assert_close(torch.cat(out, dim=1), expected, atol=1e-5, rtol=1e-5)
    assert stream.seen == place
    assert stream.settled == (place >= net.reach - 1)


def test_the_future_and_what_is_out_of_reach_do_not_matter() -> None:
    torch.manual_seed(0)
    net, x = wavenet().double(), torch.randn(1, 2, 120).double()  # the farthest sample may move less than a float holds
    with torch.no_grad():
        before = net.unfolded(x)[0, 0, 80]
        for place, changes in ((81, False), (80, True), (80 - net.reach + 1, True), (80 - net.reach, False)):
            y = x.clone()
            y[..., place] += 1
            assert (float((net.unfolded(y)[0, 0, 80] - before).abs()) > 0) == changes, place


def test_wavenets_and_streams_that_can_not_be() -> None:
    with pytest.raises(SearchError, match="input_length is 1024: this WaveNet looks at 2047 samples"):
        WaveNet(1024)
    with pytest.raises(SearchError, match="of another network"):
        WaveNetStream(wavenet(2)).load_state_dict(WaveNetStream(wavenet(3)).state_dict())


# ---- ensembles ----


@pytest.mark.parametrize("combine", ["mean", "min"])
def test_an_ensemble_combines_statistics(combine: str) -> None:
    torch.manual_seed(0)
    members: list[SearchNetwork] = [DeepFilterShallow(1024) for _ in range(3)]
    net, x = Ensemble(members, combine), torch.randn(4, 1, 1024)  # type: ignore[arg-type]
    with torch.no_grad():
        each = torch.stack([member(x)[:, 1] - member(x)[:, 0] for member in members])
        expected = each.mean(0) if combine == "mean" else each.min(0).values
        torch.testing.assert_close(net.statistic(x), expected)
    y = torch.randn(2, 1500)
    series = torch.stack([member.statistic_series(y, 64) for member in members])
    expected = series.mean(0) if combine == "mean" else series.min(0).values
    torch.testing.assert_close(net.statistic_series(y, 64), expected)


def test_ensembles_that_can_not_be() -> None:
    with pytest.raises(SearchError, match="at least one member"):
        Ensemble([])
    with pytest.raises(SearchError, match="combine is 'max'"):
        Ensemble([DeepFilterShallow(1024)], "max")  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="share window and detectors"):
        Ensemble([DeepFilterShallow(1024), DeepFilterShallow(2048)])


def test_of_a_wavenet_ensemble_the_smallest_statistic_counts_streamed_too() -> None:
    torch.manual_seed(0)
    size: dict[str, int] = {"input_length": 128, "channels": 2, "width": 4, "skip": 4, "depth": 3, "stacks": 2}
    net, x = WaveNetEnsemble(3, **size).eval(), torch.randn(2, 200)
    assert net.combine == "min"
    assert len(WaveNetEnsemble(**size).members) == 4
    streamed = torch.stack([WaveNetStream(member).push(x)[0] for member in net.members]).amin(0)  # type: ignore[arg-type]
    torch.testing.assert_close(net.statistic_series(x, 1)[0], streamed[127:], atol=1e-5, rtol=0)
    again = WaveNetEnsemble([*net.members])  # type: ignore[list-item]
    with torch.no_grad():
        torch.testing.assert_close(again.statistic(x[None, :, :128]), net.statistic(x[None, :, :128]))
    with pytest.raises(SearchError, match=r"not of DeepFilterShallow: use Ensemble"):
        WaveNetEnsemble([DeepFilterShallow(1024)])
    with pytest.raises(SearchError, match=r"width: of new members only"):
        WaveNetEnsemble([WaveNet(**size)], width=8)


# ---- denoiser and glitches ----


def test_a_denoiser_learns_to_take_noise_away() -> None:
    torch.manual_seed(0)
    net = Denoiser(128, widths=(16, 16), kernel=5, stride=2)
    t = torch.arange(128) / 128
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(100):
        clean = 2 * torch.sin(2 * math.pi * (8 * t + torch.rand(16, 1, 1)))
        x = clean + torch.randn(16, 1, 128)
        loss = (net(x) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5  # 1 is no denoising


@pytest.mark.parametrize(("stride", "widths"), [(2, (4,)), (4, (4, 6, 8))])
def test_a_denoiser_gives_as_many_samples_as_it_takes_and_sees_the_past_and_the_future(
    stride: int, widths: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    net = Denoiser(256, channels=2, widths=widths, kernel=3, stride=stride).double()
    x = torch.randn(3, 2, 256, dtype=torch.float64, requires_grad=True)
    y = net(x)
    assert y.shape == x.shape
    (seen,) = torch.autograd.grad(y[0, 0, 128], x)
    places = seen[0].abs().sum(0).nonzero()[:, 0]
    assert places.min() < 128 < places.max()
    assert seen[1:].abs().max() == 0
    assert (seen[0].abs().sum(1) > 0).all()  # both detectors


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"input_length": 130, "widths": (4, 4)}, "a denoiser of 2 levels and stride 4 needs a multiple of 8"),
        ({"widths": ()}, r"widths is \[\]: channels of at least one level"),
        ({"widths": (4, 0)}, r"widths is \[4, 0\]"),
        ({"kernel": 4}, "kernel is 4 and stride 4: an odd kernel and an even stride"),
        ({"stride": 3}, "kernel is 9 and stride 3"),
    ],
)
def test_a_denoiser_of_sizes_that_do_not_fit_is_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SearchError, match=says):
        Denoiser(**settings)


@pytest.mark.parametrize("frequency", [30.0, 100.0, 300.0])
def test_the_map_shows_a_tone_at_its_frequency_and_time(frequency: float) -> None:
    t = torch.arange(1024) / 1024
    tone = torch.sin(2 * math.pi * frequency * t) * torch.exp(-0.5 * ((t - 0.6) / 0.08) ** 2)
    picture = ConstantQMap()(tone[None])[0]
    assert picture.shape == (64, 64)
    row, column = divmod(int(picture.argmax()), 64)
    assert 20 * 20 ** (row / 63) == pytest.approx(frequency, rel=0.1)
    assert column / 64 == pytest.approx(0.6, abs=0.05)


def test_white_noise_has_the_same_power_in_every_row() -> None:
    torch.manual_seed(0)
    power = ConstantQMap()(torch.randn(200, 1024))[..., 16:48].square().mean((0, 2))
    assert power.max() < 1.15
    assert power.min() > 0.6  # between two bins, neighbours are averaged


def test_glitch_classes() -> None:
    net = GlitchNet(1024)
    assert net(torch.randn(3, 1, 1024)).shape == (3, 6)
    with pytest.raises(SearchError, match="needs a multiple of 64"):
        GlitchNet(1000)
    with pytest.raises(SearchError, match="within 0 and 512 Hz"):
        GlitchNet(1024, 1024, (20.0, 600.0))
