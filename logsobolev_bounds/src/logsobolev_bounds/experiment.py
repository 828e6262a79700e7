"""One experiment, as the launcher calls it. The configuration says which kind: one of the sections

prior        a prior on examples, no training: gradient norms, C(lambda) and its fit, the inequality by draws (C1 to C3)
model        a Bayesian network trained by Lightning, and every bound on it (C4, C5, random labels)
simulate     the exponent identity and coverage by simulation (C6)
theory       closed forms derived a second time, nothing drawn (sections 3.3 to 3.6)
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.runs.plan import read_yaml

PRIOR = {
    "depths", "network", "depth", "width", "bias", "norm", "sigma_p", "draws", "examples", "largest", "points", "modes",
    "device",
}  # fmt: skip
SIMULATE = {"pairs", "replications"}
WITHOUT_TRAINING = ("prior", "simulate", "theory")
SECTIONS = {"prior", "simulate", "theory", "model", "data", "trainer", "seed_everything"}


def refuse_what_does_not_train(argv: Sequence[str], root: Path) -> None:
    """For `train.py`: which command runs a --config file that has nothing to train.

    Args:
        argv: the words of the command line. root: the paper's folder, with its tiers.

    Raises:
        UserError: a file with a section `prior`, `simulate` or `theory`.
    """
    for word, after in zip(argv, [*argv[1:], ""]):
        file = Path(after if word in ("--config", "-c") else word.removeprefix("--config="))
        if file.suffix not in (".yaml", ".yml") or not file.is_file():
            continue
        for section in WITHOUT_TRAINING:
            if section in read_yaml(file):
                raise UserError(f"{file} has `{section}` and nothing to train: {_reproduced_by(file.name, root)}")


def _reproduced_by(name: str, root: Path) -> str:
    for tier in ("quick", "cpu", "gpu", "paper"):
        for experiment in read_yaml(root / "configs" / "tiers" / f"{tier}.yaml")["experiments"]:
            if name in experiment["config"]:
                return f"`python reproduce.py --tier {tier} --only {experiment['name']}` runs it"
    return "name it in a tier of configs/tiers, and `python reproduce.py` runs it"


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash, kind, what it is) of what `config` is measured on."""
    if "simulate" in config:
        return hashlib.sha256(b"simulate").hexdigest(), "recipe", "drawn by the recipes of sections 3.6 and 8 (C6)"
    if "theory" in config:
        return hashlib.sha256(b"theory").hexdigest(), "recipe", "closed forms and quadrature; nothing is drawn"
    from logsobolev_bounds.data import read

    data = config["data"]
    if data.get("dataset", "digits") == "synthetic_logistic":
        return hashlib.sha256(b"logistic").hexdigest(), "recipe", "two Gaussians in the plane, drawn"
    *_, digest, kind, detail = read(data.get("dataset", "digits"), Path(data["root"]) if data.get("root") else None)
    return digest, kind, detail


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Metrics by name, curves as lists. Training resumes from the run's last checkpoint."""
    for key in config:
        if key not in SECTIONS:
            raise UserError(f"configuration: unknown key '{key}'; there are: {', '.join(sorted(SECTIONS))}")
    dry = bool((config.get("trainer") or {}).get("fast_dev_run"))
    if "simulate" in config:
        return simulated(_section(config, "simulate", SIMULATE), seed, dry)
    if "theory" in config:
        _section(config, "theory", set())
        return derived_again()
    if "prior" in config:
        out = prior_metrics(_section(config, "prior", PRIOR), dict(config["data"]), seed, dry, run_dir / "draws.pt")
        _log(out, config, run_dir, experiment, tier)
        return out
    from shared.cli import train_and_test

    from logsobolev_bounds.data import Examples
    from logsobolev_bounds.module import BayesClassifier

    return train_and_test(
        BayesClassifier, Examples, config, seed, run_dir, paper="logsobolev_bounds", experiment=experiment, tier=tier
    )


def prior_metrics(
    section: dict[str, Any], data_settings: dict[str, Any], seed: int, dry: bool = False, kept: Path | None = None
) -> dict[str, Any]:
    """C1 to C3 of one prior, as `prior.measure` does it; goes on from the draws that `kept` has."""
    from logsobolev_bounds.data import Examples
    from logsobolev_bounds.prior import measure

    if "sigma_p" not in section:
        raise UserError("configuration: 'prior.sigma_p' is missing: give the prior's standard deviation")
    for key in ("draws", "examples"):
        if section.get(key) is not None and int(section[key]) < 1:
            raise UserError(f"configuration: prior.{key} is {section[key]}: it has to be at least 1")
    known = inspect.signature(Examples).parameters
    for key in data_settings:
        if key not in known:
            raise UserError(f"configuration: unknown key 'data.{key}'; it has: {', '.join(sorted(known))}")
    data = Examples(**{"seed": seed, **data_settings})
    data.setup()
    n = min(int(section.get("examples") or data.m), data.m)
    draws = 3 if dry else int(section.get("draws", 100))
    n = min(n, 200) if dry else n  # two examples of every class
    sigma_p, depth, width = float(section["sigma_p"]), int(section.get("depth", 0)), int(section.get("width", 64))
    if "depths" in section:
        return slope_metrics(data, sigma_p, width, [int(d) for d in section["depths"]], draws, n, seed)
    names = ("network", "bias", "norm", "largest", "points", "modes", "device")
    chosen = {key: section[key] for key in names if key in section}
    return measure(data, seed, sigma_p, depth=depth, width=width, draws=draws, examples=n, kept=kept, **chosen)


