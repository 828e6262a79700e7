"""Networks: published counts and names, golden vectors through the discriminator, spectral and batch normalisation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diggan.features import InceptionFeatures
from diggan.gradient_gap import DIGRegularizer
from diggan.losses import d_losses
from diggan.nets.inception import FIDInception
from diggan.nets.layers import BatchNorm, ConditionalBatchNorm, SNLinear, spectral_layers
from diggan.regulariser import discriminate
from shared.errors import UserError
from torch import Tensor

from diggan import nets

COUNTS = json.loads((Path(__file__).parent / "golden" / "counts.json").read_text())["param_counts"]
CONFIGS = {
    "C10 ch64": {},
    "C100 ch64": {"classes": 100},
    "C10 ch16": {"width": 16},
    "C10 ch32": {"width": 32},
    "C10 ch2 z8 (n_classes 4)": {"width": 2, "classes": 4, "latent": 8},
    "C10 ch64 shared-embedding": {"shared_embedding": True},
    "C10 ch64 with attention at 32": {"attention": True},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_are_the_published(name: str) -> None:
    g, d = nets.build("biggan_cifar", **CONFIGS[name])
    found = {
        "G": nets.parameters(g),
        "D": nets.parameters(d),
        "G_tensors": len(list(g.parameters())),
        "D_tensors": len(list(d.parameters())),
        "D_spectral_layers": len(spectral_layers(d)),
        "G_spectral_layers": len(spectral_layers(g)),
    }
    assert found == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "g_count", "d_count"), [("biggan64", 17_335_204, 30_796_722), ("biggan128", 70_331_588, 86_753_570)]
)
def test_counts_of_the_larger_networks(name, g_count: int, d_count: int) -> None:
    with torch.device("meta"):
        g, d = nets.build(name, classes=200)
    assert (nets.parameters(g), nets.parameters(d)) == (g_count, d_count)


def inception_state() -> dict[str, Tensor]:
    """Weights by a formula, of the size that keeps activations of order 1 (golden README)."""
    out: dict[str, Tensor] = {}
    for k, (name, value) in enumerate(FIDInception().state_dict().items()):
        wave = ((torch.arange(value.numel()) * 7919 + k * 104729) % 2003 - 1001).view(value.shape) / 1001
        if name.endswith("num_batches_tracked"):
            continue  # files of that age have none
        if name.endswith(("running_var", "bn.weight")):
            out[name] = 1 + 0.2 * wave
        elif name.endswith(("bias", "running_mean")):
            out[name] = 0.1 * wave
        else:
            out[name] = wave * (6 / value[0].numel()) ** 0.5
    return out


def test_inception_is_the_one_behind_published_distances(tmp_path: Path) -> None:
    expected = json.loads((Path(__file__).parent / "golden" / "inception.json").read_text())
    state = inception_state()
    torch.save(state, tmp_path / "weights.pth")
    measured = InceptionFeatures(tmp_path / "weights.pth")
    assert sum(p.numel() for p in measured.net.parameters()) == expected["parameters"]
    assert measured.title.startswith("inception-")
    pixels = (torch.arange(2 * 3 * 32 * 32) * 37 % 251).view(2, 3, 32, 32)
    features, probabilities = measured.extract(pixels / 127.5 - 1)
    torch.testing.assert_close(features[:, ::256], torch.tensor(expected["features"]), rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        logits = measured.net.fc(features)
    torch.testing.assert_close(logits[:, ::126], torch.tensor(expected["logits"]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(probabilities, logits.softmax(1))
    state["fc.weight"] = torch.zeros(1000, 2048)
    torch.save(state, tmp_path / "other.pth")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "small.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name, says in (
        ("other", "weights of 1000 classes: FID's own Inception has 1008"),
        ("small", "weights of another network"),
        ("text", "neither TorchScript nor a state dict"),
        ("absent", "is missing: give Inception weights"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            InceptionFeatures(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)


def test_one_pass_of_the_discriminator_is_the_authors(golden, loaded) -> None:
    file = golden("dig_biggan_d_ch2")
    d = loaded(file, "state/", nets.build("biggan_cifar", width=2, classes=4, latent=8)[1])
    reg = DIGRegularizer("official", float(file["lam"]))
    seen = discriminate(
        d, file["x_fake"], file["x_real"], file["y_fake"], file["y_real"], regularisers=[reg], force=True
    )

    def same(got: Tensor, key: str) -> None:
        single = key.startswith("grad/") and got.numel() >= 2000
        tolerance = {"rtol": 1e-5, "atol": 1e-10} if single else {"rtol": 1e-8, "atol": 1e-10}
        torch.testing.assert_close(got, file[key].reshape(got.shape), **tolerance, msg=lambda m: f"{key}: {m}")

    same(torch.cat([seen.fake, seen.real]), "logits")
    same(torch.cat([reg.s_fake, reg.s_real]), "norms")
    same(seen.penalties[0], "penalty")
    hinge = sum(d_losses(seen.real, seen.fake))
    same(hinge, "hinge_loss")
    (hinge + reg.weight * seen.penalties[0]).backward()
    checked = 0
    for name, p in d.named_parameters():
        same(p.grad, f"grad/{name}")
        checked += 1
    for name, b in d.named_buffers():
        same(b, f"after/{name}")
        checked += 1
    assert checked == sum(key.startswith(("grad/", "after/")) for key in file) == 47


def test_evaluation_leaves_u_as_it_is_and_still_iterates() -> None:
    torch.manual_seed(0)
    layer = SNLinear(6, 4).double()
    x = torch.randn(3, 6).double()
    before = layer.u0.clone()
    trained = SNLinear(6, 4).double()
    trained.load_state_dict(layer.state_dict())
    expected = trained.train()(x)
    torch.testing.assert_close(layer.eval()(x), expected)
    assert torch.equal(layer.u0, before)
    assert not torch.equal(trained.u0, before)


def test_initialisation() -> None:
    torch.manual_seed(0)
    g, d = nets.build("biggan_cifar", width=16)
    for name, p in [*g.named_parameters(), *d.named_parameters()]:
        if name == "output_layer.0.gain":
            assert (p == 1).all()
        elif name == "output_layer.0.bias":
            assert (p == 0).all()
        elif name.endswith("weight") and p.numel() > 500:
            assert p.std().item() == pytest.approx(0.02, rel=0.15), name
            assert abs(p.mean().item()) < 0.003
        elif name.endswith(("conv1.bias", "conv2.bias")):  # the framework's: uniform within 1 / sqrt(fan in)
            assert 0 < p.abs().max() <= 1 / (16 * 4 * 9) ** 0.5 or "blocks.0.0.conv1" in name
    layers = spectral_layers(d)
    us = torch.cat([m.u0.flatten() for m in layers])
    assert us.std().item() == pytest.approx(1, rel=0.15)  # not normalised
    assert all(m.sv0.item() == 1 for m in layers)
    assert sum(isinstance(m, BatchNorm) for m in g.modules()) == 7
    assert all(
        (m.stored_mean == 0).all() and (m.stored_var == 1).all() for m in g.modules() if isinstance(m, BatchNorm)
    )


def test_batch_normalisation_by_class() -> None:
    """Biased variance normalises, the unbiased one is stored with momentum 0.1; gain counts from 1."""
    torch.manual_seed(0)
    norm = ConditionalBatchNorm(2, 3).double()
    x, y = torch.randn(4, 2, 3, 3).double(), torch.tensor([0, 1, 2, 0])
    out = norm.train()(x, y)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    plain = (x - mean[:, None, None]) / (var + 1e-5)[:, None, None].sqrt()
    expected = plain * (1 + norm.gain.weight[y])[:, :, None, None] + norm.bias.weight[y][:, :, None, None]
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(norm.stored_var, 0.9 + 0.1 * x.var((0, 2, 3)))


@pytest.mark.parametrize(("name", "image"), nets.IMAGES.items())
def test_images_go_in_and_out(name: str, image: tuple[int, int, int]) -> None:
    g, d = nets.build(name, width=8, classes=5)
    z = torch.randn(3, g.latent)
    y = torch.tensor([0, 4, 2])
    x = g(z, y) if g.classes else g(z)
    assert x.shape == (3, *image) == (3, *g.image)
    assert x.abs().max() <= 1
    assert (d(x, y) if d.classes else d(x)).shape == (3, 1)


def test_attention_starts_as_the_identity_and_then_acts() -> None:
    torch.manual_seed(0)
    layer = nets.layers.Attention(16)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(layer(x), x)
    torch.nn.init.ones_(layer.gamma)
    assert not torch.allclose(layer(x), x)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"network": "stylegan"}, "unknown network 'stylegan': there are mlp64, mlp784, conv8"),
        ({"network": "mlp64", "width": 0}, "width is 0"),
        ({"network": "biggan_cifar", "classes": 0}, "classes is 0"),
        ({"network": "conv8", "attention": True}, "options of biggan_cifar"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        nets.build(**settings)
