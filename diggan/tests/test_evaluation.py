"""Looks and scores: against golden values and by construction; and that looking changes nothing."""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from diggan.data import load
from diggan.evaluation import Judge, d_statistics, sample, summary, untouched
from diggan.features import LocalFeatures, local_features, quantised
from diggan.scores import inception_score, kernel_distance, leaks, nearest_training_distance
from shared.errors import UserError
from shared.metrics.coverage import nearest_neighbours
from shared.metrics.distances import frechet_distance

from diggan import nets


def test_inception_score_is_golden(golden) -> None:
    file = golden("losses_metrics")
    for splits in (1, 7, 10):
        mean, deviation = inception_score(file["is_probs"], splits)
        assert mean == pytest.approx(float(file[f"is_mean_{splits}"]), rel=1e-6)
        assert deviation == pytest.approx(float(file[f"is_std_{splits}"]), rel=1e-6, abs=1e-12)
    with pytest.raises(UserError, match="5 samples in 10 splits"):
        inception_score(file["is_probs"][:5])


def test_inception_score_of_a_class_that_no_sample_of_a_split_is() -> None:
    """Float32 probabilities are 0 where a classifier is sure: such a class adds nothing. One-hot over 4: score 4."""
    probabilities = torch.eye(4).repeat(10, 1)
    assert inception_score(torch.cat([probabilities, torch.zeros(40, 3)], 1)) == pytest.approx((4.0, 0.0))


def test_frechet_distance_is_golden_and_finite_for_few(golden) -> None:
    file = golden("losses_metrics")
    a, b = file["fid_feat_a"], file["fid_feat_b"]
    assert frechet_distance(a, b) == pytest.approx(float(file["fid_value"]), rel=1e-6)
    assert frechet_distance(a[:8], b) == pytest.approx(float(file["fid_value_rank_deficient_a8"]), rel=1e-3)
    assert math.isfinite(frechet_distance(a[:2], a[2:4]))


def test_kernel_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(60, 4, generator=generator), torch.randn(50, 4, generator=generator) + 1
    k = [((x.double() @ y.double().T) / 4 + 1) ** 3 for x, y in ((a[:50], a[:50]), (b, b), (a[:50], b))]
    exact = sum((m.sum() - m.trace()) / (50 * 49) for m in k[:2]) - 2 * k[2].mean()
    mean, deviation = kernel_distance(a[:50], b, subsets=3)
    assert mean == pytest.approx(exact.item(), rel=1e-9)
    assert deviation is None  # every subset is everything
    assert kernel_distance(a[:50], torch.cat([b, b]), subsets=3)[1] > 0
    same = kernel_distance(a, torch.randn(60, 4, generator=generator), subsets=20, size=30)
    assert abs(same[0]) < 0.2 * mean
    assert same[1] > 0


def test_precision_recall_density_coverage_by_hand() -> None:
    """k = 2 on a line: reals 0, 1, 2, 10; fakes 1.5, 30, 31, 32."""
    real, fake = torch.tensor([[0.0], [1], [2], [10]]), torch.tensor([[1.5], [30], [31], [32]])
    found = nearest_neighbours(real, fake, 2)
    # Reaches of reals: 2, 1, 2, 9 (1.5 lies in all four balls; the others in none). Of fakes: 29.5, 2, 1, 2.
    assert (found.precision, found.coverage) == (0.25, 1.0)
    assert found.density == 4 / (2 * 4)
    assert found.recall == 1.0


def test_nearest_training_image() -> None:
    training = torch.rand(7, 1, 4, 4)
    samples = torch.cat([training[3:4], training[:1] + 0.1])
    assert nearest_training_distance(samples, training).tolist() == pytest.approx([0, 0.1], abs=1e-3)


def test_leaks_are_holes_and_empty_lines() -> None:
    """8 x 8: holes of 4 x 4 at offsets 0 ... 8, of which a quarter (4 pixels) has to lie inside."""
    clean = torch.full((8, 3, 8, 8), 0.5)
    images = clean.clone()
    images[1, :, 2:6, 3:7] = 0.04  # a whole hole
    images[2, :, 2:6, 3:7] = 0.06  # not empty
    images[3, :2, 2:6, 3:7] = 0.0  # in two channels only
    images[4, :, 0:2, 0:2] = 0.0  # a quarter of a hole, at the corner
    images[5, :, 0:2, 3:5] = 0.0  # as many pixels, but no hole is cut off like that
    images[6, :, 7, :] = 0.0  # an empty line
    images[7, :, 3, :] = 0.0  # in the middle
    assert leaks(images).tolist() == [0, 1, 0, 0, 1, 0, 1, 0]