def slope_metrics(
    data: Any, sigma_p: float, width: int, depths: list[int], draws: int, examples: int, seed: int
) -> dict[str, Any]:
    """C2: the log of E|grad_x l|^2 against depth, its slope, and ln(h sigma_p^2 / 2), which section 3.10 predicts."""
    import numpy as np

    from logsobolev_bounds.complexity import loss_and_gradient
    from logsobolev_bounds.models import build
    from logsobolev_bounds.streams import stream
    from logsobolev_bounds.theory import relu_prior_loss_grad_sq

    found, predicted = [], []
    for depth in depths:
        name = "mlp" if depth else "linear"
        net = build(name, data.inputs, data.classes, sigma_p, max(1, depth), width)  # type: ignore[arg-type]
        stacked = net.draws(draws, stream(seed, "prior draws", depth), prior=True)
        g = loss_and_gradient(net, stacked, data.x[:examples], data.y[:examples])[1]
        found.append(float(g.double().mean()))
        predicted.append(relu_prior_loss_grad_sq(data.inputs, width, depth, sigma_p, data.classes))
    slope = float(np.polyfit(depths, np.log(found), 1)[0])
    expected = math.log(width * sigma_p**2 / 2)
    return {
        "slope": slope, "slope_predicted": expected, "slope_error": abs(slope - expected),
        "curve/depth": [float(d) for d in depths], "curve/grad_sq": found, "curve/predicted": predicted,
    }  # fmt: skip


def simulated(section: dict[str, Any], seed: int, dry: bool = False) -> dict[str, Any]:
    """C6: the exponent identity, how often bounds fail; the variational formula."""
    from logsobolev_bounds.simulate import (
        donsker_varadhan,
        exponent_identity,
        flat_classes,
        label_noise,
        logistic,
    )

    pairs = 2000 if dry else int(section.get("pairs", 20_000))
    replications = 50 if dry else int(section.get("replications", 2000))
    out: dict[str, Any] = {}
    for found in exponent_identity(pairs, seed):
        name = f"{found.bound}_{found.lam:.3g}"
        z = (found.mean - found.expected) / found.standard_error
        out |= {f"identity/{name}": found.mean, f"identity_se/{name}": found.standard_error, f"identity_z/{name}": z}
    exact = [abs(v) for k, v in out.items() if k.startswith("identity_z/C_exact")]
    lsi = [k.removeprefix("identity_se/") for k in out if k.startswith("identity_se/C_lsi")]
    above = [(out[f"identity/{k}"] - 1) / out[f"identity_se/{k}"] for k in lsi]
    out |= {"identity_worst_z": max(exact), "identity_lsi_above_one_z": max(above)}
    out |= {f"variational/{k}": v for k, v in donsker_varadhan(seed=seed)._asdict().items()}
    for cover in (
        *flat_classes(replications, seed),
        *label_noise(replications, seed),
        *logistic(replications, seed),
    ):
        name = f"{cover.setting}/{cover.bound}".replace(", ", "/").replace(" ", "_")
        out[f"violated/{name}"] = cover.violations / cover.replications
        out[f"valid/{name}"] = float(cover.valid)
    valid = [v for k, v in out.items() if k.startswith("violated/") and out[k.replace("violated/", "valid/")]]
    out["violated_valid_worst"] = max(valid)
    return out


def derived_again() -> dict[str, float]:
    """The theory table: every closed form beside what another road gives, and whether the bounds keep their order.

    With it the binary linear model's C, exact by quadrature, and its sub-gamma fit.
    """
    from logsobolev_bounds.simulate import linear_model
    from logsobolev_bounds.solved import least_slack, solved_cases

    out: dict[str, float] = {}
    for case in solved_cases():
        name = f"{case.what}; {case.at}"
        out |= {f"closed/{name}": case.closed, f"derived/{name}": case.derived, f"error/{name}": case.error}
    errors = [value for key, value in out.items() if key.startswith("error/")]
    out |= {f"linear_model/{k}": v for k, v in linear_model()._asdict().items()}
    return out | {"theory_worst_error": max(errors), "theory_least_slack": least_slack()}


def _section(config: dict[str, Any], name: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(config[name], dict):
        raise UserError(f"configuration: '{name}' has to be a mapping, got {config[name]!r}")
    section: dict[str, Any] = dict(config[name])
    for key in section:
        if key not in known:
            raise UserError(f"configuration: unknown key '{name}.{key}'; it has: {', '.join(sorted(known))}")
    return section


def _log(out: dict[str, Any], config: dict[str, Any], run_dir: Path, experiment: str, tier: str) -> None:
    from shared.tracking import finish, house_logger

    logger = house_logger(run_dir, "logsobolev_bounds", experiment, tier, config)
    logger.log_metrics({k: v for k, v in out.items() if isinstance(v, int | float) and math.isfinite(v)})
    finish()
