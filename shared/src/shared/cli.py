"""Training as every project does it: one LightningCLI, from the command line or from a dict.

    python train.py fit --config configs/mnist.yaml              HouseCLI(Module, Data, paper=..., root=...)
    train_and_test(Module, Data, config, seed, run_dir, ...)      one run of `reproduce.py`, in silence

Both write into one run folder: config.yaml (what exactly ran), last.ckpt (where a killed run goes on) and wandb/
(offline unless a W&B key is configured). The same command again resumes, and ends with the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import yaml
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

from shared.errors import UserError
from shared.resume import ResumeCheckpoint, check_readable
from shared.runs.store import write_atomic
from shared.tracking import finish, house_logger, silence

__all__ = ["HouseCLI", "ResumeCheckpoint", "train_and_test"]

SECTIONS = ("trainer", "model", "data")
# One device unless asked: a run is a row of a table, and a row must not change with the machine it ran on.
TRAINER_DEFAULTS = {"devices": 1, "num_sanity_val_steps": 0, "max_epochs": 1}


class HouseCLI(LightningCLI):
    """LightningCLI with the house defaults.

    Args:
        model_class, data_class: what is trained (None: the configuration says, by `class_path`), and on what.
        paper: the project's name: the W&B project and first tag.
        root: folder under which `runs/` lies (the paper's folder).
        experiment: the W&B group; default the names of the --config files.
        tier: the W&B job type and second tag.
        run_dir: where this run lives; default `<root>/runs/fit/<experiment>-<hash of the configuration>`.
        args: command line as a list, or the configuration as a dict (then `run=False`).
        quiet: no progress bar, no table of layers, nothing from Lightning.
        every_seconds: least time between two checkpoints.

    Raises:
        UserError: unknown key, wrong type or unreadable file in the configuration; the line names the key.
    """

    def __init__(
        self,
        model_class: type[L.LightningModule] | None,
        data_class: type[L.LightningDataModule],
        *,
        paper: str,
        root: Path | str = ".",
        experiment: str | None = None,
        tier: str = "fit",
        run_dir: Path | None = None,
        args: ArgsType = None,
        run: bool = True,
        quiet: bool = False,
        every_seconds: float = 20.0,
    ) -> None:
        self.paper, self.root, self.experiment, self.tier = paper, Path(root), experiment or "", tier
        self.run_dir, self.quiet, self.every_seconds = run_dir or Path(), quiet, every_seconds
        # With `exit_on_error`, pages of usage would come before the one line that matters.
        strict: dict[str, Any] = {"exit_on_error": False}
        with silence():
            super().__init__(
                model_class,
                data_class,
                save_config_callback=None,  # ours is written atomically, and before training starts
                trainer_defaults=dict(TRAINER_DEFAULTS),
                seed_everything_default=0,
                parser_kwargs={**strict, **dict.fromkeys(self.subcommands(), strict)} if run else strict,
                args=args,
                run=run,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {name: LightningCLI.subcommands()[name] for name in ("fit", "validate", "test")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run_dir", type=str, default="", help="folder of this run (default: runs/fit/...)")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        with _one_line_parse_errors(), _without_command_line() if args is not None else nullcontext():
            if isinstance(args, dict):
                _check_sections(args)
            super().parse_arguments(parser, args)
        _check_sections(vars(self.config.get(str(self.config.get("subcommand")), self.config)))

    def before_instantiate_classes(self) -> None:
        self._dump_config()
        given = self.config_dump.pop("run_dir", "")
        for key in ("config", "ckpt_path", "weights_only", "verbose"):
            self.config_dump.pop(key, None)
        files = self._get(self.config, "config") or []
        self.experiment = self.experiment or "+".join(Path(str(file)).stem for file in files) or "fit"
        if given:
            self.run_dir = Path(given)
        elif self.run_dir == Path():
            digest = hashlib.sha256(yaml.safe_dump(self.config_dump).encode()).hexdigest()[:8]
            self.run_dir = self.root / "runs" / "fit" / f"{self.experiment}-{digest}"
        self.run_dir = self.run_dir.absolute()

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # Where any LightningModule may come, jsonargparse folds the constructor's error into one about types.
            found = re.search(r"Errors:\n  - (.*?)\n  - Expected a <class 'NoneType'>", str(error), re.DOTALL)
            if found is None:
                raise
            raise UserError(f"configuration: {_one_line(found[1])}") from None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self._get(self.config_init, "trainer")
        training = self.subcommand in (None, "fit") and not config["fast_dev_run"]
        kwargs["callbacks"] = list(config["callbacks"] or [])
        if training:
            if os.environ.get("LOCAL_RANK", "0") == "0":  # under DDP every rank passes here
                write_atomic(self.run_dir / "config.yaml", yaml.safe_dump(self.config_dump, sort_keys=False))
            kwargs["callbacks"].insert(0, ResumeCheckpoint(self.run_dir / "last.ckpt", self.every_seconds))
        if config["logger"] in (None, True):
            kwargs["logger"] = training and house_logger(
                self.run_dir, self.paper, self.experiment, self.tier, self.config_dump
            )
        kwargs["enable_checkpointing"] = bool(config["enable_checkpointing"])
        kwargs["default_root_dir"] = config["default_root_dir"] or str(self.run_dir)
        if self.quiet:
            kwargs |= {"enable_progress_bar": False, "enable_model_summary": False}
        elif config["enable_progress_bar"] is not False:
            kwargs["callbacks"].append(RichProgressBar())
        return super().instantiate_trainer(**kwargs)

    @property
    def resume_from(self) -> str | None:
        """The checkpoint of an earlier, interrupted go at this run."""
        path = self.run_dir / "last.ckpt"
        if getattr(self.trainer, "fast_dev_run", False) or not path.is_file():
            return None
        check_readable(path)
        return str(path)

    def fit(self, **kwargs: Any) -> None:
        """`train.py fit`: goes on from the run folder's checkpoint if there is one, leaves `final.ckpt` there."""
        kwargs["ckpt_path"] = kwargs.get("ckpt_path") or self.resume_from
        with silence():
            self.trainer.fit(**{**kwargs, "weights_only": True})
        if getattr(self.trainer, "fast_dev_run", False) or self.trainer.interrupted:
            return
        self.trainer.save_checkpoint(self.run_dir / "final.ckpt")
        if self.trainer.is_global_zero:
            (self.run_dir / "last.ckpt").unlink(missing_ok=True)
            print(f"run: {self.run_dir}  {_in_words(self.metrics())}")
        finish()

    def metrics(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.trainer.callback_metrics.items()}


def train_and_test(
    model_class: type[L.LightningModule] | None,
    data_class: type[L.LightningDataModule],
    config: dict[str, Any],
    seed: int,
    run_dir: Path | str,
    paper: str,
    experiment: str,
    tier: str,
    *,
    every_seconds: float = 20.0,
    cli_class: type[HouseCLI] = HouseCLI,
) -> dict[str, Any]:
    """Train on the training part, test, and return the metrics; goes on from `run_dir`/last.ckpt if that exists.

    Args:
        config: sections `trainer`, `model`, `data` (the constructors' arguments), as in a file of configs/.
        seed: of every generator; stands above a `seed_everything` in `config`.
        run_dir: the run's folder.
        paper, experiment, tier: how the run is found in W&B.
        every_seconds: least time between two checkpoints.
        cli_class: a subclass of HouseCLI where a project links arguments.

    Returns:
        `model.results()` where the module has it, else what was logged in training and testing, by name.

    Raises:
        UserError: unknown key, wrong type, missing data, damaged checkpoint, full disk.
    """
    exit_code = 1
    try:
        cli = cli_class(
            model_class,
            data_class,
            paper=paper,
            experiment=experiment,
            tier=tier,
            run_dir=Path(run_dir),
            args={**config, "seed_everything": seed},
            run=False,
            quiet=True,
            every_seconds=every_seconds,
        )
        with silence():
            metrics = _fit_and_test(cli)
        exit_code = 0
    finally:
        finish(exit_code)
    return metrics


def _fit_and_test(cli: HouseCLI) -> dict[str, Any]:
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    trainer.fit(model, datamodule=data, ckpt_path=cli.resume_from, weights_only=True)
    metrics: dict[str, Any] = dict(cli.metrics())
    trainer.test(model, datamodule=data, verbose=False)
    results = getattr(model, "results", None)
    metrics = dict(results()) if callable(results) else metrics | cli.metrics()
    if trainer.logger and callable(results):  # the numbers that the claims are about, beside the curves
        trainer.logger.log_metrics({k: v for k, v in metrics.items() if isinstance(v, int | float)})
    return metrics


def _in_words(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))


