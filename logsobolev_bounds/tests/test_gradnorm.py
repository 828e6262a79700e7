"""Gradient norms: golden values by the input and by the parameters; by the input against autograd, and refusals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logsobolev_bounds.errors import check_covariance
from logsobolev_bounds.gradnorm import MLPDraws, input_grad_sq, param_grad_sq
from logsobolev_bounds.gradnorm.inputs import gram_is_cheaper
from logsobolev_bounds.models import build, one
from torch import Tensor, nn
from torch.nn import functional as F

torch.set_num_threads(1)
GOLDEN = Path(__file__).parent / "golden"
EXACT = {"rtol": 1e-9, "atol": 1e-300}


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(np.array(file[key])) for key in file.files}


def mlp_of(values: dict[str, Tensor]) -> MLPDraws:
    return MLPDraws([values[f"W{i}"] for i in range(3)], [values[f"b{i}"] for i in range(3)])


def functions_of(draws: MLPDraws) -> list[Callable[[Tensor], Tensor]]:
    """One function for each draw, in plain PyTorch."""

    def function(k: int) -> Callable[[Tensor], Tensor]:
        def logits(x: Tensor) -> Tensor:
            for place, w in enumerate(draws.weights):
                x = F.linear(x.relu() if place else x, w[k], None if draws.biases is None else draws.biases[place][k])
            return x

        return logits

    return [function(k) for k in range(len(draws))]


def random_draws(*sizes: int, K: int = 3, bias: bool = False, seed: int = 0) -> MLPDraws:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(K, *shape, generator=generator, dtype=torch.float64) / shape[-1] ** 0.5

    pairs = list(itertools.pairwise(sizes))
    return MLPDraws([normal(o, i) for i, o in pairs], [normal(o) for _, o in pairs] if bias else None)


def batch(n: int, d: int, classes: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator)


def covariance(d: int, seed: int = 2) -> Tensor:
    root = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / d


@pytest.mark.parametrize("form", ["stacked", "functions"])
@pytest.mark.parametrize("chunk", [None, 1, 4, 7])
def test_golden_mlp_by_the_input(form: str, chunk: int | None) -> None:
    values = golden("mlp_grad")
    draws: Any = mlp_of(values) if form == "stacked" else functions_of(mlp_of(values))
    for key, Sigma in (("input_grad_sq", None), ("input_grad_sq_Sigma", values["Sigma"])):
        loss, g = input_grad_sq(draws, values["X"], values["y"], Sigma, chunk)
        torch.testing.assert_close(loss, values["loss"], **EXACT)
        torch.testing.assert_close(g, values[key], **EXACT)


def test_golden_mlp_by_the_parameters() -> None:
    values = golden("mlp_grad")
    for k in range(3):
        layers = [nn.Linear(i, o, dtype=torch.float64) for i, o in ((7, 5), (5, 4), (4, 3))]
        net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(inplace=True), layers[2])
        with torch.no_grad():
            for i, layer in enumerate(layers):
                layer.weight.copy_(values[f"W{i}"][k])
                layer.bias.copy_(values[f"b{i}"][k])
        norms = param_grad_sq(net, values["X"], values["y"])
        assert list(norms) == [f"{i}.{part}" for i in (0, 2, 4) for part in ("weight", "bias")]
        for i, place in enumerate((0, 2, 4)):
            torch.testing.assert_close(norms[f"{place}.weight"], values["param_grad_sq_W"][k, :, i], **EXACT)
            torch.testing.assert_close(norms[f"{place}.bias"], values["param_grad_sq_b"][k, :, i], **EXACT)


def test_golden_convolution() -> None:
    values = golden("conv_grad")
    conv = nn.Conv2d(2, 3, 3, int(values["stride"]), int(values["padding"]), dtype=torch.float64)
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(108, 4, dtype=torch.float64))
    state = zip(net.state_dict(), (values[key] for key in ("conv_w", "conv_b", "fc_w", "fc_b")))
    net.load_state_dict(dict(state))
    loss, g = input_grad_sq(net, values["X"], values["y"], chunk=2)
    torch.testing.assert_close(loss[0], values["loss"], **EXACT)
    torch.testing.assert_close(g[0], values["input_grad_sq"], **EXACT)
    norms = param_grad_sq(net, values["X"], values["y"])
    torch.testing.assert_close(torch.stack(list(norms.values()), 1), values["param_grad_sq"], **EXACT)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("d", "h"), [(30, 4), (5, 16)], ids=["gram", "direct"])
@pytest.mark.parametrize("bias", [False, True])
def test_stacked_networks_against_autograd(d: int, h: int, weighted: bool, bias: bool) -> None:
    n = 40
    assert gram_is_cheaper(n, h, d, weighted) == (d == 30)
    draws = random_draws(d, h, 6, 3, bias=bias)
    x, y = batch(n, d, 3)
    Sigma = covariance(d) if weighted else None
    ours, exact = input_grad_sq(draws, x, y, Sigma, 50), input_grad_sq(functions_of(draws), x, y, Sigma)
    for a, b in zip(ours, exact):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)
    small = MLPDraws(
        [w.float() for w in draws.weights], None if draws.biases is None else [b.float() for b in draws.biases]
    )
    single = input_grad_sq(small, x.float(), y, None if Sigma is None else Sigma.float())
    for a, b in zip(single, exact):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-6)


def test_without_a_hidden_layer_the_norm_is_that_of_the_residual() -> None:
    """|Sigma^{1/2} W' (p - e_y)|^2."""
    draws, (x, y), Sigma = random_draws(12, 4), batch(9, 12, 4), covariance(12)
    _, g = input_grad_sq(draws, x, y, Sigma)
    for k, W in enumerate(draws.weights[0]):
        gradient = ((x @ W.T).softmax(1) - F.one_hot(y, 4)) @ W
        torch.testing.assert_close(g[k], ((gradient @ Sigma) * gradient).sum(1))


