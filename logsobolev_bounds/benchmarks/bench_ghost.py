"""Squared norms of the examples' parameter gradients on a CPU: `param_grad_sq` against `vmap(grad)` (kernel K3).

    python logsobolev_bounds/benchmarks/bench_ghost.py

All forms are timed in one process on one thread, in CPU time; a ratio is of medians. Where Opacus is installed
(`pip install opacus`; nothing else here needs it), its norms of ghost clipping are timed too. Peak memory is that of a
process of its own for each form. Writes `ghost.json` next to this file; exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from bench_timing import difference, finish, medians, row
from logsobolev_bounds.gradnorm import param_grad_sq
from torch import Tensor, nn
from torch.nn import functional as F

Case = tuple[nn.Module, Tensor, Tensor]


def mlp(N: int, d: int, h: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(d, h), nn.ReLU(), nn.Linear(h, 10))
    return net, torch.randn(N, d, generator=generator), torch.randint(10, (N,), generator=generator)


def lenet(N: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip
    return net, torch.randn(N, 1, 28, 28, generator=generator), torch.randint(10, (N,), generator=generator)


CASES: dict[str, tuple[Callable[[], Case], float | None]] = {
    "mlp d=784 h=256 N=512": (partial(mlp, 512, 784, 256), 50.0),
    "mlp d=3072 h=256 N=256": (partial(mlp, 256, 3072, 256), 50.0),
    "mlp d=64 h=64 N=1200": (partial(mlp, 1200, 64, 64), 10.0),
    "lenet N=128": (partial(lenet, 128), None),  # 784 positions share a weight: nothing is to be won by a Gram matrix
}


def by_vmap(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Every example's gradient, then its square."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss(p: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(net, p, (one[None],)), label[None])

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)
    return {name: g.flatten(1).square().sum(1) for name, g in gradients.items()}


def of_opacus(net: nn.Module) -> Any:
    """The network with Opacus's hooks."""
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping

    return GradSampleModuleFastGradientClipping(net, loss_reduction="sum")


def by_opacus(hooked: Any, x: Tensor, y: Tensor) -> Tensor:
    """Squared norms of whole gradients."""
    F.cross_entropy(hooked(x), y, reduction="sum").backward()
    squares = hooked.get_norm_sample().detach().square()
    hooked.zero_grad()
    return squares


def kilobytes(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(f"{key}:")).split()[1])


FORMS = {"ours": param_grad_sq, "vmap": by_vmap}


def peak(form: str, case: str) -> float:
    """MiB that a call takes at most: this process's peak less what it held before; at least 1."""
    FORMS[form](*mlp(2, 3, 3))
    given = CASES[case][0]()
    before = kilobytes("VmRSS")
    FORMS[form](*given)
    return max(1.0, (kilobytes("VmHWM") - before) / 1024)


def peak_elsewhere(form: str, case: str) -> float:
    """`peak` in a process of its own."""
    command = [sys.executable, __file__, "--peak", form, case]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each form (default 3)")
    parser.add_argument("--peak", nargs=2, metavar=("FORM", "CASE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(peak(*args.peak))
        return 0
    warnings.filterwarnings("ignore", message="Full backward hook")
    opacus = version("opacus") if importlib.util.find_spec("opacus") else None
    if not opacus:
        print("Opacus is not installed: compared with vmap(grad) alone")
    rows, memory = [], {}
    for what, (make, target) in CASES.items():
        net, x, y = make()
        exact, got = by_vmap(net, x, y), param_grad_sq(net, x, y)
        off = max(difference(got[name], value) for name, value in exact.items())
        forms: dict[str, Callable[[], Any]] = {name: partial(form, net, x, y) for name, form in FORMS.items()}
        times = medians(forms, args.repeats)
        rows.append(row(what, times, "ours", "vmap", target, off))
        if opacus:
            hooked = of_opacus(make()[0])
            hooked.load_state_dict({f"_module.{name}": value for name, value in net.state_dict().items()})
            off = difference(by_opacus(hooked, x, y), torch.stack(list(got.values())).sum(0))
            both = medians({"ours": forms["ours"], "opacus": partial(by_opacus, hooked, x, y)}, args.repeats)
            rows.append(row(f"{what}, Opacus", both, "ours", "opacus", None, off))
        memory[what] = {form: peak_elsewhere(form, what) for form in FORMS}
        print("  at the peak: " + ", ".join(f"{form} {size:.0f} MiB" for form, size in memory[what].items()))
    return finish(Path(__file__).with_name("ghost.json"), rows, args.repeats, opacus=opacus, peak_mebibytes=memory)


if __name__ == "__main__":
    raise SystemExit(main())
