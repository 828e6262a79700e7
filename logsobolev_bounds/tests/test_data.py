"""Examples as the specification has them, covariances, and bad input: each message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from logsobolev_bounds.data import (
    CIFAR10DataModule,
    DigitsDataModule,
    Examples,
    FashionMNISTDataModule,
    MNISTDataModule,
    check,
    class_covariances,
    covariance,
    read,
    within_covariance,
)
from shared.errors import UserError


def ready(**settings) -> Examples:
    data = Examples(**settings)
    data.setup()
    return data


def test_digits_are_split_scaled_and_centred_as_specified() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(1797)
    data = ready()
    assert (data.m, len(data.y_test), data.inputs) == (1200, 597, 64)
    assert data.y.tolist() == labels[order[:1200]].tolist()
    raw = torch.from_numpy(images[order] / 16).float()
    torch.testing.assert_close(data.x, raw[:1200] - raw[:1200].mean(0))
    torch.testing.assert_close(data.x_test, raw[1200:] - raw[:1200].mean(0))
    largest = torch.linalg.eigvalsh(covariance(torch.cat([data.x, data.x_test]))).max().item()
    assert largest == pytest.approx(0.70, abs=0.005)  # the specification's, of all 1,797
    held_out = ready(center="heldout")
    torch.testing.assert_close(held_out.x, raw[:1200] - raw[1200:].mean(0))
    torch.testing.assert_close(ready(center="none").x, raw[:1200])


def test_every_data_set_has_a_module_of_its_name(toy_data: Path) -> None:
    for module, name in (
        (DigitsDataModule, "digits"), (MNISTDataModule, "mnist"), (FashionMNISTDataModule, "fashion_mnist"),
        (CIFAR10DataModule, "cifar10"),
    ):  # fmt: skip
        settings = {"root": str(toy_data), "m": 40, "center": "heldout", "label_noise": 0.5, "seed": 3}
        own, same = module(**settings), ready(dataset=name, **settings)
        own.setup()
        assert isinstance(own, Examples)
        assert own.fingerprint == same.fingerprint
        assert torch.equal(own.x, same.x)


def test_what_depends_on_the_training_set_says_so() -> None:
    assert ready().preprocessing_uses_s
    assert ready(scale="standardised", center="none").preprocessing_uses_s
    assert not ready(center="heldout").preprocessing_uses_s
    assert not ready(center="none").preprocessing_uses_s


def test_standardised_pixels() -> None:
    data = ready(scale="standardised")
    assert torch.linalg.eigvalsh(covariance(data.x)).max().item() == pytest.approx(7.3, abs=0.2)


def test_labels_are_replaced_by_random_ones(toy_data: Path) -> None:
    clean, half, all_ = ready(), ready(label_noise=0.5), ready(label_noise=1.0)
    assert 0.4 < (clean.y != half.y).float().mean() < 0.5  # nine of ten random labels are wrong
    assert 0.85 < (clean.y != all_.y).float().mean() < 0.95
    assert torch.equal(all_.y, ready(label_noise=1.0).y)
    assert not torch.equal(all_.y, ready(label_noise=1.0, seed=1).y)
    assert torch.equal(ready().y, clean.y)  # and what is kept in memory is not touched


def test_a_run_draws_by_its_own_seed() -> None:
    """Random labels and synthetic examples are drawn anew for each seed of an experiment; a file's images are not."""
    noisy, drawn = {"label_noise": 1.0}, {"dataset": "synthetic_logistic", "m": 60, "center": "none"}

    def of(seed: int, settings: dict) -> Examples:
        torch.manual_seed(seed)
        torch.rand(seed + 1)  # what was drawn since plays no part
        return ready(**settings)

    for settings in (noisy, drawn):
        first, again, other = (of(seed, settings) for seed in (1, 1, 2))
        assert first.fingerprint == again.fingerprint != other.fingerprint
        assert torch.equal(first.y, ready(**settings, seed=1).y)
    assert not torch.equal(of(1, drawn).x, of(2, drawn).x)
    assert not torch.equal(of(1, drawn).x_test, of(2, drawn).x_test)
    assert torch.equal(of(1, noisy).x, of(2, noisy).x)
    assert not torch.equal(of(1, noisy).y, of(2, noisy).y)


def test_a_part_is_set_aside_for_the_prior() -> None:
    data = ready(prior_fraction=0.25, m=400)
    assert (len(data.y_prior), data.m) == (100, 300)
    assert torch.equal(torch.cat([data.x_prior, data.x]), ready(m=400).x)


