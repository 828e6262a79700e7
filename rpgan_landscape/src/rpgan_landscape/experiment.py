"""One experiment, as the launcher calls it. The configuration says which kind: one of the sections

landscape     exact enumeration of one loss; nothing is drawn, so it has one seed
counts        states by what their value depends on (kernel K2): as far as n = 9 on a GPU
population    two-cluster GANs, all seeds as one tensor program
model         a GAN trained by Lightning
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import UserError

if TYPE_CHECKING:
    from rpgan_landscape.population import Run


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash, kind, what it is) of what `config` is measured on."""
    if "landscape" in config or "counts" in config:
        return "exact", "exact", "every state is enumerated"
    dataset, root = config["data"]["dataset"], config["data"].get("root")
    if dataset in ("two_cluster", "gaussians"):
        # What is drawn follows from code, configuration and seed, and these are in the key already.
        return hashlib.sha256(dataset.encode()).hexdigest(), "recipe", "drawn by the recipe of section 6"
    return _described(dataset, root)


@lru_cache(maxsize=4)
def _described(dataset: str, root: str | None) -> tuple[str, str, str]:
    from rpgan_landscape.data import describe

    return describe(dataset, Path(root) if root else None)


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Metrics by name, curves as lists. Training resumes from the run's last checkpoint."""
    if "counts" in config:
        from rpgan_landscape.exact import count_metrics

        section = _section(config, "counts", {"n"})
        return count_metrics(3 if _dry(config) else section["n"])
    if "landscape" in config:
        from rpgan_landscape.exact import landscape_metrics

        section = _section(config, "landscape", {"loss", "most"})
        return landscape_metrics(section["loss"], 3 if _dry(config) else section["most"])
    from shared.cli import train_and_test

    from rpgan_landscape.data import GanData
    from rpgan_landscape.module import RelativisticGAN

    out = train_and_test(
        RelativisticGAN, GanData, config, seed, run_dir, paper="rpgan_landscape", experiment=experiment, tier=tier
    )
    if _dry(config):
        out["plan/hours here"] = out.pop("plan/seconds an epoch") * config["trainer"].get("max_epochs", 1) / 3600
    return out


POPULATION = {"loss", "pairing", "halved", "generator", "d_steps", "g_steps", "momentum"}
TRAINING = {"iterations", "lr_d", "lr_g", "n", "d_width", "g_width", "centres"}
# Of the predicted plateau: what the mean and the last D loss of a long collapsed window may be. Training comes from
# above, and a window begins before D has learned.
MEAN_RANGE, LAST_RANGE = (0.985, 1.09), (0.999, 1.016)
THIN = 50  # iterations between two points of a stored curve


def run_together(
    config: dict[str, Any], seeds: list[int], run_dir: Path, experiment: str = "run", tier: str = "fit"
) -> dict[int, dict[str, Any]]:
    """A population of two-cluster GANs, one for each seed; resumes from its directory."""
    import torch

    from rpgan_landscape import population

    section = _section(config, "population", POPULATION | TRAINING)
    recipe = population.Recipe(**{key: value for key, value in section.items() if key in POPULATION})
    training = {key: value for key, value in section.items() if key in TRAINING}
    if "centres" in training:
        training["centres"] = tuple(training["centres"])
    if _dry(config):
        training["iterations"] = 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    done = population.run(recipe, seeds, directory=run_dir, device=device, **training)
    (run_dir / population.CHECKPOINT).unlink(missing_ok=True)
    plateau, covered = predicted(recipe)
    _log(done, plateau, covered, config, run_dir, experiment, tier)
    return dict(zip(seeds, population_metrics(done, plateau)))


def predicted(recipe: Any) -> tuple[float, float]:
    """D's loss with all fakes in one of two clusters, and with both covered (section 11)."""
    from rpgan_landscape.diagnose import diagnose

    halve = recipe.halved if not recipe.relativistic else None
    plateaus = diagnose(recipe.loss, 0.0, 100, 2, halve_separable=halve).plateaus
    return plateaus[0].d_loss, plateaus[-1].d_loss


def population_metrics(run: Run, plateau: float) -> list[dict[str, Any]]:
    """Section 8's statistics of each GAN; an escape time of a run that never escapes is its number of iterations."""
    from rpgan_landscape.escape import collapsed, collapsed_windows, escape_times

    n = run.population.x.shape[1]
    iterations = run.d_loss.shape[1]
    times = escape_times(run.counts, n)
    lost = collapsed(run.counts, n).sum(1)
    windows = collapsed_windows(run.counts, run.d_loss, n)
    share = run.counts.amax(2) / n
    out = []
    for gan in range(len(times)):
        own = [window for window in windows if window.gan == gan]
        out.append(
            {
                "escape_time": min(float(times[gan]), float(iterations)),
                "escaped": float(times[gan].isfinite()),
                "collapsed_iterations": float(lost[gan]),
                "collapsed_windows": float(len(own)),
                "windows_off_plateau": float(sum(_outside(w.mean_d_loss / plateau, MEAN_RANGE) for w in own)),
                "windows_ending_off_plateau": float(sum(_outside(w.last_d_loss / plateau, LAST_RANGE) for w in own)),
                "final_d_loss": run.d_loss[gan, -100:].double().mean().item(),
                # For pictures: more digits than a line has pixels would only make results.json large.
                "curve/d_loss": [round(v, 4) for v in run.d_loss[gan, ::THIN].tolist()],
                "curve/largest_share": [round(v, 2) for v in share[gan, ::THIN].tolist()],
                "window/length": [float(w.length) for w in own],
                "window/mean_d_loss": [w.mean_d_loss for w in own],
                "window/last_d_loss": [w.last_d_loss for w in own],
            }
        )
    return out


def _outside(ratio: float, allowed: tuple[float, float]) -> bool:
    return not allowed[0] <= ratio <= allowed[1]


def _log(
    run: Run, plateau: float, covered: float, config: dict[str, Any], run_dir: Path, experiment: str, tier: str
) -> None:
    """The population's mean curves in W&B, with the predicted plateaus as lines."""
    from shared.tracking import finish, house_logger

    logger = house_logger(run_dir, "rpgan_landscape", experiment, tier, config)
    n = run.population.x.shape[1]
    share = (run.counts.double() / n).mean(0)
    for step in range(0, run.d_loss.shape[1], THIN):
        logger.log_metrics(
            {
                "d_loss": run.d_loss[:, step].double().mean().item(),
                "fakes/cluster_1": share[step, 0].item(),
                "fakes/cluster_2": share[step, 1].item(),
                "predicted/collapsed": plateau,
                "predicted/covered": covered,
            },
            step=step,
        )
    finish()


def _dry(config: dict[str, Any]) -> bool:
    return bool((config.get("trainer") or {}).get("fast_dev_run"))


def _section(config: dict[str, Any], name: str, known: set[str]) -> dict[str, Any]:
    section: dict[str, Any] = dict(config[name])
    for key in section:
        if key not in known:
            raise UserError(f"configuration: unknown key '{name}.{key}'; it has: {', '.join(sorted(known))}")
    return section
