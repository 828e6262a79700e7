"""Train from the command line: `python train.py fit --config configs/synthetic.yaml`; any setting can be added."""

from __future__ import annotations

from pathlib import Path

from autofocusformer.data.module import Images
from shared.cli import HouseCLI
from shared.errors import one_line_errors


class Training(HouseCLI):
    """`fit` and `test`: no set has a third part to validate on, and `python -m autofocusformer` predicts."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: given for name, given in HouseCLI.subcommands().items() if name != "validate"}


if __name__ == "__main__":
    with one_line_errors():
        Training(None, Images, paper="autofocusformer", root=Path(__file__).resolve().parent)
