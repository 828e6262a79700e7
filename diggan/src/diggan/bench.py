"""What the penalty and the operators cost: `python -m diggan.bench {cost,kernels,step}`.

cost      D's update and a whole G iteration with the penalty, in one pass and with a forward pass of its own: the
          multiply-adds that they have, and times
kernels   launches, bytes and times of the fused operators against the eager chains and against a copy of so many
          bytes; of the kernels on a GPU only
step      one G iteration of BigGAN-CIFAR: milliseconds, images/s, achieved FLOP/s
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from shared.errors import UserError, one_line_errors
from shared.kernels.backend import BACKEND, triton_is_there

from diggan import cost, nets
from diggan.gradient_gap import DIGRegularizer
from diggan.kernels import fused_diffaugment as augment
from diggan.kernels import grad_gap as gap
from diggan.kernels import grouped_spectral_norm as spectral
from diggan.kernels.fused_diffaugment.check import plan as augment_plan
from diggan.kernels.grad_gap.check import plan as gap_plan
from diggan.kernels.grouped_spectral_norm.check import plan as spectral_plan
from diggan.nets.layers import spectral_layers
from diggan.training import Batch, Game, adam


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    out = Table(title=title)
    for place, column in enumerate(columns):
        out.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        out.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 110).print(out)


def show_cost(args: argparse.Namespace) -> None:
    model, steps = cost.macs(args.d_steps), args.d_steps
    share = 100 * (model["iteration"] - 1)
    table(
        f"Multiply-adds at ch 64, for each image of a batch, {steps} updates of D",
        ["", "GMAC", "floor"],
        [
            [f"a G iteration: {steps + 3} G + {6 * steps + 2} D", f"{model['plain'] / 1e9:.1f}", ""],
            ["DIG adds: 6 D", f"{model['dig'] / 1e9:.2f}", f"+{share:.0f} %"],
            ["an update of D with it, over a plain one", "", f"{model['update']:.2f}x"],
            ["with the fakes that it takes", "", f"{model['update_with_fakes']:.2f}x"],
            ["with a forward pass of its own", "", f"{model['separate']:.2f}x"],
        ],
    )
    rows = []
    for ch in args.ch:
        out = cost.measure(ch, args.batch, args.d_steps, args.repeats, args.device)
        times = [f"{out[f'{name}_ms']:.1f}" for name in ("d_plain", "d_dig", "d_separate", "g_plain", "g_dig")]
        rows.append([str(ch), *times, *(f"{out[name]:.2f}" for name in ("d_ratio", "d_ratio_separate", "g_ratio"))])
    columns = ["ch", "D", "D + DIG", "separate", "G it.", "G it. + DIG", "D ratio", "separate", "G it. ratio"]
    table(f"BigGAN-CIFAR, batch {args.batch}+{args.batch}, least of {args.repeats}: ms and ratios", columns, rows)


def show_kernels(args: argparse.Namespace) -> None:
    """Ours and the definition in turns; on a CPU there is only the definition.

    Raises:
        UserError: on a GPU the definition would be timed as the kernels.
    """
    device = torch.device(args.device)
    ours = device.type == "cuda"
    if ours and (BACKEND == "reference" or not triton_is_there()):
        why = "KERNEL_BACKEND is reference" if BACKEND == "reference" else "triton is not installed"
        raise UserError(f"{why}: no kernel would run; `pip install triton`, leave the variable out, or --device cpu")
    d = nets.build("biggan_cifar", args.ch[0])[1].to(device)
    layers = spectral_layers(d)
    n, image = 2 * args.batch, (3, 32, 32)
    x = torch.rand(n, *image, device=device)
    policy = "color,translation,cutout"
    draws = augment.draw(policy, n, 32, 32, torch.Generator(device).manual_seed(0))
    weights = [m.weight.detach() for m in layers]
    us = [m.u0 for m in layers]
    operators: tuple[tuple[str, Callable[[Any], Any], Any, dict[str, float]], ...] = (
        (
            "fused_diffaugment", lambda form: form.fused_diffaugment(x, policy, draws), augment,
            augment_plan(policy, N=n, C=3, H=32, W=32),
        ),
        (
            "grouped_spectral_norm", lambda form: form.grouped_spectral_norm(weights, us, 1e-8), spectral,
            spectral_plan([tuple(w.shape) for w in weights]),
        ),
        ("grad_gap", lambda form: form.grad_gap(x, None, 0.5), gap, gap_plan(B=args.batch, D=x[0].numel())),
    )  # fmt: skip
    rate = cost.copied_bytes_per_second(device)
    rows = []
    for name, call, package, plan in operators:
        forms = {"eager": package.reference, **({"ours": package} if ours else {})}
        steps = {form: (lambda f=f, call=call: call(f)) for form, f in forms.items()}
        times = {form: t[args.repeats // 2] for form, t in cost.times_of(steps, args.repeats, device).items()}
        launches, moved, eager_launches, eager_moved = (
            plan[key] for key in ("launches", "bytes", "eager_launches", "eager_bytes")
        )
        floor, own = moved / rate, times.get("ours")
        ms = f"{1e3 * own:.3f}" if own else "–"
        ratio, gain = (f"{own / floor:.1f}", f"{times['eager'] / own:.1f}x") if own else ("–", "–")
        rows.append([
            name, f"{launches:.0f} / {eager_launches:.0f}", f"{moved / 1e6:.2f} / {eager_moved / 1e6:.2f}",
            f"{1e3 * floor:.3f}", f"{ms} / {1e3 * times['eager']:.3f}", f"{ratio} / {times['eager'] / floor:.1f}", gain,
        ])  # fmt: skip
    where = torch.cuda.get_device_name() if ours else "definitions on the CPU, not the kernels"
    table(
        f"{n} images of 32 x 32, {len(layers)} layers: ours / eager ({where})\n"
        f"floor: our bytes at the {rate / 1e9:.1f} GB/s of a copy",
        ["operator", "launches", "MB", "floor ms", "ms", "times the floor", "speed-up"],
        rows,
    )


def show_step(args: argparse.Namespace) -> None:
    rows = []
    for ch in args.ch:
        for name, regularisers in (("plain", []), ("DIG", [DIGRegularizer(weight=1000.0)])):
            torch.manual_seed(0)
            g, d = (net.to(args.device) for net in nets.build("biggan_cifar", ch))
            game, opts = Game(g, d, regularisers), (adam(g, 2e-4), adam(d, 2e-4))
            b, s = args.batch, args.d_steps
            batch = Batch(
                torch.rand(s, b, 3, 32, 32, device=args.device), torch.randint(10, (s, b), device=args.device),
                torch.randn(s + 1, b, 128, device=args.device), torch.randint(10, (s + 1, b), device=args.device),
            )  # fmt: skip
            seconds = cost.median_seconds(lambda: game.iterate(batch, *opts), args.repeats, args.device)  # noqa: B023
            rate = cost.flops_of_iteration(ch, b, s, bool(regularisers)) / seconds
            rows.append([f"ch {ch}, {name}", f"{1e3 * seconds:.0f}", f"{s * b / seconds:.0f}", f"{rate / 1e12:.3f}"])
    columns = ["", "ms an iteration", "reals/s", "TFLOP/s"]
    table(f"One G iteration, batch {args.batch}, {args.d_steps} updates of D", columns, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m diggan.bench", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("cost", "kernels", "step"))
    parser.add_argument("--ch", type=int, nargs="+", default=[8], help="width of BigGAN-CIFAR (default: 8)")
    parser.add_argument("--batch", type=int, default=16, help="images of an update (default: 16)")
    parser.add_argument("--d-steps", type=int, default=4, help="updates of D in an iteration (default: 4)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: PyTorch finds no CUDA device here; use --device cpu")
    if args.device == "cpu":
        torch.set_num_threads(1)
    {"cost": show_cost, "kernels": show_kernels, "step": show_step}[args.what](args)


if __name__ == "__main__":
    with one_line_errors():
        main()