def test_order_and_chunks_of_draws_change_nothing() -> None:
    draws, (x, y) = random_draws(6, 5, 3, K=5), batch(11, 6, 3)
    loss, g = input_grad_sq(draws, x, y)
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = MLPDraws([w[order] for w in draws.weights])
    for chunk in (1, 11, 22, 30, 1000):
        for a, b in zip(input_grad_sq(turned, x, y, chunk=chunk), (loss, g)):
            torch.testing.assert_close(a, b[order], rtol=1e-12, atol=0)


def test_images_are_flattened_for_the_covariance() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).double()
    x, y = batch(4, 32, 3)
    Sigma = covariance(32)
    loss, g = input_grad_sq([net, net], x.view(4, 2, 4, 4), y, Sigma)
    assert loss.shape == g.shape == (2, 4)
    leaf = x.view(4, 2, 4, 4).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(leaf), y, reduction="sum"), leaf)
    gradient = gradient.flatten(1)
    torch.testing.assert_close(g[1], torch.einsum("ni,ij,nj->n", gradient, Sigma, gradient))
    assert all(p.grad is None for p in net.parameters())


def test_gradients_by_the_input_inside_no_grad_and_inference_mode() -> None:
    values = golden("mlp_grad")
    functions = functions_of(mlp_of(values))
    with torch.inference_mode():
        x = values["X"] + 0
        results = [input_grad_sq(d, x, values["y"] + 0) for d in (functions, mlp_of(values))]
    with torch.no_grad():
        results.append(input_grad_sq(functions, values["X"], values["y"]))
    for _, g in results:
        torch.testing.assert_close(g, values["input_grad_sq"], **EXACT)
        assert not g.requires_grad


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y": torch.tensor([0, 3])}, "labels reach from 0 to 3: there are 3 classes"),
        ({"y": torch.tensor([-1, 2])}, "labels reach from -1"),
        ({"y": torch.tensor([0.0, 1.0])}, "2 int64 labels"),
        ({"y": torch.tensor([0])}, r"y has shape \(1,\)"),
        ({"x": torch.zeros(0, 4), "y": torch.zeros(0, dtype=torch.int64)}, "there are no examples"),
        ({"x": torch.zeros(2, 4, dtype=torch.int64)}, "real numbers"),
        ({"chunk": 0}, "chunk is 0"),
        ({"Sigma": torch.eye(3)}, r"Sigma has shape \(3, 3\): inputs have 4 entries"),
        ({"model_draws": []}, "no draws"),
        ({"model_draws": MLPDraws([torch.zeros(2, 3, 5)])}, "inputs have 4 entries"),
        ({"model_draws": lambda x: x[:, 0]}, r"logits of draw 0 have shape \(2,\)"),
        ({"model_draws": lambda x: x.detach()[:, :3]}, "draw 0: autograd finds no way"),
        ({"model_draws": lambda x: torch.zeros(2, 3, requires_grad=True)}, "draw 0: autograd finds no way"),
        ({"model_draws": nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))}, r"0 \(BatchNorm1d\) in training mode"),
        ({"model_draws": nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1))}, r"1 \(Dropout\) in training mode draws"),
    ],
)
def test_bad_batches_are_refused(change: dict[str, Any], match: str) -> None:
    given = {"model_draws": nn.Linear(4, 3), "x": torch.ones(2, 4), "y": torch.tensor([0, 2]), **change}
    for form in (
        [given] if "model_draws" in change else [given, {**given, "model_draws": MLPDraws([torch.ones(2, 3, 4)])}]
    ):
        with pytest.raises(ValueError, match=match):
            input_grad_sq(**form)