def test_files(toy_data: Path) -> None:
    for name, d in (("mnist", 784), ("fashion_mnist", 784), ("cifar10", 3072)):
        data = ready(dataset=name, root=str(toy_data), m=50, center="none")
        assert (data.m, data.inputs, data.classes) == (50, d, 10)
        assert data.x.min() >= 0
        assert data.x.max() <= 1
    with pytest.raises(FileNotFoundError, match="mnist is missing"):
        ready(dataset="mnist", root="/nowhere")


def test_synthetic_examples_are_drawn_by_their_recipe() -> None:
    data = ready(dataset="synthetic_logistic", m=20_000, center="none")
    assert data.classes == 2
    for label, sign in ((0, -1), (1, 1)):
        own = data.x[data.y == label]
        torch.testing.assert_close(own.mean(0), sign * torch.tensor([1.0, 0.5]), atol=0.04, rtol=0)
        torch.testing.assert_close(covariance(own).float(), torch.eye(2), atol=0.05, rtol=0)
    assert not torch.equal(data.x[:100], data.x_test[:100])


def test_covariances_add_up() -> None:
    """Total = within + between classes."""
    data = ready()
    total, within = covariance(data.x), within_covariance(data.x, data.y)
    means = torch.stack([data.x[data.y == c].double().mean(0) for c in range(10)])
    share = torch.bincount(data.y).double() / data.m
    centred = means - (share[:, None] * means).sum(0)
    torch.testing.assert_close(total, within + (centred.T * share) @ centred, rtol=1e-6, atol=1e-9)
    own = class_covariances(data.x, data.y)
    torch.testing.assert_close(sum(share[c] * s for c, s in own.items()), within)


def test_an_epoch_shows_every_example_once_in_another_order_each_time() -> None:
    data = ready(m=230, batch_size=100)
    torch.manual_seed(4)
    loader = data.train_dataloader()
    first, second = (torch.cat([x for x, _ in loader]) for _ in range(2))
    assert [len(x) for x, _ in loader] == [100, 100, 30]
    assert len(loader) == 3
    for epoch in (first, second):
        torch.testing.assert_close(epoch.double().sum(0), data.x.double().sum(0))
    assert not torch.equal(first, second)
    torch.manual_seed(4)
    again = ready(m=230, batch_size=100)
    again.load_state_dict({"epoch": 1})
    assert torch.equal(torch.cat([x for x, _ in again.train_dataloader()]), second)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dataset": "digit"}, "unknown data set 'digit': there are digits, .*; did you mean digits"),
        ({"scale": "255"}, "unknown scale '255': there are unit, standardised"),
        ({"center": "test"}, "unknown center 'test': there are train, heldout, none"),
        ({"m": 0}, "m is 0"),
        ({"m": 1201}, "m is 1201: digits has 1200"),
        ({"label_noise": 1.5}, "label_noise is 1.5"),
        ({"prior_fraction": 1.0}, "prior_fraction is 1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        ready(**settings)
    assert isinstance(caught.value, UserError)


def test_bad_examples() -> None:
    x, y = torch.zeros(4, 2), torch.tensor([0, 1, 2, 0])
    check(x, y, 3)
    for bad_x, bad_y, says in (
        (x[:3], y, r"x has shape \(3, 2\) and y \(4,\)"),
        (x[:0], y[:0], "there are no examples"),
        (torch.tensor([[0.0, float("nan")]]), y[:1], "example 0 holds NaN"),
        (x, y + 1, r"label 3 of example 2 is outside 0..2"),
        (x, y - 1, r"label -1 of example 0 is outside 0..2"),
    ):
        with pytest.raises(ValueError, match=says):
            check(bad_x, bad_y, 3)
    with pytest.raises(ValueError, match="class 1 has 1 example"):
        class_covariances(x, y)


def test_the_examples_of_a_bound_have_a_name_of_their_own() -> None:
    """Of what they are, not of the rounding of a mean; another for every other setting that chooses or labels them."""

    def named(**settings) -> str:
        return ready(**settings).fingerprint

    same = named(m=100)
    assert same == named(m=100, batch_size=7, center="none") == named(m=100, scale="standardised")
    logistic = {"dataset": "synthetic_logistic", "m": 100}
    others = [
        named(m=99), named(m=200, prior_fraction=0.5), named(m=100, label_noise=1.0), named(**logistic),
        named(m=100, label_noise=1.0, seed=1), named(**logistic, seed=1),
    ]  # fmt: skip
    assert len({same, *others}) == 7


def test_what_is_read_names_itself() -> None:
    _, _, _, _, _, digest, kind, detail = read("digits", None)
    assert (len(digest), kind) == (64, "embedded")
    assert "1,200 to train on" in detail
