"""Gradient norms by the parameters: every layer against `vmap(grad)`, refusals, what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from logsobolev_bounds.gradnorm import param_grad_sq
from logsobolev_bounds.gradnorm import rules as layer_rules
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

torch.set_num_threads(1)


def batch(n: int, d: int, classes: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator)


class Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, *self.order)


def image_net(*layers: nn.Module, positions: int, channels: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(positions * channels, 3))


def tokens_net() -> nn.Module:
    """An embedding with padding, layers at every token and over all of a token's words."""
    return nn.Sequential(
        nn.Embedding(7, 6, padding_idx=2), nn.LayerNorm(6), nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm((4, 5)),
        nn.Flatten(), nn.Linear(20, 3),
    )  # fmt: skip


TOKENS = torch.tensor([[0, 2, 0, 0], [1, 3, 5, 6], [2, 2, 2, 2], [6, 1, 6, 1], [4, 4, 2, 4]])
NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "linear": (
        lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)),
        lambda: torch.randn(5, 4),
    ),
    "few positions": (
        lambda: nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Flatten(), nn.Linear(120, 3)),
        lambda: torch.randn(5, 2, 2, 20),
    ),
    "many positions": (
        lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(90, 3)),
        lambda: torch.randn(5, 30, 2),
    ),
    "stride, padding": (
        lambda: image_net(nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2)), positions=4 * 10, channels=4),
        lambda: torch.randn(5, 3, 8, 7),
    ),
    "dilation": (
        lambda: image_net(nn.Conv2d(2, 5, 3, dilation=(2, 1), padding=1, bias=False), positions=30, channels=5),
        lambda: torch.randn(5, 2, 7, 6),
    ),
    "groups": (
        lambda: image_net(nn.Conv2d(6, 9, 3, groups=3, padding=1), positions=20, channels=9),
        lambda: torch.randn(5, 6, 4, 5),
    ),
    "depthwise": (
        lambda: image_net(nn.Conv2d(4, 8, 3, groups=4, stride=2), positions=4, channels=8),
        lambda: torch.randn(5, 4, 5, 6),
    ),
    "same": (
        lambda: image_net(nn.Conv2d(2, 3, (4, 3), padding="same", dilation=(1, 2)), positions=30, channels=3),
        lambda: torch.randn(5, 2, 6, 5),
    ),
    "valid, one position": (
        lambda: image_net(nn.Conv2d(2, 3, 3, padding="valid"), positions=1, channels=3),
        lambda: torch.randn(5, 2, 3, 3),
    ),
    "reflected": (
        lambda: image_net(nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), positions=7 * 5, channels=3),
        lambda: torch.randn(5, 2, 5, 5).round(decimals=1),
    ),
    "wide filters": (
        lambda: image_net(nn.Conv2d(30, 20, 3), positions=4, channels=20),
        lambda: torch.randn(5, 30, 4, 4),
    ),
    "group norm": (
        lambda: image_net(nn.GroupNorm(2, 6), nn.Conv2d(6, 4, 2), nn.GroupNorm(2, 4), positions=6, channels=4),
        lambda: torch.randn(5, 6, 3, 4),
    ),
    "channels last": (
        lambda: image_net(
            Permute(2, 3, 1), nn.LayerNorm(6), Permute(3, 1, 2), nn.Conv2d(6, 2, 1), positions=12, channels=2
        ),
        lambda: torch.randn(5, 6, 3, 4),
    ),
    "tokens": (tokens_net, lambda: TOKENS),
    "no affine": (
        lambda: nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 3), nn.LayerNorm(3, bias=False)),
        lambda: torch.randn(5, 4),
    ),
}  # fmt: skip


def by_vmap(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Every example's gradient, then its square."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss(p: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(net, p, (one[None],)), label[None])

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)
    return {name: g.flatten(1).square().sum(1) for name, g in gradients.items()}


