"""What the penalty costs (section 10, C1): times of D's update and of a G iteration, with it and without.

A pass of D forward and back is 3 units (forward, gradient by activations, gradient by weights); the penalty adds the
gradient by inputs and its own double backward, 3 more, on the first of `d_steps` updates only (`macs`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from shared.errors import UserError

from diggan import nets
from diggan.gradient_gap import DIGRegularizer
from diggan.losses import d_losses
from diggan.regulariser import discriminate
from diggan.training import Batch, Game, adam

log = logging.getLogger(__name__)
ACCELERATORS = ("auto", "cpu", "gpu")
KEYS = {"ch", "batch", "d_steps", "repeats"}
# Multiply-adds of BigGAN-CIFAR at ch 64, for one image (section 4).
G_MACS, D_MACS = 1.681e9, 1.081e9


def macs(d_steps: int = 4) -> dict[str, float]:
    """Multiply-adds of BigGAN-CIFAR at ch 64 for each image of a batch, and the ratios that nothing gets below.

    `plain`: a G iteration. An update of D is a forward pass of G and 3 passes of D over a fake and a real; G's is 3
    passes of G and 2 of D: (d_steps + 3) G + (6 d_steps + 2) D. `dig`: what the penalty adds once, 3 passes of D over
    the two (the gradient by inputs, and twice its own backward). `update`: D's work in an update with the penalty over
    one without; `update_with_fakes`: with the forward pass of G that makes the fakes; `separate`: where the penalty has
    a forward pass of its own; `iteration`: of a whole G iteration.
    """
    plain, dig = (d_steps + 3) * G_MACS + (6 * d_steps + 2) * D_MACS, 6 * D_MACS
    return {
        "plain": plain, "dig": dig, "iteration": 1 + dig / plain,
        "update": (6 * D_MACS + dig) / (6 * D_MACS),
        "update_with_fakes": (G_MACS + 6 * D_MACS + dig) / (G_MACS + 6 * D_MACS),
        "separate": (6 * D_MACS + dig + 2 * D_MACS) / (6 * D_MACS),
    }  # fmt: skip


def flops_of_iteration(ch: int, batch: int, d_steps: int, dig: bool) -> float:
    """Of one G iteration, at 2 FLOPs a multiply-add. The convolutions' share grows with ch^2."""
    model = macs(d_steps)
    return 2 * (ch / 64) ** 2 * batch * (model["plain"] + dig * model["dig"])


def times_of(
    steps: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Times of each call, the least first, after one to warm up.

    One after another and again from the first, so that what else the machine does meets all of them alike.
    """
    out: dict[str, list[float]] = {name: [] for name in steps}
    waited = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for go in range(repeats + 1):
        for name, step in steps.items():
            waited()
            started = time.perf_counter()
            step()
            waited()
            if go:
                out[name].append(time.perf_counter() - started)
    return {name: sorted(times) for name, times in out.items()}


def median_seconds(step: Callable[[], Any], repeats: int, device: torch.device | str = "cpu") -> float:
    return times_of({"": step}, repeats, device)[""][repeats // 2]


def copied_bytes_per_second(device: torch.device | str = "cpu") -> float:
    """What this device's memory gives to a copy, reading and writing: what a floor in bytes is divided by."""
    x = torch.zeros(2**26 if torch.device(device).type == "cuda" else 2**23, device=device)
    y = torch.empty_like(x)
    return 2 * 4 * x.numel() / times_of({"": lambda: y.copy_(x)}, 5, device)[""][0]


def measure(
    ch: int = 8, batch: int = 16, d_steps: int = 4, repeats: int = 3, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Milliseconds (the least of `repeats`) and ratios. `separate`: the penalty with a forward pass of its own."""
    torch.manual_seed(0)
    g, d = nets.build("biggan_cifar", ch)
    g, d = g.to(device), d.to(device)
    opts = adam(g, 2e-4), adam(d, 2e-4)
    x = torch.rand(d_steps, batch, 3, 32, 32, device=device) * 2 - 1
    y = torch.randint(10, (d_steps, batch), device=device)
    z, gy = (
        torch.randn(d_steps + 1, batch, 128, device=device),
        torch.randint(10, (d_steps + 1, batch), device=device),
    )
    plain, dig = Game(g, d, ema=0.0), Game(g, d, [DIGRegularizer(weight=1000.0)], ema=0.0)
    reg = DIGRegularizer(weight=1000.0)

    def update(game: Game) -> Callable[[], Any]:
        def step() -> None:
            game.iteration = 1
            g.requires_grad_(False)
            game.update_d(Batch(x, y, z, gy), 0, opts[1], torch.Tensor.backward)
            g.requires_grad_(True)

        return step

    def separate() -> None:
        with torch.no_grad():
            fake = g(z[0], gy[0])
        seen = discriminate(d, fake, x[0], gy[0], y[0])
        loss = sum(d_losses(seen.real, seen.fake)) + reg(d, fake, x[0], gy[0], y[0])
        opts[1].zero_grad()
        loss.backward()
        opts[1].step()

    steps = {
        "d_plain": update(plain),
        "d_dig": update(dig),
        "d_separate": separate,
        "g_plain": lambda: plain.iterate(Batch(x, y, z, gy), *opts),
        "g_dig": lambda: dig.iterate(Batch(x, y, z, gy), *opts),
    }
    out = {f"{name}_ms": 1e3 * times[0] for name, times in times_of(steps, repeats, device).items()}
    out["d_ratio"] = out["d_dig_ms"] / out["d_plain_ms"]
    out["d_ratio_separate"] = out["d_separate_ms"] / out["d_plain_ms"]
    out["g_ratio"] = out["g_dig_ms"] / out["g_plain_ms"]
    out["gflops_plain"], out["gflops_dig"] = (
        flops_of_iteration(ch, batch, d_steps, with_dig) / out[f"{name}_ms"] / 1e6
        for name, with_dig in (("g_plain", False), ("g_dig", True))
    )
    return out


def cost_metrics(
    section: dict[str, Any], seed: int, quick: bool = False, accelerator: str = "auto"
) -> dict[str, float]:
    """`measure` as an experiment; the seed says nothing but which repetition this is.

    Args:
        accelerator: the trainer's, by which the launcher writes down the device: `cpu`; `auto`, a GPU where there is
            one; or `gpu`, which does not begin without one.
        quick: a dry run, which goes on by the CPU.

    Raises:
        UserError: an unknown key (the known are listed) or accelerator; a GPU that is not there.
    """
    if accelerator not in ACCELERATORS:
        raise UserError(f"trainer.accelerator is {accelerator!r}: costs are measured on {', '.join(ACCELERATORS)}")
    for key in section:
        if key not in KEYS:
            raise UserError(f"configuration: unknown key 'cost.{key}'; it has: {', '.join(sorted(KEYS))}")
    there = torch.cuda.is_available()
    if accelerator == "gpu" and not there:
        if not quick:
            raise UserError("PyTorch finds no CUDA device here: this cost is a GPU's, run it where there is one")
        log.warning("PyTorch finds no CUDA device here: this dry run goes on by the CPU, the run will not begin")
    device = "cuda" if there and accelerator != "cpu" else "cpu"
    return measure(**{**section, **({"ch": 2, "batch": 2, "repeats": 1} if quick else {})}, device=device)
