"""A search's networks as one file for other programs: python -m mma_realtime.export --out search.pt2

The file (torch.export) holds the members and how they are combined: whitened windows [batch, detector, time] go in,
one statistic each comes out, for any batch. Beside the program lies `recipe.json`: sample rate, band, threshold and the
SHA-256 of the search that it came from, which is the one that notices name. What was written is read back and has to
give the search's own scores. Read it with `torch.export.load`; nothing of this package is needed.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from shared.errors import one_line_errors
from shared.runs.store import write_atomic
from torch import Tensor, nn

from mma_realtime.errors import SearchError
from mma_realtime.search import report
from mma_realtime.search.arguments import new_file
from mma_realtime.search.model_file import SearchModel

CHECKED = 256  # windows
TOLERANCE = 1e-4  # of a statistic, as between stream and offline search
RECIPE = "recipe.json"


class Statistic(nn.Module):
    """The search's statistic of each window: of the members' statistics the mean or the least."""

    def __init__(self, model: SearchModel) -> None:
        super().__init__()
        self.members, self.least = nn.ModuleList(model.members), model.recipe.combine == "min"

    def forward(self, x: Tensor) -> Tensor:
        each = torch.stack([member.statistic(x) for member in self.members])  # type: ignore[operator]
        return each.amin(dim=0) if self.least else each.mean(dim=0)


@torch.no_grad()  # the trunk's layers as they are, not the layout that trains faster
def exported(model: SearchModel) -> bytes:
    """The file's content."""
    first = model.members[0]
    example = torch.zeros(2, first.channels, first.input_length)
    program = torch.export.export(
        Statistic(model).eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    recipe = {**asdict(model.recipe), "single_threshold": _said(model.recipe.single_threshold)}
    told = json.dumps({"search_sha256": model.checksum, **recipe})
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={RECIPE: told})
    return buffer.getvalue()


def _said(number: float) -> float | None:
    """JSON knows no infinity."""
    return None if number == float("-inf") else number


@torch.no_grad()
def largest_difference(content: bytes, model: SearchModel, windows: int = CHECKED) -> float:
    """Of the file's scores and those of the search's own series, on overlapping windows of white noise."""
    first = model.members[0]
    hop = max(1, first.input_length // 16)
    x = torch.randn(first.channels, first.input_length + (windows - 1) * hop, generator=torch.manual_seed(0))
    own = model.series(x, hop)[0]
    program = torch.export.load(io.BytesIO(content)).module()
    return float((program(x.unfold(-1, first.input_length, hop).transpose(0, 1).contiguous()) - own).abs().max())


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument("--out", type=new_file, required=True, help="file to write, .pt2")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    torch.set_num_threads(1)
    model = report.load_model(args.checkpoint)
    content = exported(model)
    apart = largest_difference(content, model)
    if not apart <= TOLERANCE:
        raise SearchError(f"the exported networks differ by {apart:.2g} from the search: nothing was written")
    try:
        write_atomic(args.out, content)
    except OSError as error:
        raise SearchError(f"{args.out} cannot be written: {error.strerror}") from None
    first = model.members[0]
    Console().print(
        f"{args.out}: {len(model.members)} networks, windows [batch, {first.channels}, {first.input_length}] at "
        f"{model.recipe.sample_rate} Hz; scores differ by at most {apart:.2g} on {CHECKED} windows; of the search "
        f"{model.checksum[:12]}",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
