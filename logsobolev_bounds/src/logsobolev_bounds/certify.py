"""What a trained network's true risk is at most, by every bound of sections 3.1 to 3.9, and what each is worth.

    python -m logsobolev_bounds.certify --ckpt runs/fit/<run>/final.ckpt --delta 0.05

Prints the bounds with their kinds, certificate or estimate, and the reasons; writes them as JSON beside the checkpoint.
"""

from __future__ import annotations

import json
import math
import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from shared.errors import UserError, one_line_errors
from shared.runs.plan import read_yaml
from shared.runs.store import write_atomic
from torch import Tensor

from logsobolev_bounds.bounds import (
    BoundResult,
    Facts,
    alquier_bounded,
    alquier_optimal,
    assemble,
    assemble_mgf,
    best_t,
    catoni,
    elbo,
    lambda_bound,
    lambda_grid,
    maurer_pinsker,
    monte_carlo_risk,
    quadratic,
    seeger,
    seeger_clipped,
)
from logsobolev_bounds.complexity import Mode, PerDraw, draws_at_once, forward_chunk, grid, of_prior
from logsobolev_bounds.data import BUDGET, Examples
from logsobolev_bounds.errors import Number, OneLineParser
from logsobolev_bounds.layers import explicit_weights_only
from logsobolev_bounds.losses import clipped_nll, nll, zero_one
from logsobolev_bounds.mgf import log_c, subgamma_fit
from logsobolev_bounds.models import BayesNet, one
from logsobolev_bounds.streams import run_seed, stream

MODES: tuple[Mode, ...] = ("total", "identity", "class_corrected")
LAMBDAS = (0.25, 0.5, 1.0, 2.0)  # as multiples of m
DELTA_MC = 0.01  # of the confidence, for the Monte-Carlo inversion
TITLES = {
    "total": "LSI, total covariance",
    "identity": "LSI, Euclidean norm",
    "within": "LSI, within-class covariance",
    "class_corrected": "LSI, class-corrected",
}
# Names among a run's results.
KEYS = {
    "total": "lsi", "identity": "lsi_euclid", "within": "lsi_within", "class_corrected": "lsi_corrected",
    "alquier_optimal": "hoeffding_clip", "seeger_clipped": "seeger_clip", "seeger": "seeger01",
    "maurer_pinsker": "maurer01", "quadratic": "quadratic01", "lambda": "lambda01", "catoni": "catoni01",
    "alquier_bounded": "alquier_clip", "elbo": "elbo",
}  # fmt: skip


class Bound(NamedTuple):
    """A bound of one network: what it is called, its key among results, the loss that it is about."""

    title: str
    key: str
    loss: str
    result: BoundResult


@torch.no_grad()
def logits_of_draws(
    net: BayesNet, x: Tensor, draws: int, generator: torch.Generator, budget: int = BUDGET
) -> Iterator[Tensor]:
    """Logits of all examples for one explicit posterior draw after another; `budget` bounds the bytes of a chunk."""
    size, group = forward_chunk(net, x, budget), draws_at_once(net, 0, budget)
    for start in range(0, draws, group):
        stacked = net.draws(min(group, draws - start), generator)
        for k in range(len(stacked[0].weight)):
            with explicit_weights_only():
                logits = torch.cat([net.at(one(stacked, k), part) for part in x.split(size)])
            yield logits


def posterior_risks(
    net: BayesNet,
    x: Tensor,
    y: Tensor,
    draws: int,
    p_min: float,
    generator: torch.Generator,
    budget: int = BUDGET,
) -> dict[str, float]:
    """Means over explicit posterior draws: NLL, clipped NLL, error of the draws (Gibbs), of their mean, calibration.

    `budget` bounds the bytes of a chunk of examples; the result does not depend on it.
    """
    totals = dict.fromkeys(("nll", "clipped", "gibbs"), 0.0)
    mean = torch.zeros(len(y), 1, device=x.device)
    for logits in logits_of_draws(net, x, draws, generator, budget=budget):
        wide = logits.double()  # in float32 a loss that is clipped at B may lie above B
        totals["nll"] += float(nll(wide, y).mean())
        totals["clipped"] += float(clipped_nll(wide, y, p_min).mean())
        totals["gibbs"] += float(zero_one(logits, y).double().mean())
        mean = mean + logits.softmax(1)
    out = {name: value / draws for name, value in totals.items()}
    out["ensemble"] = float((mean.argmax(1) != y).double().mean())
    out["ece"] = calibration_error(mean / draws, y)
    return out


