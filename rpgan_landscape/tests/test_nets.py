"""The networks against the published ones: counts, names, forward passes; and their initialisations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rpgan_landscape.nets import NETWORKS, build, parameters
from shared.errors import UserError
from torch import nn

from rpgan_landscape import nets

GOLDEN = Path(__file__).parent / "golden"
# Section 5: (network, width, parameters of G, of D)
COUNTS = [
    ("two_cluster", 10, 46, 141), ("gaussians", 128, 17_154, 17_024),
    ("cnn32", 64, 3_812_355, 2_935_872), ("cnn32", 32, 1_218_051, 736_800), ("cnn32", 16, 436_995, 185_616),
    ("cnn48", 64, 5_133_315, 2_946_112), ("cnn48", 32, 1_878_531, 741_920), ("cnn48", 16, 767_235, 188_176),
    ("resnet32", 256, 4_270_595, 1_086_848), ("resnet32", 128, 1_201_411, 273_088), ("resnet32", 64, 367_235, 68_960),
    ("resnet32_bottleneck", 256, 2_499_971, 568_768), ("resnet32_bottleneck", 128, 758_467, 143_072),
    ("resnet32_bottleneck", 64, 256_355, 36_208),
    ("resnet48", 64, 4_876_547, 10_141_440), ("resnet48", 32, 1_814_659, 2_537_344), ("resnet48", 16, 751_427, 635_328),
    ("resnet48_bottleneck", 64, 3_714_659, 5_421_472), ("resnet48_bottleneck", 32, 1_524_019, 1_357_008),
    ("resnet48_bottleneck", 16, 678_683, 340_072), ("cnn256", 32, 13_276_608, 11_191_808),
]  # fmt: skip
CASES = {
    "dcgan32_nf16": ("cnn32", 16), "dcgan48_nf16": ("cnn48", 16), "resnet32_nf64": ("resnet32", 64),
    "resnet32_nf64_bn": ("resnet32_bottleneck", 64), "resnet48_nf16": ("resnet48", 16),
    "resnet48_nf16_bn": ("resnet48_bottleneck", 16),
}  # fmt: skip


@pytest.mark.parametrize(("name", "width", "g", "d"), COUNTS)
def test_parameter_counts(name: str, width: int, g: int, d: int) -> None:
    generator, critic = build(name, width)
    assert (parameters(generator), parameters(critic)) == (g, d)


def made(state: list[tuple[str, list[int]]], seed: int) -> dict[str, torch.Tensor]:
    """Weights of the golden nets, as their README says, for the entries that it counts."""
    out, t = {}, 0
    for name, shape in state:
        if name.endswith(("num_batches_tracked", "_u", "_v")):
            continue
        w = np.random.RandomState(seed + t).standard_normal(shape)
        t += 1
        if name.endswith("running_var"):
            w = 1 + 0.2 * np.abs(w)
        elif name.endswith("running_mean"):
            w = 0.1 * w
        elif len(shape) > 1:
            w = w * np.sqrt(2 / (np.prod(shape) / shape[0]))
        elif name.endswith(("bn.weight", "b1.weight", "b2.weight", "b5.weight")):
            w = 1 + 0.1 * w
        else:
            w = 0.01 * w
        out[name] = torch.from_numpy(np.asarray(w, dtype=np.float32))
    return out


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, dict], dict[str, np.ndarray]]:
    return json.loads((GOLDEN / "nets_state.json").read_text()), dict(np.load(GOLDEN / "nets.npz"))


@pytest.mark.parametrize("case", CASES)
def test_names_and_shapes_are_the_published_ones(case: str, golden: tuple) -> None:
    states, _ = golden
    for net, key in zip(build(*CASES[case]), ("G_state", "D_state")):
        assert [[name, list(value.shape)] for name, value in net.state_dict().items()] == states[case][key]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-4)])
def test_forward_passes(case: str, dtype: torch.dtype, tolerance: float, golden: tuple) -> None:
    states, arrays = golden
    generator, critic = build(*CASES[case])
    weights = made(states[case]["G_state"], 10)
    tracked = {name: value for name, value in generator.state_dict().items() if name.endswith("num_batches_tracked")}
    generator.load_state_dict(weights | tracked, strict=True)
    generator.to(dtype)
    z = torch.from_numpy(np.random.RandomState(910).standard_normal((3, 128))).to(dtype)
    for mode in ("eval", "train"):
        generator.train(mode == "train")
        with torch.no_grad():
            image = generator(z)
        assert np.abs(image[:, :, ::5, ::5].numpy() - arrays[f"{case}.G_{mode}.sub"]).max() <= tolerance
        assert abs(image.mean().item() - float(arrays[f"{case}.G_{mode}.mean"])) <= tolerance
        assert abs(image.std().item() - float(arrays[f"{case}.G_{mode}.std"])) <= tolerance

    # Exact spectral norm: the stored singular vectors are set to the exact ones, which power iterations approach.
    own = made(states[case]["D_state"], 510)
    for name, weight in list(own.items()):
        if name.endswith("weight_orig"):
            u, _, v = torch.linalg.svd(weight.double().flatten(1), full_matrices=False)
            own[name.replace("_orig", "_u")], own[name.replace("_orig", "_v")] = u[:, 0], v[0]
    critic.to(torch.float64)
    critic.load_state_dict(own, strict=True)
    critic.to(dtype).eval()
    size = NETWORKS[CASES[case][0]].image[1]
    x = torch.from_numpy(np.random.RandomState(911).uniform(-1, 1, (3, 3, size, size))).to(dtype)
    with torch.no_grad():
        logits = critic(x)
    assert np.abs(logits.numpy() - arrays[f"{case}.D_eval"]).max() <= (1e-7 if dtype is torch.float64 else tolerance)


def test_spectral_norm_takes_one_power_iteration_per_forward_in_training() -> None:
    _, critic = build("cnn32", 4)
    x = torch.randn(2, 3, 32, 32)
    before = critic.conv2.weight_u.clone()
    critic(x)
    once = critic.conv2.weight_u.clone()
    w = critic.conv2.weight_orig.detach().flatten(1)
    v = nn.functional.normalize(w.T @ before, dim=0)
    assert torch.allclose(once, nn.functional.normalize(w @ v, dim=0), atol=1e-6)
    critic.eval()(x)
    assert torch.equal(critic.conv2.weight_u, once)
    layers = [m for m in critic.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 8
    assert all(hasattr(layer, "weight_u") for layer in layers)


def test_initialisations() -> None:
    generator, critic = build("cnn32", 16)
    bound = (6 / (128 + 8 * 16 * 16)) ** 0.5  # Xavier uniform
    assert 0.98 * bound < generator.l1.weight.abs().max() <= bound
    default = 1 / (4 * 16 * 16) ** 0.5  # torch's default of a transposed convolution: fan-in over output channels
    assert 0.95 * default < generator.deconv1.weight.abs().max() <= default
    for net in (critic, build("resnet32", 16)[1], build("cnn256", 4)[1]):
        for name, value in net.named_parameters():
            if name.endswith("weight_orig"):
                rows = value.detach().flatten(1)
                gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
                assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-5), name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pair_fits_together_and_its_gradients_reach_every_weight(name: str) -> None:
    width = 4 if NETWORKS[name].image else None
    generator, critic = build(name, width)
    fake = generator(torch.randn(2, generator.latent))
    if NETWORKS[name].image:
        assert tuple(fake.shape) == (2, 3, NETWORKS[name].image[1], NETWORKS[name].image[1])
    logits = critic(fake)
    assert logits.shape == (2, 1)
    logits.sum().backward()
    missing = [n for net in (generator, critic) for n, p in net.named_parameters() if p.grad is None]
    assert missing == []


def test_errors() -> None:
    with pytest.raises(UserError, match=r"unknown network 'cn32': there are two_cluster, .*did you mean cnn32"):
        build("cn32")
    with pytest.raises(UserError, match="width is 0"):
        build("cnn32", 0)
    with pytest.raises(UserError, match="resnet32 needs a multiple of 4"):
        build("resnet32", 6)
    assert nets.NETWORKS["cnn32"].width == 64
