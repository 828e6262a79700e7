"""`python train.py fit --config FILE`: what of a file of `configs/` is trained, and as what.

Its sections are those of an experiment (`experiment.py`); a training has `model`, `data` and `trainer`. A section of
`ALONE` is the model, of its own kind of windows; `twin` follows only in an experiment; and measurements have nothing
to train.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as L
import yaml
from shared.cli import HouseCLI
from shared.errors import UserError
from shared.runs.plan import read_yaml

from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.experiment import ALERTING, ALONE, alone
from mma_realtime.trial import Trial

MEASUREMENTS = (*ALERTING, "matched_filter")
Kind = tuple[type[L.LightningModule], type[L.LightningDataModule]]


def prepared(argv: Sequence[str], folder: Path) -> tuple[Kind, list[str]]:
    """What is trained on what, and the command line with every `--config` as a training has it.

    Args:
        folder: for the files that are written anew.

    Raises:
        UserError: a configuration without a training, one of two kinds, or one that cannot be read.
    """
    kind: Kind = Trial, SimulatedBBH
    out = list(argv)
    for at, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name not in ("--config", "-c") or not (equals or at + 1 < len(argv)):
            continue
        file = Path(value if equals else argv[at + 1])
        if not file.is_file():
            continue  # the command line's own error names it
        config = read_yaml(file)
        if measured := next((section for section in MEASUREMENTS if section in config), None):
            raise UserError(f"{file.name}: '{measured}' is measured, there is nothing to train: use reproduce.py")
        if twin := config.pop("twin", None):
            print(f"{file.name}: 'twin' is left out: twins follow in an experiment, with reproduce.py")
        section = next((section for section in ALONE if section in config), None)
        if section:
            if "model" in config:
                raise UserError(f"{file.name}: 'model' and '{section}' are two networks: give one")
            kind, config["model"] = alone(section), config.pop(section) or {}
        if section or twin:
            new = folder / str(at) / file.name  # the run is named by the file
            new.parent.mkdir()
            new.write_text(yaml.safe_dump(config, sort_keys=False))
            out[at : at + 2 - bool(equals)] = [f"--config={new}"] if equals else [word, str(new)]
    return kind, out


def main(argv: Sequence[str], root: Path) -> HouseCLI:
    """Args:
    argv: as `train.py` gets it. root: the paper's folder.
    """
    with tempfile.TemporaryDirectory(prefix="mma_realtime_") as folder:
        kind, args = prepared(argv, Path(folder))
        return HouseCLI(*kind, paper="mma_realtime", root=root, args=args)
