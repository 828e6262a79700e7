"""What the paper's sizes cost, without data: `python -m diffusion_fields.dry_run` (section 10, tier `paper`).

For each configuration the parameters, FLOPs and memory that `models.cost` counts, and the seconds of one training step
(forward, backward, AdamW) on a field of random numbers, with the configuration's N_c and N_q, in float32 on the CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from shared.errors import UserError, one_line_errors
from shared.runs.plan import read_yaml

from diffusion_fields import models
from diffusion_fields.data import FieldBatch, Fields
from diffusion_fields.diffusion import draw_times, field_loss
from diffusion_fields.errors import FieldError
from diffusion_fields.module import DiffusionField

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Widths (c, s) of coordinates and signals; image files are taken to be in colour.
WIDTHS = {
    **dict.fromkeys(("cifar10", "image_folder"), (2, 3)),
    **dict.fromkeys(("circle_grf", "digits", "mnist", "fashion"), (2, 1)),
    **dict.fromkeys(("sphere_grf", "sphere_digits", "planet_topography", "sdf_shapes", "voxels", "meshes"), (3, 1)),
}


def of_tier(tier: str = "paper") -> list[Path]:
    """The configurations that a tier names."""
    experiments = read_yaml(CONFIGS / "tiers" / f"{tier}.yaml")["experiments"]
    return [CONFIGS / name for experiment in experiments for name in experiment["config"]]


def settings(path: Path) -> tuple[DiffusionField, Fields]:
    """The training and the data of a configuration, the latter never read.

    Raises:
        UserError: no such file, a key that is none of theirs, or nothing that can be counted.
    """
    config = read_yaml(path)
    if "model" not in config or "data" not in config:
        raise UserError(f"{path} has no model and data: name a configuration of `train.py fit`")
    try:
        module, data = DiffusionField(**config["model"]), Fields(**config["data"])
    except TypeError as error:
        raise UserError(f"{path}: {str(error).split('() ')[-1]}") from None
    if module.network != "perceiver":
        raise FieldError(f"{path}: costs are counted of a perceiver, this is a {module.network}")
    if data.dataset not in WIDTHS or data.num_query is None:
        raise FieldError(f"{path}: a dry run needs data.num_query, and one of the data sets {', '.join(WIDTHS)}")
    return module, data


def build(module: DiffusionField, data: Fields) -> models.ScoreNetwork:
    coord_dim, signal_dim = WIDTHS[data.dataset]
    net = models.build(module.network, **{**module.size, "coord_dim": coord_dim, "signal_dim": signal_dim})
    assert isinstance(net, models.ScoreNetwork)
    return net


def step(net: models.ScoreNetwork, module: DiffusionField, num_context: int, num_query: int) -> float:
    """Seconds of one training step on one field."""
    optimiser = torch.optim.AdamW(net.parameters(), module.lr, betas=module.betas, weight_decay=module.weight_decay)
    points = max(num_context, num_query)
    batch = FieldBatch(2 * torch.rand(points, net.coord_dim) - 1, torch.randn(1, points, net.signal_dim))
    context, query = torch.randperm(points)[:num_context], torch.randperm(points)[:num_query]
    start = time.perf_counter()
    t = draw_times(1, module.schedule, module.prediction)
    loss = field_loss(net, batch, t, context, query, module.schedule, prediction=module.prediction, noise=module.noise)
    loss.backward()
    optimiser.step()
    return time.perf_counter() - start


def row(path: Path, stepped: bool) -> list[str]:
    """Name, N_c and N_q, parameters, FLOPs forward and in training, bytes of state, of a field, of a batch; seconds."""
    module, data = settings(path)
    num_context, num_query = data.context_range[1], data.num_query or 0
    with torch.device("cpu" if stepped else "meta"):  # meta: shapes without numbers
        net = build(module, data)
    cost = models.cost(net, num_context, num_query)
    whole = cost.state_bytes + data.batch_size * cost.activation_bytes
    return [
        path.stem, f"{num_context:,}", f"{num_query:,}", f"{cost.parameters:,}",
        f"{cost.forward_flops / 1e12:.3g}", f"{cost.training_flops / 1e12:.3g}", f"{cost.state_bytes / 2**30:.2f}",
        f"{cost.activation_bytes / 2**30:.2f}", f"{whole / 2**30:.1f} ({data.batch_size})",
        f"{step(net, module, num_context, num_query):.2f}" if stepped else "-",
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diffusion_fields.dry_run", description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, nargs="+", help="default: those of the tier `paper`")
    parser.add_argument("--no-step", action="store_true", help="count only, take no training step")
    args = parser.parse_args(argv)
    table = Table(box=None, pad_edge=False)
    names = ("configuration", "N_c", "N_q", "parameters", "TFLOP forward", "TFLOP training")
    for name in (*names, "GiB state", "GiB a field", "GiB (batch)", "s a step"):
        table.add_column(name, justify="left" if name == names[0] else "right", overflow="fold")
    for path in args.config or of_tier():
        table.add_row(*row(path, not args.no_step))
    console = Console()
    console.print(table)
    console.print(
        "per field and step; state: weights, gradients, AdamW's moments and the average in float32; activations in "
        f"bfloat16, as counted; the step: one field in float32 on {torch.get_num_threads()} threads",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
