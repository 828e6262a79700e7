"""One experiment, as the launcher calls it: configuration and seed in, metrics out.

Seeds that train together (`run_together`) are a population of small networks; a seed alone is trained by Lightning. The
configuration is the same: `model`, `data` and the number of epochs. A section `toy` is one of the two-dimensional and
one-dimensional games of `toy`; a section `cost` measures what the penalty costs.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from shared.errors import UserError


@lru_cache(maxsize=4)
def _described(dataset: str, root: str | None, options: tuple[tuple[str, Any], ...]) -> tuple[str, str, str]:
    from diggan.data import load

    source = load(dataset, Path(root) if root else None, **dict(options))
    return source.fingerprint, source.kind, source.detail


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash, kind, what it is) of what `config` is measured on.

    Which of the images are trained on is in the hash where all seeds train on the same (`subset_seed`); else it follows
    from this, the number of images and the seed, all in the run's key. The run's folder names them.
    """
    for section, what in (("toy", "drawn by the recipe of section 10, B1"), ("cost", "random images: times only")):
        if section in config:
            return hashlib.sha256(section.encode()).hexdigest(), "recipe", what
    data = config["data"]
    options = tuple((key, data[key]) for key in ("resize", "to_rgb", "coarse") if key in data)
    found, kind, detail = _described(data["dataset"], data.get("root"), options)
    if data.get("subset_seed") is None:
        return found, kind, detail
    return hashlib.sha256(f"{found} {_subset(data)}".encode()).hexdigest(), kind, detail


def _subset(data: dict[str, Any]) -> int:
    from diggan.data import LimitedImages

    chosen = LimitedImages(**data)
    chosen.setup()
    return chosen.subset_crc


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Train by Lightning (or measure the cost), and judge; resumes from the run's last checkpoint."""
    if "cost" in config:
        from diggan.cost import cost_metrics

        accelerator = (config.get("trainer") or {}).get("accelerator", "auto")
        return cost_metrics(config["cost"], seed, quick=_dry(config), accelerator=accelerator)
    from shared.cli import train_and_test

    from diggan.data import LimitedImages
    from diggan.module import DigGAN

    out = train_and_test(DigGAN, LimitedImages, config, seed, run_dir, paper="diggan", experiment=experiment, tier=tier)
    if _dry(config):
        iterations = config["data"].get("iterations", 250) * config["trainer"].get("max_epochs", 1)
        out["plan/hours here"] = out.pop("plan/seconds an iteration") * iterations / 3600
    return out


def run_together(
    config: dict[str, Any], seeds: list[int], run_dir: Path, experiment: str = "run", tier: str = "fit"
) -> dict[int, dict[str, Any]]:
    """All seeds as one tensor program; resumes from its directory."""
    if "toy" in config:
        from diggan import toy

        out = toy.run(config["toy"], seeds, run_dir, dry=_dry(config))
    else:
        from diggan.population import run_population

        for section in config:
            if section not in ("model", "data", "trainer"):
                raise UserError(f"configuration: unknown section '{section}'; it has: model, data, trainer")
        epochs = int(config["trainer"].get("max_epochs", 1))
        settings = dict(config.get("model") or {}), dict(config["data"])
        out = _one_line_types(run_population, *settings, epochs, seeds, run_dir, _dry(config))
    _log(out, config, run_dir, experiment, tier)
    return out


def _one_line_types(function: Any, *args: Any) -> Any:
    """A key that a constructor does not have is the user's, not the program's."""
    try:
        return function(*args)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"configuration: {error}") from None


def _log(out: dict[int, dict[str, Any]], config: dict[str, Any], run_dir: Path, experiment: str, tier: str) -> None:
    """The means over seeds in W&B, look by look."""
    from shared.tracking import finish, house_logger

    logger = house_logger(run_dir, "diggan", experiment, tier, config)
    results = list(out.values())
    curves = {
        name.removeprefix("curve/"): [r[name] for r in results] for name in results[0] if name.startswith("curve/")
    }
    for step in range(max((len(rows[0]) for rows in curves.values()), default=0)):
        at = {name: [row[step] for row in rows] for name, rows in curves.items() if step < len(rows[0])}
        logger.log_metrics({f"val/{name}": sum(values) / len(values) for name, values in at.items()}, step=step)
    single = [n for n, v in results[0].items() if isinstance(v, int | float) and "features/" not in n]
    logger.log_metrics({f"test/{name}": sum(r[name] for r in results) / len(results) for name in single})
    finish()


def _dry(config: dict[str, Any]) -> bool:
    return bool((config.get("trainer") or {}).get("fast_dev_run"))
