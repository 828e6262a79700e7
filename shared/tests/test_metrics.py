"""Distances, scores and coverage against closed forms and plain definitions; extractors that name themselves."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.errors import UserError
from shared.metrics import coverage, distances, features
from sklearn.datasets import load_digits
from torch import Tensor, nn


def gaussian(n: int, mean: float, sd: float, seed: int, d: int = 4) -> Tensor:
    """n points whose sample mean and covariance are exactly `mean` and `sd`^2 I."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return white * sd + mean


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    a, b = gaussian(50, 0.0, 1.0, 0), gaussian(70, 3.0, 2.0, 1)
    assert distances.frechet_distance(a, b) == pytest.approx(4 * 9 + 4 * (2 - 1) ** 2, rel=1e-9)
    assert distances.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    full = torch.randn(300, 5, dtype=torch.float64)
    turned = full @ torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    # General covariances: tr (C C')^1/2 by the symmetric form, whose root is that of a positive matrix.
    c, other = full.T.cov(), turned.T.cov()
    values, vectors = torch.linalg.eigh(c)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    exact = (full.mean(0) - turned.mean(0)).square().sum() + c.trace() + other.trace() - 2 * cross
    assert distances.frechet_distance(full, turned) == pytest.approx(exact.item(), rel=1e-8)


@pytest.mark.parametrize("shared_axes", [0, 2, 4])
def test_frechet_distance_of_singular_covariances_is_the_closed_form(shared_axes: int) -> None:
    """Covariances of rank 4 in 40 dimensions whose axes coincide in some directions and are orthogonal in the others.

    Along a common axis with deviations s and t the traces give (s - t)^2, along any other s^2 or t^2.
    """
    turn = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
    s, t = torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.tensor([5.0, 0.5, 3.0, 1.0]).double()
    a = gaussian(9, 0.0, 1.0, 2) * s @ turn[:4]
    first = 4 - shared_axes
    b = gaussian(12, 0.0, 1.0, 3) * t @ turn[first : first + 4] + turn[39] * 0.7
    common = torch.dot(s[first:], t[:shared_axes])
    exact = 0.7**2 + s.square().sum() + t.square().sum() - 2 * common
    assert distances.frechet_distance(a, b) == pytest.approx(exact.item(), rel=1e-6)
    assert distances.frechet_distance(b, a) == pytest.approx(exact.item(), rel=1e-6)
    assert distances.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_fewer_samples_than_features_and_of_constant_ones() -> None:
    a = torch.cat([gaussian(40, 0.0, 1.0, 2), torch.ones(40, 3, dtype=torch.float64)], 1)  # three constant features
    b = torch.cat([gaussian(40, 1.0, 1.0, 3), torch.ones(40, 3, dtype=torch.float64)], 1)
    assert distances.frechet_distance(a, b) == pytest.approx(4, abs=1e-6)
    rng = torch.Generator().manual_seed(5)
    few, others = torch.randn(2, 64, generator=rng), torch.randn(3, 64, generator=rng)
    assert 0 < distances.frechet_distance(few, others) < math.inf
    one = distances.frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]]))  # one feature
    assert one == pytest.approx((3 - 1) ** 2 + (math.sqrt(8) - math.sqrt(2)) ** 2)


def test_kernel_distance_is_the_unbiased_estimate() -> None:
    a, b = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64) + 1

    def k(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / 3 + 1) ** 3

    n = 9
    within = sum((k(x, x).sum() - k(x, x).trace()) / (n * (n - 1)) for x in (a, b))
    assert distances.kernel_distance(a, b) == pytest.approx((within - 2 * k(a, b).mean()).item(), rel=1e-9)


def test_inception_score() -> None:
    certain = 50 * torch.eye(5).repeat(400, 1)
    assert distances.inception_score(certain, 2)[0] == pytest.approx(5, rel=1e-2)  # sure, and of every class alike
    assert distances.inception_score(torch.zeros(100, 5), 10) == pytest.approx((1, 0))
    logits = torch.randn(30, 4).repeat(2, 1)
    p = logits.double().softmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        halves = p[torch.randperm(60)].split(30)
    exact = [(h * (h.log() - h.mean(0).log())).sum(1).mean().exp().item() for h in halves]
    assert distances.inception_score(logits, 2) == pytest.approx((np.mean(exact), np.std(exact, ddof=1)), rel=1e-9)
    before = torch.get_rng_state()
    distances.inception_score(logits, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_compared_is_said() -> None:
    a = torch.randn(5, 3)
    with pytest.raises(UserError, match="of one extractor"):
        distances.frechet_distance(a, torch.randn(5, 4))
    with pytest.raises(UserError, match="1 real and 5 generated samples: at least 2"):
        distances.frechet_distance(a[:1], a)
    with pytest.raises(UserError, match="NaN or infinity"):
        distances.kernel_distance(a, a / 0)
    with pytest.raises(UserError, match="5 samples in 10 splits"):
        distances.inception_score(a, 10)
    with pytest.raises(UserError, match="k is 5 for 5 real"):
        coverage.nearest_neighbours(a, a, 5)
    with pytest.raises(UserError, match="5 samples in 20 clusters"):
        coverage.precision_recall_curve(a, a)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 30), st.integers(5, 30), st.integers(1, 4), st.integers(0, 1000))
