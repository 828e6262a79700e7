"""Squared norms of the examples' gradients by every parameter, from one forward and one backward pass (section 9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .batch import check_batch, check_labels, check_logits, recording, refuse_coupling, usable
from .rules import RULES


def param_grad_sq(model: nn.Module, x: Shaped[Tensor, "n ..."], y: Int[Tensor, " n"]) -> dict[str, Float[Tensor, " n"]]:
    """|grad_w l_i|^2 of the cross-entropy of every example i, for every parameter w by name, frozen ones too.

    One backward pass of the summed loss; the gradients themselves are never held. The network stays as it was: its
    gradients, hooks, modes and `requires_grad`. Works under `no_grad`. The first axis of every layer's input has to be
    the examples.

    Layers: Linear (with extra positions), Conv2d (stride, padding, dilation, groups), Embedding, LayerNorm, GroupNorm.

    Raises:
        ValueError: a layer with parameters of its own that is none of these, that is called twice in a forward pass,
            whose parameter is shared or used outside of it, whose input does not have the examples first or is changed
            in place; batch normalisation; labels that do not fit. Never a partial sum.

    FLOPs: a forward pass, a backward pass to the activations alone, and `ghost_norms` of every layer. Memory: the
    activations of a forward pass, and the patches of a few images.
    """
    check_batch(x, y)
    layers = known_layers(model)
    refuse_coupling(model, noise=True)
    watch = Watch(layers, len(y))
    with recording(), tracked(model), watch:
        y = usable(y)
        logits = model(usable(x))
        check_logits(logits, len(y), "the model")
        check_labels(y, logits.shape[1])
        loss = F.cross_entropy(logits, y, reduction="sum")
        watch.check_uses(loss)
        if watch.probes and loss.requires_grad:
            torch.autograd.grad(loss, watch.probes, allow_unused=True)
    zero = torch.zeros(len(y), dtype=loss.dtype, device=loss.device)
    return {name: watch.norms.get(name, zero.clone()) for name, _ in model.named_parameters()}


def known_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer with parameters of its own, by name.

    Raises:
        ValueError: there is no rule for one, or a parameter has two names.
    """
    names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in names:
            raise ValueError(f"{names[id(parameter)]} and {name} are one parameter: its gradient is a sum over layers")
        names[id(parameter)] = name
    layers = {}
    for name, layer in model.named_modules():
        own = [key for key, _ in layer.named_parameters(recurse=False)]
        if not own:
            continue
        what = f"{name or 'model'} ({type(layer).__name__})"
        if isinstance(layer, _BatchNorm):
            raise ValueError(
                f"{what}: batch normalisation has no rule, as in training it couples the examples; "
                "use GroupNorm, or fold it into the layer before"
            )
        rules = RULES.get(type(layer), {})
        unknown = [key for key in own if key not in rules]
        if unknown or "forward" in vars(layer):
            raise ValueError(f"{what}: no rule for {', '.join(unknown) or 'a forward of its own'}")
        if isinstance(layer, nn.Embedding) and (layer.scale_grad_by_freq or layer.max_norm is not None):
            raise ValueError(f"{what}: no rule for scale_grad_by_freq and max_norm")
        layers[name] = layer
    return layers


@contextmanager
def tracked(model: nn.Module) -> Iterator[None]:
    """All parameters in autograd's graph, so that their uses can be counted; afterwards as before."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    for p in frozen:
        p.requires_grad_()
    try:
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


class Watch:
    """Hooks on the layers, while it is entered: an output's gradient is turned into norms at once, and dropped.

    A zero is added to every output. It is what autograd differentiates by: the pass reaches every layer, and computes
    no gradient of a parameter.
    """

    def __init__(self, layers: dict[str, nn.Module], n: int) -> None:
        self.layers, self.n = layers, n
        self.norms: dict[str, Tensor] = {}
        self.probes: list[Tensor] = []
        self.calls: Counter[str] = Counter()
        self.stack = ExitStack()

    def __enter__(self) -> Watch:
        for name, layer in self.layers.items():
            hook = layer.register_forward_hook(self.hook(name), prepend=True, with_kwargs=True)
            self.stack.callback(hook.remove)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    def hook(self, name: str) -> Any:
        what = f"{name or 'model'} ({type(self.layers[name]).__name__})"

        def after(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            self.calls[name] += 1
            if self.calls[name] > 1:
                raise ValueError(f"{what} is called twice in a forward pass: its gradient is a sum over the calls")
            a = (args[0] if args else kwargs["input"]).detach()
            if not a.ndim or len(a) != self.n:
                raise ValueError(f"{what} has an input of shape {tuple(a.shape)}: {self.n} examples come first")
            version = a._version
            probe = output.new_zeros((), requires_grad=True)
            output = output + probe
            if output.requires_grad:
                self.probes.append(probe)

                def back(delta: Tensor) -> None:
                    if a._version != version:
                        raise ValueError(f"{what}: its input was changed in place afterwards")
                    self.take(name, layer, a, delta.detach())

                output.register_hook(back)
            return output

        return after

    def take(self, name: str, layer: nn.Module, a: Tensor, delta: Tensor) -> None:
        if a.is_floating_point():
            dtype = torch.promote_types(a.dtype, delta.dtype)
            a, delta = a.to(dtype), delta.to(dtype)
        prefix = f"{name}." if name else ""
        with torch.no_grad():
            for key, _ in layer.named_parameters(recurse=False):
                self.norms[prefix + key] = RULES[type(layer)][key](layer, a, delta)

    def check_uses(self, loss: Tensor) -> None:
        """Refuse a parameter that the loss depends on by another way than its layer's one call.

        Raises:
            ValueError: as said; the line names it.
        """
        uses = leaf_uses(loss)
        for name, layer in self.layers.items():
            for key, parameter in layer.named_parameters(recurse=False):
                if uses[id(parameter)] > self.calls[name]:
                    where = f"{name}.{key}" if name else key
                    raise ValueError(f"{where} is used outside of its layer: its gradient is a sum over the uses")


def leaf_uses(loss: Tensor) -> Counter[int]:
    """How often each leaf, by `id`, is an operand in the graph of the loss."""
    uses: Counter[int] = Counter()
    seen: set[Any] = set()
    stack: list[Any] = [loss.grad_fn] if loss.grad_fn is not None else []
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for following, _ in operands(node):
            if hasattr(following, "variable"):
                uses[id(following.variable)] += 1
            else:
                stack.append(following)
    return uses


def operands(node: Any) -> Iterable[tuple[Any, int]]:
    return ((following, place) for following, place in node.next_functions if following is not None)
