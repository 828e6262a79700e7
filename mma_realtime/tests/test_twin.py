"""The twin network: towers that are alike, a head that sees both, and a start as the sum of a network's statistics."""

from __future__ import annotations

import pytest
import torch
from mma_realtime.errors import SearchError
from mma_realtime.models import build
from mma_realtime.models.deepfilter import DeepFilterShallow
from mma_realtime.models.twin import TwinDeepFilter

torch.set_num_threads(1)


def twin(seed: int = 0, **size: int) -> TwinDeepFilter:
    torch.manual_seed(seed)
    net = TwinDeepFilter(**size).eval()
    with torch.no_grad():  # so that its statistic varies as a trained network's does
        net.head[3].weight.mul_(100.0)
    return net


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_towers_are_one_network_and_the_head_sees_every_detector() -> None:
    net, x = twin(), noise(5, 2, 1024)
    each = [net.tower(x[:, d : d + 1]) for d in range(2)]
    torch.testing.assert_close(net(x), net.head(torch.cat(each, 1)))
    for d in range(2):  # neither detector is left out
        other = x.clone()
        other[:, d] = noise(5, 1024, seed=2)
        assert (net(other) - net(x)).abs().min() > 1e-5
    # The shallow network with 64 outputs, and a head of 2 x 64 -> 64 -> 2.
    shallow = sum(p.numel() for p in DeepFilterShallow(1024, 1, 64).parameters())
    assert sum(p.numel() for p in net.parameters()) == shallow + (128 + 1) * 64 + (64 + 1) * 2


@pytest.mark.parametrize("hop", [64, 128, 40])  # multiples of the trunk's stride, and not
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_stretch_is_scored_as_its_windows_are(hop: int, outputs: int) -> None:
    net, x = twin(outputs=outputs), noise(2, 2300)
    windows = x.unfold(-1, 1024, hop).transpose(0, 1)
    with torch.no_grad():
        expected = net.statistic(windows)
    assert expected.std() > 0.01
    torch.testing.assert_close(net.statistic_series(x, hop)[0], expected, atol=1e-5, rtol=1e-4)
    embeddings = net.embeddings(x, hop)
    assert embeddings.shape == (2, len(windows), 64)
    torch.testing.assert_close(net.paired(embeddings), expected, atol=1e-5, rtol=1e-4)


def test_embeddings_may_come_from_different_times() -> None:
    """What a slide is: window k of the first detector with window k - 3 of the second."""
    net, x = twin(), noise(2, 3000)
    e = net.embeddings(x, 64)
    slid = net.paired(torch.stack([e[0, 3:], e[1, :-3]]))
    windows = torch.stack([x[:1, 192:].unfold(-1, 1024, 64)[0], x[1:, :-192].unfold(-1, 1024, 64)[0]], 1)
    with torch.no_grad():
        torch.testing.assert_close(slid, net.statistic(windows), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 2])
def test_it_begins_as_the_sum_of_a_trained_networks_statistics(outputs: int) -> None:
    torch.manual_seed(3)
    single = DeepFilterShallow(1024, 1, 2)
    with torch.no_grad():  # statistics of both signs and of the size of a trained network's
        single.head[-1].weight.mul_(100.0)
        single.head[-1].bias[1] -= single.statistic(3 * noise(64, 1, 1024)).median()
    net, x = twin(outputs=outputs), 3 * noise(64, 2, 1024)
    before = net.statistic(x).detach()
    net.init_from(single)
    with torch.no_grad():
        each = torch.stack([single.statistic(x[:, d : d + 1]) for d in range(2)])
        total = net.statistic(x)
    assert (each.sum(0) > 0).any()
    assert (each.sum(0) < 0).any()
    torch.testing.assert_close(total, each.sum(0), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, total, atol=1e-2)
    # Training can leave that start: every unit of the head's layer learns, and so does the tower.
    net.train()
    net(x).square().sum().backward()
    assert net.head[3].weight.grad.abs().sum(0).count_nonzero() > 32
    assert all(p.grad.abs().sum() > 0 for p in net.tower.trunk.parameters())


@pytest.mark.parametrize(
    ("size", "single", "says"),
    [
        ({"embedding": 32}, {}, "a twin of embedding 64 and at least 2 hidden units"),
        ({"hidden": 1}, {}, "a twin of embedding 64 and at least 2 hidden units"),
        ({}, {"outputs": 1}, "a twin of embedding 64 and at least 2 hidden units"),
        ({}, {"input_length": 2048}, "the same window is needed"),
    ],
)
def test_it_does_not_begin_as_what_does_not_fit(size: dict[str, int], single: dict[str, int], says: str) -> None:
    net = twin(**size)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(SearchError, match=says):
        net.init_from(DeepFilterShallow(**single))
    for name, value in net.state_dict().items():  # refused whole, not half begun
        assert torch.equal(value, kept[name]), name


def test_detectors_that_are_not_there_are_refused() -> None:
    net = build("twin", channels=2)
    with pytest.raises(SearchError, match="looks at 2 detectors together, the strain has 3"):
        net(noise(4, 3, 1024))
    with pytest.raises(SearchError, match="looks at 2 detectors together, the strain has 1"):
        net.dense(noise(1, 1, 2048), 64)
    with pytest.raises(SearchError, match="use deepfilter_shallow"):
        build("twin", channels=1)
    with pytest.raises(SearchError, match="one window of this network has 1024"):
        net.dense(noise(1, 2, 1000), 64)
    assert build("twin", channels=3)(noise(4, 3, 1024)).shape == (4, 2)