def test_nearest_neighbours_are_the_definitions(n: int, m: int, k: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(n, 2, generator=rng), 1.5 * torch.randn(m, 2, generator=rng)
    found = coverage.nearest_neighbours(real, fake, k)

    def reach(points: Tensor, i: int) -> float:
        return sorted((points[i] - p).norm().item() for j, p in enumerate(points) if j != i)[k - 1]

    of_real, of_fake = [reach(real, i) for i in range(n)], [reach(fake, j) for j in range(m)]
    d = [[(x - y).norm().item() for y in fake] for x in real]
    assert found.precision == pytest.approx(sum(any(d[i][j] <= of_real[i] for i in range(n)) for j in range(m)) / m)
    assert found.recall == pytest.approx(sum(any(d[i][j] <= of_fake[j] for j in range(m)) for i in range(n)) / n)
    assert found.density == pytest.approx(sum(d[i][j] <= of_real[i] for i in range(n) for j in range(m)) / (k * m))
    assert found.coverage == pytest.approx(sum(min(d[i]) <= of_real[i] for i in range(n)) / n)


def test_chunks_do_not_change_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = torch.randn(40, 3), torch.randn(50, 3)
    whole = coverage.nearest_neighbours(real, fake)
    monkeypatch.setattr(coverage, "CHUNK", 7)
    assert coverage.nearest_neighbours(real, fake) == whole


def test_prd_of_known_histograms() -> None:
    half = np.array([0.5, 0.5, 0.0])
    precision, recall = coverage.prd(half, np.array([0.5, 0.0, 0.5]))
    assert precision.max() == pytest.approx(0.5)  # half of the samples are in the data's support
    assert recall.max() == pytest.approx(0.5)
    precision, recall = coverage.prd(half, half)
    assert coverage.f_beta(precision, recall, 8) == pytest.approx(1, abs=1e-2)
    narrow = coverage.prd(half, np.array([1.0, 0.0, 0.0]))
    assert coverage.f_beta(*narrow, 1 / 8) > 0.9 > 0.6 > coverage.f_beta(*narrow, 8)  # precise, but half of the recall


def test_prd_curve_tells_a_collapse_from_noise() -> None:
    rng = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(8, 2, generator=rng)
    real = centres.repeat(50, 1) + torch.randn(400, 2, generator=rng)
    collapsed = centres[:2].repeat(200, 1) + torch.randn(400, 2, generator=rng)
    same = coverage.precision_recall_curve(real, real[torch.randperm(400, generator=rng)], 8, 2)
    lost = coverage.precision_recall_curve(real, collapsed, 8, 2)
    assert min(same.f8, same.f1_8) > 0.97
    assert lost.f8 < 0.5 < 0.9 < lost.f1_8


def test_modes_and_classes() -> None:
    labels = torch.tensor([0, 0, 1, 3])
    modes, kl = coverage.modes_and_kl(labels, 4)
    assert modes == 3
    assert kl == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(1))
    assert coverage.modes_and_kl(torch.arange(4), 4) == (4, pytest.approx(0))
    assert coverage.class_shares(labels, [0, 3, 5]) == [0.5, 0.25, 0.0]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x * 15.9).to(torch.uint8).view(-1, 1, 8, 8).repeat(1, 3, 1, 1), torch.from_numpy(y)


def test_a_classifier_learns_names_itself_and_leaves_the_random_numbers(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    before = torch.get_rng_state()
    nets = [
        features.train_classifier("digits", images[:1500], labels[:1500], images[1500:], labels[1500:], steps=steps)
        for steps in (200, 200, 20)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert nets[0].accuracy > 0.85 > nets[2].accuracy  # the last digits are by other writers
    assert nets[0].title == nets[1].title != nets[2].title
    assert nets[0].title.startswith("digits-cnn-")
    found, logits = nets[0].extract(images[:7])
    assert (found.shape, logits.shape) == ((7, 128), (7, 10))
    assert torch.allclose(nets[0](features.scaled(images[:7])), logits, atol=1e-5)


def test_inception_weights_from_a_file(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float().mean((2, 3))[:, :, None, None]

    file = tmp_path / "weights.pt"
    torch.jit.script(Mean()).save(str(file))
    net = features.Inception(file)
    images = torch.randint(0, 256, (600, 3, 8, 8), dtype=torch.uint8)
    found, logits = net.extract(images)
    assert logits is None
    assert torch.allclose(found, images.float().mean((2, 3)))
    assert net.title.startswith("inception-")
    with pytest.raises(UserError, match=r"nothing\.pt is missing"):
        features.Inception(tmp_path / "nothing.pt")
    (tmp_path / "bad.pt").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"bad\.pt is no TorchScript file"):
        features.Inception(tmp_path / "bad.pt")


def test_a_set_against_itself_reaches_its_own_edges() -> None:
    """Every point lies in k balls of others, each k-th neighbour on an edge, and in its own: density (k + 1) / k."""
    points = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    found = coverage.nearest_neighbours(points, points, k=3)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(4 / 3, rel=1e-12)