def gibbs_error(
    net: BayesNet, x: Tensor, y: Tensor, draws: int, generator: torch.Generator, budget: int = BUDGET
) -> float:
    """The error alone: what an inverted risk takes a thousand draws of."""
    every = logits_of_draws(net, x, draws, generator, budget=budget)
    return sum(float(zero_one(logits, y).double().mean()) for logits in every) / draws


def calibration_error(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    """Expected calibration error of the most likely class (torchmetrics' L1 form)."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    return float(multiclass_calibration_error(probabilities, y, probabilities.shape[1], bins, "l1"))


def certificates(
    net: BayesNet,
    data: Examples,
    delta: float = 0.05,
    lambdas: Sequence[float] = LAMBDAS,
    prior_draws: int = 200,
    examples: int | None = None,
    points: int = 65,
    modes: Sequence[Mode] = MODES,
    posterior_draws: int = 200,
    certificate_draws: int = 1000,
    p_min: float = 1e-4,
    prior_fixed: bool = True,
    selected_over: str = "",
    seed: int = 0,
    budget: int = BUDGET,
) -> tuple[list[Bound], dict[str, float]]:
    """Every bound of the network's posterior on the data's training examples, and the risks that they are about.

    Args:
        delta: confidence of each bound, spent once: over the grid of lambdas, and with 0.01 for Monte Carlo.
        lambdas: fixed before the sample, as multiples of m.
        prior_draws, examples, points, modes: of C (examples: the first so many of the training set; default all).
        posterior_draws: of the plugged-in risks. certificate_draws: of the inverted one.
        prior_fixed: whether sigma_p was chosen without the training set.
        selected_over: what this network is the best of, chosen by its bound ("3 seeds"); "" for none.
        seed: of the draws; C, each risk and the inverted one have draws of their own.
    """
    for name, number in {
        "prior_draws": prior_draws, "posterior_draws": posterior_draws, "certificate_draws": certificate_draws,
        "examples": data.m if examples is None else examples,
    }.items():  # fmt: skip
        if number < 1:
            raise UserError(f"{name} is {number}: it has to be at least 1")
    if not DELTA_MC < delta < 1:
        raise UserError(f"delta is {delta}: it lies below 1, and a certificate spends {DELTA_MC} of it on Monte Carlo")
    m = data.m
    kl = float(net.kl().detach())
    risks = posterior_risks(net, data.x, data.y, posterior_draws, p_min, stream(seed, "risk on S"), budget)
    on_test = stream(seed, "risk on test")
    test = posterior_risks(net, data.x_test, data.y_test, posterior_draws, p_min, on_test, budget)
    n = m if examples is None else min(examples, m)
    facts = Facts(
        prior_fixed, lambda_fixed=True, preprocessing_free=not data.preprocessing_uses_s, risk="plug_in",
        selected_over=selected_over, complexity_from="the sample" if n == m else f"{n} of the sample's {m} examples",
    )  # fmt: skip
    drawn = stream(seed, "prior draws")
    alphas = grid(max(lambdas), points)
    measured = of_prior(net, prior_draws, drawn, data.x[:n], data.y[:n], alphas, modes, budget=budget)
    lams = torch.tensor([multiple * m for multiple in lambdas], dtype=torch.float64)
    out, about = [], {"m": float(m), "kl": kl}
    for mode, found in measured.items():
        if mode == "total":
            about |= subgamma(found, m)
        pairs = [found.complexity(float(lam), m) for lam in lams]
        c = torch.tensor([value for value, _ in pairs], dtype=torch.float64)
        best = lambda_grid(risks["nll"], kl, c, lams, delta)
        name = "class_corrected" if mode == "class_corrected" else "lsi"
        # The union bound over the grid: each lambda at confidence delta / J.
        result = assemble_mgf(
            name, risks["nll"], kl, c[best.argmin], best.lam, delta / len(lams), facts, pairs[best.argmin][1]
        )
        out.append(Bound(TITLES[mode], KEYS[mode], "nll", result))
    b, gibbs, clipped, each_delta = -math.log(p_min), risks["gibbs"], risks["clipped"], delta / len(lams)
    optimistic = replace(facts, lambda_fixed=False)
    by_alquier, at_alquier = alquier_bounded(clipped, kl, m, each_delta, lams, b).min(0)
    by_lambda = lambda_bound(gibbs, kl, m, delta, best_t(gibbs, kl, m, delta))
    by_catoni, at_catoni = catoni(gibbs, kl, m, each_delta, lams).min(0)
    chosen: dict[str, Number] = {"alquier_bounded": lams[at_alquier], "catoni": lams[at_catoni], "elbo": float(m)}
    for key, title, loss, value, how in (
        ("alquier_optimal", "clipped Hoeffding", "clipped nll", alquier_optimal(clipped, kl, m, delta, b), optimistic),
        ("alquier_bounded", "clipped Hoeffding, lambda of the grid", "clipped nll", by_alquier, facts),
        ("seeger_clipped", "clipped kl-inverse", "clipped nll", seeger_clipped(clipped, kl, m, delta, b), facts),
        ("seeger", "0-1 kl-inverse", "0-1", seeger(gibbs, kl, m, delta), facts),
        ("maurer_pinsker", "0-1 Maurer", "0-1", maurer_pinsker(gibbs, kl, m, delta), facts),
        ("quadratic", "0-1 quadratic", "0-1", quadratic(gibbs, kl, m, delta), facts),
        ("lambda", "0-1 lambda", "0-1", by_lambda, facts),
        ("catoni", "0-1 Catoni, lambda of the grid", "0-1", by_catoni, facts),
        ("elbo", "ELBO at lambda = m", "nll", elbo(risks["nll"], kl, m), facts),
    ):
        risk = gibbs if loss == "0-1" else risks["clipped" if "clipped" in loss else "nll"]
        result = assemble(key, value, how, {"risk": risk, "KL/n": kl / m}, lam=chosen.get(key))
        out.append(Bound(title, KEYS[key], loss, result))
    many = gibbs_error(net, data.x, data.y, certificate_draws, stream(seed, "inverted risk"), budget)
    inverted = monte_carlo_risk(many, certificate_draws, DELTA_MC)
    value = seeger(inverted, kl, m, delta - DELTA_MC)
    terms: dict[str, Number] = {"risk": many, "risk after Monte Carlo": inverted, "KL/n": kl / m}
    result = assemble("seeger", value, replace(facts, risk="inverted"), terms)
    out.append(Bound(f"0-1 kl-inverse, {certificate_draws} draws inverted", "certificate01", "0-1", result))
    about |= {f"train/{k}": v for k, v in risks.items()} | {f"test/{k}": v for k, v in test.items()}
    return out, about


def subgamma(found: PerDraw, m: int) -> dict[str, float]:
    """The sub-gamma fit of C over the grid of lambda (section 3.7); empty where C is 0 or infinite."""
    c = log_c(m * found.bound[:, 1:]).C
    if not bool((c.isfinite() & (c > 0)).all()):
        return {}
    return {f"subgamma/{name}": value for name, value in subgamma_fit(m * found.alphas[1:], c)._asdict().items()}


def loaded(path: Path) -> tuple[Any, Examples, dict[str, Any]]:
    """A trained module, its data, and its configuration; PyTorch's seed is that of the run.

    Raises:
        UserError: no such file, no configuration beside it, a damaged file, or one of another network, prior or m.
    """
    from logsobolev_bounds.module import BayesClassifier

    config_path = path.parent / "config.yaml"
    for needed in (path, config_path):
        if not needed.is_file():
            raise UserError(
                f"{needed} is missing: name the checkpoint in the folder of a run, as `train.py fit` left it"
            )
    config = read_yaml(config_path)
    torch.manual_seed(int(config.get("seed_everything") or 0))
    try:
        module, data = BayesClassifier(**(config.get("model") or {})), Examples(**(config.get("data") or {}))
    except TypeError as error:  # a key that is none of theirs
        raise UserError(f"{config_path}: {str(error).split('() ')[-1]}") from None
    data.setup()
    module.build(data)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["state_dict"])
        module.check_made_with(state)
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        why = (str(error).splitlines() or ["it is empty"])[0]
        raise UserError(f"{path} is no checkpoint of this configuration ({why})") from None
    return module, data, config


def show(results: Sequence[Bound], about: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(
        f"m = {about['m']:.0f}, KL = {about['kl']:.0f}; NLL {about['train/nll']:.3f} on S, {about['test/nll']:.3f} on "
        f"test; 0-1 {about['train/gibbs']:.3f} on S, {about['test/gibbs']:.3f} on test (of single draws)"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("bound", "on", "value", "lambda/m", "kind", "ESS", "why"):
        table.add_column(column, justify="right" if column in ("value", "lambda/m", "ESS") else "left")
    # Bounds share their reasons: each is said once, below.
    numbers: dict[str, int] = {}
    for title, _, loss, each in results:
        own = [r for r in each.reasons if not r.startswith("unreliable")]
        marks = [str(numbers.setdefault(reason, len(numbers) + 1)) for reason in own]
        kind = "[green]certificate[/]" if each.kind == "certificate" else "estimate"
        lam = "" if each.lam is None else f"{each.lam / about['m']:g}"
        ess = "" if each.ess is None else f"{each.ess:.1f}"
        warning = "unreliable" if each.unreliable else ""
        why = ", ".join([*marks, *([warning] if warning else [])])
        table.add_row(title, loss, f"{each.value:.3f}", lam, kind, ess, why)
    console.print(table)
    for reason, number in numbers.items():
        console.print(f"{number}  {reason}", soft_wrap=True)
    if any(each.result.unreliable for each in results):
        console.print(
            "unreliable: C rests on an effective sample size below 10, and is under-estimated", soft_wrap=True
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m logsobolev_bounds.certify", description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--delta", type=float, default=0.05)
    of_run = "(default: the configuration's)"
    parser.add_argument("--prior-draws", type=int, help=f"K of C {of_run}")
    parser.add_argument("--certificate-draws", type=int, help=f"posterior draws of the inverted risk {of_run}")
    parser.add_argument("--prior-not-fixed", action="store_true", help="sigma_p was chosen by looking at the sample")
    parser.add_argument("--selected-over", default="", metavar="WHAT", help="chosen by its bound among, e.g. '3 seeds'")
    parser.add_argument("--examples", type=int, help=f"training examples that C is computed on {of_run}")
    parser.add_argument("--budget-mb", type=int, default=BUDGET // 2**20, help="memory of a chunk (default: 256)")
    args = parser.parse_args(argv)
    if not 0 < args.delta < 1:
        raise UserError(f"--delta is {args.delta}: a confidence lies in (0, 1)")
    if args.budget_mb < 1:
        raise UserError(f"--budget-mb is {args.budget_mb}: it has to be at least 1")
    module, data, _ = loaded(args.ckpt)
    torch.set_num_threads(1)
    prior_draws, examples, certificate_draws = (
        of_configuration if given is None else given
        for given, of_configuration in (
            (args.prior_draws, module.prior_draws),
            (args.examples, module.bound_examples),
            (args.certificate_draws, module.certificate_draws),
        )
    )
    results, about = certificates(
        module.net, data, args.delta, module.lambdas, prior_draws=prior_draws, examples=examples,
        points=module.points, modes=module.covariances, posterior_draws=module.posterior_draws,
        certificate_draws=certificate_draws, p_min=module.p_min, prior_fixed=not args.prior_not_fixed,
        selected_over=args.selected_over, seed=run_seed(), budget=args.budget_mb * 2**20,
    )  # fmt: skip
    show(results, about)
    target = args.ckpt.with_name("bounds.json")
    content = {
        "delta": args.delta,
        **about,
        "bounds": [{"title": b.title, "loss": b.loss, **asdict(b.result)} for b in results],
    }
    write_atomic(target, json.dumps(content, indent=1) + "\n")
    print(target)
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