def _check_sections(config: dict[str, Any]) -> None:
    """The top level of a configuration: known names only, each section a mapping."""
    for section in SECTIONS:
        value = config.get(section, {})
        if not isinstance(value, dict) and not hasattr(value, "as_dict"):
            raise UserError(f"configuration: '{section}' has to be a mapping, got {value!r}")


@contextmanager
def _without_command_line() -> Iterator[None]:
    """Lightning warns when a configuration is given in code under a command that has arguments of its own."""
    kept, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = kept


@contextmanager
def _one_line_parse_errors() -> Iterator[None]:
    try:
        yield
    except argparse.ArgumentError as error:
        raise UserError(f"configuration: {_one_line(str(error))}") from None


def _type_name(kind: str) -> str:
    return re.sub(r"<class '(.*)'>|typing\.", r"\1", kind).replace("NoneType", "None")


def _one_line(message: str) -> str:
    """jsonargparse's message as one line that names the key, what it takes and what it got."""
    if found := re.match(r"Group '(\S+)' does not accept option '(\S+)'", message):
        return f"unknown key '{found[1]}.{found[2]}'"
    if not message.startswith("Parser key") and (
        found := re.search(
            r"does not accept option '(\S+)'|Option '(\S+)' is not accepted|unrecognized arguments: --(\S+?)(=|\s|$)",
            message,
        )
    ):
        return f"unknown key '{found[1] or found[2] or found[3]}'"
    if found := re.match(r"Parser key \"(\S+)\":", message):
        key, problem = found[1], message[found.end() :]
        if inner := re.search(r"- Problem with given class_path '(\S+)':\n(.*?)\n    - Expected", problem, re.DOTALL):
            said = _one_line(textwrap.dedent(inner[2]))
            return re.sub(r"^(unknown key |)'", rf"\1'{key}.init_args.", said) + f" (in {inner[1]})"
        if got := re.search(r"(?:Given value|Got value): (.*)", problem):
            kinds = re.findall(r"Expected an? (.*?)(?:\.? Got value|\.?\n|\.?$)", problem)
            wanted = " or ".join(dict.fromkeys(_type_name(kind) for kind in kinds))
            return f"'{key}' has to be {wanted or 'of another type'}, got {got[1].strip()!r}"
    return " ".join(message.replace('Parser key "', "'").replace('":', "':").split())