def test_cutout_and_translation_leak() -> None:
    from diggan.kernels.fused_diffaugment import draw, fused_diffaugment

    x = torch.full((200, 1, 8, 8), 0.5)
    for policy, least in (("cutout", 0.8), ("translation", 0.5)):
        out = fused_diffaugment(x, policy, draw(policy, 200, 8, 8, torch.Generator().manual_seed(0)))
        assert leaks(out).mean() > least


@pytest.mark.parametrize("mode", ["batch", "running", "standing"])
@pytest.mark.parametrize("network", ["conv8", "biggan_cifar"])
def test_sampling_leaves_the_generator_as_it_was(network: str, mode: str) -> None:
    torch.manual_seed(0)
    g = nets.build(network, 4)[0].train()
    for _ in range(3):
        g(torch.randn(8, g.latent), torch.randint(10, (8,))) if g.classes else g(torch.randn(8, g.latent))
    before, state = copy.deepcopy(g.state_dict()), torch.get_rng_state()
    first, second = sample(g, 30, mode, 10), sample(g, 30, mode, 10)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in g.state_dict().items())
    assert g.training
    other = sample(g, 30, "running" if mode != "running" else "batch", 10)
    assert not torch.equal(first, other)


def test_standing_statistics_are_of_many_different_passes() -> None:
    torch.manual_seed(0)
    g, seen = nets.build("conv8", 4)[0], []
    g.linear.register_forward_pre_hook(lambda _, args: seen.append(args[0]) if g.training else None)
    sample(g, 30, "standing", 10)
    assert len(seen) == 16
    assert len({float(z.sum()) for z in seen}) == 16


def test_batches_matter_to_batch_statistics_only() -> None:
    torch.manual_seed(0)
    g = nets.build("conv8", 4)[0]
    assert not torch.equal(sample(g, 30, "batch", 10), sample(g, 30, "batch", 15))
    torch.testing.assert_close(sample(g, 30, "running", 10), sample(g, 30, "running", 15))
    with pytest.raises(UserError, match="unknown eval_bn 'frozen': there are batch, running, standing"):
        sample(g, 4, "frozen")
    with untouched(nets.build("mlp64", 4)[0], "batch"):
        pass


def test_pixels_are_quantised_as_in_a_file() -> None:
    x = torch.tensor([-1.0, -0.999, 0.0, 0.5, 1.0])
    expected = ((x * 0.5 + 0.5) * 255 + 0.5).floor()
    assert torch.equal((quantised(x) + 1) * 127.5, expected)


def test_statistics_of_d() -> None:
    """D(x) = 2 sum(x): norm 2 sqrt(n) everywhere, no gap; logits and accuracies by hand."""
    d = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.constant_(d.weight, 2.0)
    train, held_out, fake = torch.tensor([[1.0] * 4, [-0.5] * 4]), torch.tensor([[1.0] * 4]), -torch.ones(3, 4)
    found = d_statistics(d, train, held_out, fake)
    assert found["norm_real"].item() == found["norm_fake"].item() == pytest.approx(4)
    assert found["gap"] == 0
    assert (found["logit_real"].item(), found["logit_held_out"].item(), found["logit_fake"].item()) == (2, 8, -8)
    assert (found["accuracy_real"].item(), found["accuracy_held_out"].item()) == (0.5, 1.0)
    assert found["overfitting"] == -0.5
    assert d.weight.requires_grad
    assert d.weight.grad is None


def test_statistics_leave_spectral_norm_alone() -> None:
    torch.manual_seed(0)
    d = nets.build("biggan_cifar", 2)[1].train()
    before = copy.deepcopy(d.state_dict())
    x, y = torch.rand(6, 3, 32, 32), torch.arange(6)
    whole = d_statistics(d, x, x[:3], x[3:], (y, y[:3], y[3:]))
    parts = d_statistics(d, x, x[:3], x[3:], (y, y[:3], y[3:]), batch=2)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name])
    assert all(torch.equal(before[k], v) for k, v in d.state_dict().items())
    assert d.training


