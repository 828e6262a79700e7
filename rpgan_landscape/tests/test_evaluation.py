"""Samples of a generator, judged: the generator is left as it was, and known samples get known numbers."""

import pytest
import torch
from jaxtyping import Float
from rpgan_landscape.data import GanData
from rpgan_landscape.evaluation import classifier, evaluate, real_images, sample, to_bytes
from rpgan_landscape.nets import build
from shared.errors import UserError
from shared.metrics.features import Classifier
from torch import Tensor, nn

from rpgan_landscape import evaluation


@pytest.fixture(scope="module")
def digits() -> GanData:
    data = GanData("digits", seed=0)
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def net(digits: GanData) -> Classifier:
    return classifier(digits)


class Replay(nn.Module):
    """A generator that shows given images, one after another, whatever its latents."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images, self.latent, self.place = nn.Parameter(images), 2, 0

    def forward(self, z: Float[Tensor, "n latent"]) -> Tensor:
        rows = torch.arange(self.place, self.place + len(z)) % len(self.images)
        self.place += len(z)
        return self.images[rows]


def test_bytes_are_truncated_as_in_the_reference() -> None:
    x = torch.tensor([-1.0, -0.5, 0.0, 0.999, 1.0, 1.3, -1.2])
    assert to_bytes(x).tolist() == [0, 63, 127, 254, 255, 255, 0]


def test_the_two_modes_of_batch_norm_differ_and_leave_the_generator_alone() -> None:
    generator, _ = build("cnn32", 4)
    for _ in range(3):
        generator(torch.randn(16, 128))  # training mode: running statistics move
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    by_running, by_batch = (sample(generator, 6, mode) for mode in ("eval", "batch"))
    assert not torch.equal(by_running, by_batch)
    assert generator.training
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    z = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(by_batch, to_bytes(generator(z).detach()))  # a forward pass in training mode
    assert torch.equal(by_running, to_bytes(generator.eval()(z).detach())) is False  # that pass moved the statistics
    generator.load_state_dict(before)
    assert torch.equal(by_running, to_bytes(generator.eval()(z).detach()))
    with pytest.raises(UserError, match="unknown bn_mode 'train': there are eval, batch"):
        sample(generator, 2, "train")


def test_real_digits_are_better_than_noise_in_every_number(
    digits: GanData, net: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "classifier", lambda data, device: net)
    train = digits.train.x(torch.arange(700))
    good = evaluate(Replay(train), digits, samples=400, score_samples=400)
    bad = evaluate(Replay(torch.rand(700, 3, 32, 32) * 2 - 1), digits, samples=400, score_samples=400)
    assert set(good) == set(bad)
    (title,) = [key for key in good if key.startswith("features/digits-cnn-")]
    assert good[title] == bad[title] == net.accuracy > 0.85
    assert good["normalised by batch"] == 0
    for lower in ("frechet", "kernel"):
        assert good[lower] < bad[lower] / 5
    for higher in ("precision", "recall", "coverage", "prd_f8", "prd_f1_8", "inception_score"):
        assert good[higher] > bad[higher]


def test_classes_of_a_generator_that_knows_one(digits: GanData) -> None:
    data = GanData("digits", classes=[5, 7], class_ratio=[0.2, 1.0], seed=0)
    data.setup("fit")
    assert data.train.labels is not None
    sevens = data.train.x((data.train.labels == 7).nonzero()[:, 0])
    found = evaluate(Replay(sevens), data, kind="classes", samples=300)
    assert found["share_7"] > 0.95
    assert found["minority_share"] == found["share_5"] < 0.05
    assert real_images(data.train, 10).dtype == torch.uint8


def test_errors(digits: GanData) -> None:
    with pytest.raises(UserError, match="unknown evaluation 'fid': there are images, classes, stacked"):
        evaluate(Replay(torch.zeros(2, 3, 32, 32)), digits, kind="fid")
    points = GanData("gaussians", seed=0)
    points.setup("fit")
    with pytest.raises(UserError, match=r"w\.pt is missing: give the TorchScript file"):
        evaluate(Replay(torch.zeros(2, 3, 32, 32)), digits, inception="w.pt")