def drawn(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    make, data = NETS[name]
    net, x = make().double(), data()
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    return net, x.double() if x.is_floating_point() else x, torch.tensor([0, 1, 2, 0, 2])


@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("name", NETS)
def test_by_the_parameters_against_vmap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every layer; frozen parameters too; on one example; images one at a time, and by patches."""
    net, x, y = drawn(name)
    expected = by_vmap(net, x, y)
    for p in list(net.parameters())[::2]:
        p.requires_grad_(False)
    norms = param_grad_sq(net, x, y)
    monkeypatch.setattr(layer_rules, "BUDGET", 1)
    one_by_one = param_grad_sq(net, x, y)
    monkeypatch.setattr(layer_rules, "gram_is_cheaper", lambda *_: True)
    for found in (norms, one_by_one, param_grad_sq(net, x, y)):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert value.max() > 1e-6
            torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-14)
    for key, value in param_grad_sq(net, x[3:4], y[3:4]).items():
        torch.testing.assert_close(value, expected[key][3:4], rtol=1e-9, atol=1e-14)
    single = param_grad_sq(net.float(), x.float() if x.is_floating_point() else x, y)
    for key, value in expected.items():
        torch.testing.assert_close(single[key].double(), value, rtol=1e-4, atol=1e-5 * float(value.max()))


class Residual(nn.Module):
    """In-place additions and activations on the results of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x += x.tanh()
        x.relu_()
        y = self.second(input=x)
        y += x
        return self.last(y.relu_())


def test_changes_in_place_after_a_layer_and_layers_without_a_call() -> None:
    torch.manual_seed(0)
    net, x, y = Residual().double(), torch.randn(6, 4).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    norms, expected = param_grad_sq(net, x, y), by_vmap(net, x, y)
    for key, value in expected.items():
        torch.testing.assert_close(norms[key], value)
    assert not norms["unused.weight"].any()


def state_of(net: nn.Module) -> list[Any]:
    hooks = [(len(m._forward_hooks), len(m._backward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]
    flags = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()]
    return [hooks, flags, [m.training for m in net.modules()], [p.clone() for p in net.parameters()]]


@pytest.mark.parametrize("label", [2, 9], ids=["done", "refused"])
@pytest.mark.parametrize("outside", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_network_stays_as_it_was(label: int, outside: Callable[[], Any]) -> None:
    net, x, y = drawn("groups")
    net[0].requires_grad_(False)
    net[3].weight.grad = torch.ones_like(net[3].weight)
    net[1].eval()
    calls = list[str]()
    handle = net[0].register_forward_hook(lambda *_: calls.append("mine"))
    before = state_of(net)
    y = torch.tensor([0, 1, 2, 0, label])
    with outside():
        if label == 2:
            for key, value in param_grad_sq(net, x, y).items():
                assert not value.requires_grad
                torch.testing.assert_close(value, by_vmap(net, x, y)[key]) if outside is torch.enable_grad else None
        else:
            with pytest.raises(ValueError, match="labels reach from 0 to 9"):
                param_grad_sq(net, x, y)
    assert str(state_of(net)) == str(before)
    assert calls[0] == "mine"
    handle.remove()


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(self.inner(x)))


class Outside(Twice):
    """A weight that is used again past its layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(F.linear(self.inner(x), self.inner.weight))


class OnlyOutside(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.outer(F.linear(x, self.inner.weight))


class Tied(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(4, 4)
        self.other.weight = self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.other(self.inner(x)))


class Own(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x)) * self.scale


class Folded(Twice):
    """Examples are not the first axis."""

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x.view(-1, 2, 4).transpose(0, 1)).transpose(0, 1).mean(1))


class Overwritten(Twice):
    """A layer's input that is another value when the gradient comes."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        y = self.inner(x)
        x.zero_()
        return self.outer(y)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def patched() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.forward = lambda x: x @ layer.weight.T  # type: ignore[method-assign]
    return layer


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "twice": (Twice, r"inner \(Linear\) is called twice"),
    "outside": (Outside, "inner.weight is used outside of its layer"),
    "only outside": (OnlyOutside, "inner.weight is used outside of its layer"),
    "tied": (Tied, "inner.weight and other.weight are one parameter"),
    "own": (Own, r"model \(Own\): no rule for scale"),
    "prelu": (lambda: nn.Sequential(nn.Linear(4, 3), nn.PReLU()), r"1 \(PReLU\): no rule for weight"),
    "subclass": (lambda: nn.Sequential(nn.Linear(4, 4), Scaled(4, 3)), r"1 \(Scaled\): no rule for weight, bias"),
    "patched": (patched, r"model \(Linear\): no rule for a forward of its own"),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), r"\(ParametrizedLinear\): no rule"
    ),
    "spectral norm": (lambda: nn.utils.spectral_norm(nn.Linear(4, 3)), r"\(Linear\): no rule for weight_orig"),
    "rnn": (lambda: nn.Sequential(nn.Linear(4, 3), nn.GRUCell(3, 3)), r"1 \(GRUCell\): no rule"),
    "batch norm": (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).eval(), r"0 \(BatchNorm1d\): batch norm"),
    "batch norm in training": (
        lambda: nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)), "in training mode couples the examples"
    ),
    "folded": (Folded, r"inner \(Linear\) has an input of shape \(2, 6, 4\): 6 examples come first"),
    "overwritten": (Overwritten, r"inner \(Linear\): its input was changed in place"),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(4, 3, max_norm=1.0), nn.Flatten(), nn.Linear(12, 3)), "max_norm"
    ),
    "logits": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (3, 1))), r"logits of the model have shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_whole_norm_is_refused(name: str) -> None:
    make, match = REFUSED[name]
    net = make()
    x = torch.randn(6, 8) if name == "folded" else torch.randn(6, 4)
    x = torch.zeros(6, 4, dtype=torch.int64) if name == "embedding" else x
    hooks = state_of(net)[:1]
    with pytest.raises(ValueError, match=match):
        param_grad_sq(net, x, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert state_of(net)[:1] == hooks
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


class Largest(TorchDispatchMode):
    """Entries of the largest result that is not a view."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        old, new = ([x for x in tree_leaves(v) if isinstance(x, Tensor)] for v in ((args, kwargs), out))
        held = {x.untyped_storage().data_ptr() for x in old}
        self.entries = max([self.entries, *(x.numel() for x in new if x.untyped_storage().data_ptr() not in held)])
        return out


@pytest.mark.parametrize("conv", [False, True])
def test_gradients_of_the_examples_are_never_held(conv: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor is some activations, far from examples times parameters."""
    monkeypatch.setattr("logsobolev_bounds.kernels.ghost_norms.reference.BUDGET", 2**12)
    monkeypatch.setattr(layer_rules, "BUDGET", 2**12)
    n = 64
    if conv:
        net: nn.Module = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Tanh(), nn.Flatten(), nn.Linear(128, 3))
        x, allowed = torch.randn(n, 16, 4, 4), 2 * n * 16 * 16
    else:
        net, x = nn.Sequential(nn.Linear(50, 100), nn.Tanh(), nn.Flatten(), nn.Linear(200, 3)), torch.randn(n, 2, 50)
        allowed = 2 * n * 200
    weights = max(p.numel() for p in net.parameters())
    with Largest() as largest:
        param_grad_sq(net, x, torch.zeros(n, dtype=torch.int64))
    assert largest.entries <= allowed < n * weights / 8