def test_the_feature_net_is_trained_once_named_by_its_weights_and_good_enough(tmp_path, monkeypatch) -> None:
    source = load("digits")
    state = torch.get_rng_state()
    net = local_features(source, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.accuracy > 0.95  # the specification's: 97.8 %
    assert net.title.startswith("digits-cnn-")
    monkeypatch.setattr("diggan.features.train", lambda *a, **k: pytest.fail("trained again"))
    again = local_features(source, tmp_path)
    assert (again.title, again.accuracy) == (net.title, net.accuracy)
    judge = Judge(net, source.scaled(source.test_images))
    floor = judge.frechet(net.extract(source.scaled(source.images))[0])
    assert floor < 15  # the specification's net: 7.7
    assert judge.frechet(torch.full((50, 64), float("nan"))) == math.inf
    next(tmp_path.glob("features-*.pt")).write_bytes(b"PK")
    with pytest.raises(UserError, match="is damaged"):
        local_features(source, tmp_path)


def test_the_classifier_is_trained_once_and_on_the_cpu_for_all_who_ask_at_a_time(tmp_path, monkeypatch) -> None:
    """Trained on a GPU, or by everyone, it would be another one each time, and distances would not compare."""
    source, trained, moved = load("digits"), [], []
    both = threading.Barrier(2)

    def train(*args, **settings):
        trained.append((args[1:], settings))
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # for whoever else trains: nobody
        return LocalFeatures(source).eval().requires_grad_(False)

    monkeypatch.setattr("diggan.features.train", train)
    monkeypatch.setattr(LocalFeatures, "to", lambda self, device: moved.append(device) or self)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: local_features(source, tmp_path, "cuda").title, range(2))
    assert trained == [((), {})]  # of the data alone
    assert first == second
    assert moved == ["cuda", "cuda"]
    assert len(list(tmp_path.glob("features-*.pt"))) == 1


def test_the_accuracy_is_over_all_classes_of_a_sorted_folder(monkeypatch) -> None:
    """The first 10,000 test images of a sorted folder would be of its first classes only."""
    n = 12_000
    source = dataclasses.replace(
        load("digits"), test_images=torch.zeros(n, 1, 8, 8, dtype=torch.uint8), test_labels=torch.arange(n) // 1200
    )
    net = LocalFeatures(source).eval()
    torch.nn.init.zeros_(net.head.weight)
    net.head.bias.data = torch.eye(10)[9]  # the last class, whatever the image
    monkeypatch.setattr("diggan.features.train", lambda *args, **settings: net)
    assert local_features(source).accuracy == pytest.approx(0.1, abs=1e-3)


def test_features_of_mnist_are_the_specifications_shape(toy_data) -> None:
    net = LocalFeatures(load("mnist", toy_data))
    assert [tuple(p.shape) for p in net.parameters() if p.ndim > 1] == [
        (16, 1, 3, 3), (32, 16, 3, 3), (64, 1568), (10, 64),
    ]  # fmt: skip
    assert net.steps == 1500


def test_scores_of_the_training_images_themselves() -> None:
    source = load("digits")
    images = source.scaled(source.images)
    judge = Judge(LocalFeatures(source).eval(), source.scaled(source.test_images))
    found = judge.scores(images[:300], images[:300], subsets=2)
    assert found["nearest_training"] == pytest.approx(0, abs=1e-3)
    assert found["leak"] == found["leak_training"]
    assert found["coverage"] > 0.6
    assert {"fid", "kid", "precision", "recall", "density", "is", "is_sd"} < found.keys()
    assert "kid_sd" not in found  # the subsets of 300 of 300 are all the same
    more = source.scaled(source.images.repeat(2, 1, 1, 1))
    judge = Judge(judge.extractor, more)
    assert judge.scores(more, images[:300], subsets=2)["kid_sd"] > 0  # 1000 of 1794


def test_best_is_over_all_looks_and_tail_over_the_last_three() -> None:
    found = summary({"fid": [9, 1, 3, 5, 4], "gap": [1, 1, 0, 0, 3], "other": [1]})
    assert found == {"best/fid": 1, "last/fid": 4, "tail/fid": 4, "tail/gap": 1}