def test_a_bayesian_network_without_a_draw_is_refused() -> None:
    """Weights sampled for each example are no function of an example: one draw has to serve all of them."""
    net, x, y = build("mlp", 4, 3, 0.3, 1, 5), torch.ones(2, 4), torch.tensor([0, 2])
    for model_draws in (net, [net, net], nn.ModuleList([net]), lambda x: net(x), net.layers[0]):
        with pytest.raises(ValueError, match="a bound needs one draw for all of them"):
            input_grad_sq(model_draws, x, y)
    stacked = net.draws(2, torch.Generator().manual_seed(0))
    _, g = input_grad_sq([partial(net.at, one(stacked, k)) for k in range(2)], x, y)
    torch.testing.assert_close(g, input_grad_sq(MLPDraws([w.weight for w in stacked]), x, y)[1])


def test_modes_that_couple_nothing_are_taken() -> None:
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Dropout(0.5)).eval()
    assert input_grad_sq(net, torch.ones(2, 4), torch.tensor([0, 2]))[1].shape == (1, 2)


def test_bad_shapes_of_stacked_weights_are_refused() -> None:
    for weights, biases, match in (
        ([], None, "no weights"),
        ([torch.ones(3, 4)], None, "layer 0"),
        ([torch.ones(2, 5, 4), torch.ones(2, 3, 4)], None, r"layer 1 have shape \(2, 3, 4\) after \(2, 5, 4\)"),
        ([torch.ones(2, 5, 4), torch.ones(3, 3, 5)], None, "layer 1"),
        ([torch.ones(2, 5, 4)], [torch.ones(2, 4)], r"biases have shapes \[\(2, 4\)\]: \[\(2, 5\)\]"),
    ):
        with pytest.raises(ValueError, match=match):
            MLPDraws(weights, biases)


def test_covariances() -> None:
    good = covariance(5)
    low_rank = good[:, :2] @ good[:2]
    for Sigma in (good, torch.eye(5), torch.zeros(5, 5), low_rank @ low_rank.T, (low_rank @ low_rank.T).float()):
        check_covariance(Sigma, 5)
    for Sigma, match in (
        (good + torch.eye(5).roll(1, 0) * 0.01, "not symmetric: entries differ by 0.01"),
        (torch.diag(torch.tensor([1.0, 1, 1, 1, -0.5])), "eigenvalue -0.5"),
        (torch.diag(torch.tensor([1.0, 1, 1, 1, -3e-8], dtype=torch.float64)), "eigenvalue -3e-08"),
        (good * float("nan"), "not finite"),
        (good[:4], r"shape \(4, 5\)"),
    ):
        with pytest.raises(ValueError, match=match):
            check_covariance(Sigma, 5)
