"""What `python complete.py` runs: fields through observed pairs, several times, and how far to trust them (9.3).

    python complete.py --checkpoint runs/fit/<run>/final.ckpt --observe-fraction 0.2 --num 32 --out completion.png

The pairs are some of a field of the test part (then the truth is known) or the user's own (--observed). Of Gaussian
random fields the exact posterior is known as well: its mean is what the mean of the completions should be, and the
completions should scatter about it as it does.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diffusion_fields import draw
from diffusion_fields.canvas import Canvas
from diffusion_fields.checkpoint import Trained, load
from diffusion_fields.completion import place
from diffusion_fields.errors import FieldError
from diffusion_fields.oracle import completion_scores, gaussian_posterior
from diffusion_fields.sample_command import (
    add_sampler,
    check_sampler,
    observed_pairs,
    sampler_options,
    save_npz,
    save_png,
)
from diffusion_fields.sampling import sample

CERTAIN = 1e-3  # a standard deviation of the exact posterior below this: the observed values say it all


@dataclass(frozen=True)
class Task:
    """Args:
    coords: all points, observed or not, [N, c]. index: of the observed ones. values: there. truth: where it is known.
    canvas: how to draw values at the points; None where there is no picture.
    """

    coords: Float[Tensor, "n c"]
    index: Int64[Tensor, " o"]
    values: Float[Tensor, "o s"]
    truth: Float[Tensor, "n s"] | None
    canvas: Canvas | None

    @property
    def left_open(self) -> Tensor:
        """[N], true where nothing was observed."""
        return torch.ones(len(self.coords), dtype=torch.bool).index_fill(0, self.index, False)


def task_of(args: argparse.Namespace, trained: Trained) -> Task:
    """What is to be completed.

    Raises:
        FieldError: the file or the test field does not go with the network, or observes nothing or everything.
    """
    drawable = trained.domain != "other"
    if args.observed is not None:
        points, values = observed_pairs(args.observed, trained)
        grid = trained.points.cpu()
        coords, known = place(grid, (points, values))
        same = len(coords) == len(grid)  # else the regular grid has points beside it, and the picture is of dots
        canvas = trained.canvas(trained.points if same else coords) if drawable else None
        return Task(coords, known.index, values, None, canvas)
    fields = trained.data.validation(args.field + 1)
    shared = fields.coords.ndim == 2
    coords, signal = (fields.coords if shared else fields.coords[args.field]).cpu(), fields.signal[args.field].cpu()
    if fields.mask is not None:
        valid = fields.mask[args.field].cpu()
        shared, coords, signal = shared and bool(valid.all()), coords[valid], signal[valid]
    count = round(args.observe_fraction * len(coords))
    if not 1 <= count < len(coords):
        raise FieldError(
            f"--observe-fraction {args.observe_fraction:g} of {len(coords)} points is {count}: "
            "observe one at least, and leave one open"
        )
    index = torch.randperm(len(coords), generator=torch.Generator().manual_seed(args.seed))[:count].sort().values
    canvas = trained.canvas(trained.points if shared else coords) if drawable else None
    return Task(coords, index, signal[index], signal, canvas)


def scores(task: Task, draws: Float[Tensor, "k n s"], trained: Trained) -> dict[str, float]:
    """Errors at the points left open: against the truth, and against the exact posterior where there is one."""
    found: dict[str, float] = {}
    rest = task.left_open
    mean = draws.double().mean(0)
    if task.truth is not None and len(draws) > 1:
        deviation = draws.double().std(0)[rest]
        z = (task.truth.double()[rest] - mean[rest]) / deviation.clamp_min(CERTAIN)
        found["z of the truth: standard deviation"] = float(z.square().mean().sqrt())
    if task.truth is not None:
        found = {"RMSE of the mean to the truth": _rms(mean[rest] - task.truth.double()[rest])} | found
    law = trained.fields.truth
    if law is None or not law.gaussian:
        return found
    covariance = law.covariance(task.coords.double().numpy())
    exact, posterior = gaussian_posterior(covariance, task.index.numpy(), task.values[:, 0].double().numpy())
    if task.truth is not None:
        truth = task.truth[:, 0].double()
        found["RMSE of the exact posterior mean to the truth"] = _rms((torch.from_numpy(exact) - truth)[rest])
    if float(np.sqrt(np.diag(posterior).clip(0)).max()) <= CERTAIN:
        found["RMSE of the mean to the exact posterior mean"] = _rms(mean[:, 0] - torch.from_numpy(exact))
        return found
    names = {
        "rmse": "RMSE of the mean to the exact posterior mean",
        "z_mean": "z of completions: mean (0 if calibrated)",
        "z_std": "z of completions: standard deviation (1 if calibrated)",
        "z_within_90": "share of completions within the exact 90 % interval",
    }
    exactly = completion_scores(draws[..., 0].double().numpy(), exact, posterior)
    return found | {title: exactly[name] for name, title in names.items()}


def _rms(errors: Tensor) -> float:
    return math.sqrt(float(errors.square().mean()))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="complete.py", description="Fields through observed pairs.")
    known = parser.add_mutually_exclusive_group(required=True)
    known.add_argument("--observed", type=Path, help=".npz with coords (N, c) and signal (N, s)")
    known.add_argument("--observe-fraction", type=float, help="of the points of a test field")
    parser.add_argument("--field", type=int, default=0, help="number of the test field (default: 0)")
    parser.add_argument("--resample", type=int, default=1, help="how often each step is taken (RePaint; default: 1)")
    parser.add_argument("--context", choices=("random", "farthest_point"), default="random", help="beside the observed")
    add_sampler(parser, 16)
    args = parser.parse_args(argv)
    check_sampler(args)
    if args.field < 0 or args.resample < 1:
        raise FieldError(f"--field is {args.field} and --resample {args.resample}: at least 0 and 1 are needed")
    torch.set_num_threads(1)
    trained = load(args.checkpoint, args.device)
    task = task_of(args, trained)
    out = args.out or [trained.folder / name for name in ("completion.png", "completion.npz")]
    for path in out:
        if path.suffix == ".ply":
            raise FieldError(
                f"--out {path}: completions are written as .png and .npz; sample.py --observed writes .ply"
            )
        if path.suffix == ".png" and task.canvas is None:
            trained.canvas(task.coords)  # says why there is no picture
    options = sampler_options(args, trained)
    size = trained.num_context(args.num_context, args.allow_context_mismatch, len(task.index), len(task.coords))
    generator = torch.Generator().manual_seed(args.seed)
    pairs = task.index.to(args.device), task.values.to(args.device)
    draws = sample(
        trained.net, task.coords.to(args.device), args.num, size, generator=generator,
        observed=pairs, context=args.context, resample=args.resample, **options,
    ).cpu()  # fmt: skip
    print(f"{trained.fields.name}: {trained.fields.detail}")
    text = f"{args.num} completions from {len(task.index)} of {len(task.coords):,} points, seed {args.seed}"
    print(f"{text}, context of {size} ({args.context}), {options['method']}, each step taken {args.resample} x")
    for name, value in scores(task, draws, trained).items():
        print(f"{name:55} {value:8.4f}")
    for path in out:
        if path.suffix == ".npz":
            known_truth = {} if task.truth is None else {"truth": task.truth}
            save_npz(
                path, coords=task.coords, observed_index=task.index, observed=task.values, signal=draws, **known_truth
            )
        else:
            assert task.canvas is not None
            shown = torch.full((len(task.coords), task.values.shape[1]), float("nan"))
            shown[task.index] = task.values
            title = f"{trained.fields.name}: {text}"
            bounded = trained.fields.bounded
            save_png(path, draw.completion(task.canvas, shown, draws, task.truth, bounded, title))
        print(path)
    return 0
