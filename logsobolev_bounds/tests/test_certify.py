"""Every bound of a trained network: its value by the formulas, its kind and reasons; the command and its mistakes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from logsobolev_bounds.certify import Bound, certificates, gibbs_error, loaded, main, posterior_risks
from logsobolev_bounds.complexity import grid, per_draw
from logsobolev_bounds.data import Examples
from logsobolev_bounds.models import BayesNet, build, one
from logsobolev_bounds.module import BayesClassifier
from logsobolev_bounds.streams import stream
from shared.errors import UserError

from logsobolev_bounds import bounds

PAPER = Path(__file__).resolve().parent.parent
FEW: dict[str, Any] = {"prior_draws": 6, "examples": 100, "posterior_draws": 7, "certificate_draws": 30}


def examples(**settings: Any) -> Examples:
    data = Examples(**settings)
    data.setup()
    return data


def network(data: Examples, sigma_p: float = 0.3) -> BayesNet:
    torch.manual_seed(0)
    return build("linear", data.inputs, data.classes, sigma_p)


def found(data: Examples, sigma_p: float = 0.3, **settings: Any) -> tuple[dict[str, Bound], dict[str, float]]:
    results, about = certificates(network(data, sigma_p), data, **{**FEW, **settings})
    return {each.key: each for each in results}, about


PLUG_IN = "the empirical risk is a plug-in mean of posterior draws, not inverted"
CENTRED = "the preprocessing uses the sample"
UNFIXED = "the prior was not fixed before the sample was seen"


@pytest.mark.parametrize(
    ("settings", "fixed", "reasons"),
    [
        ({"center": "heldout"}, True, ()),
        ({"center": "none"}, True, ()),
        ({"center": "train"}, True, (CENTRED,)),
        ({"center": "heldout", "scale": "standardised"}, True, (CENTRED,)),
        ({"center": "none"}, False, (UNFIXED,)),
        ({"center": "train"}, False, (UNFIXED, CENTRED)),
    ],
)
def test_only_an_inverted_risk_without_a_look_at_the_sample_certifies(
    settings: dict, fixed: bool, reasons: tuple[str, ...]
) -> None:
    results, _ = found(examples(m=200, **settings), prior_fixed=fixed, modes=("total", "identity", "class_corrected"))
    certificate = results.pop("certificate01").result
    assert certificate.kind == ("estimate" if reasons else "certificate")
    assert certificate.reasons == reasons
    assert set(results) == {
        "lsi", "lsi_euclid", "lsi_corrected", "hoeffding_clip", "alquier_clip", "seeger_clip", "seeger01", "maurer01",
        "quadratic01", "lambda01", "catoni01", "elbo",
    }  # fmt: skip
    for key, each in results.items():
        assert each.result.kind == "estimate", key
        assert PLUG_IN in each.result.reasons, key
        assert (CENTRED in each.result.reasons) == (CENTRED in reasons), key
        assumed = any("log-Sobolev inequality is assumed" in reason for reason in each.result.reasons)
        assert assumed == key.startswith("lsi"), key


def test_a_wide_prior_at_lambda_m_is_an_unreliable_estimate() -> None:
    results, _ = found(examples(center="heldout"), 0.3, lambdas=[1.0], prior_draws=30, examples=400)
    lsi = results["lsi"].result
    assert lsi.kind == "estimate"
    assert lsi.unreliable
    assert lsi.ess < 10
    assert lsi.reasons[-1].startswith("unreliable: effective sample size")
    narrow = found(examples(center="heldout"), 0.01, lambdas=[1.0], prior_draws=30, examples=400)[0]["lsi"].result
    assert narrow.kind == "estimate"
    assert not narrow.unreliable
    assert not any("unreliable" in reason for reason in narrow.reasons)


def test_values_are_those_of_the_formulas() -> None:
    data, delta, p_min = examples(), 0.1, 1e-3
    lambdas = (0.25, 0.5, 1.0)
    net = network(data)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):  # so that bounds lie below 1, where all are the same
        loss = torch.nn.functional.cross_entropy(net(data.x), data.y) + net.kl() / 1200
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    more = {"p_min": p_min, "lambdas": lambdas, "points": 33, "seed": 3}
    listed, about = certificates(net, data, delta, **{**FEW, **more})
    results = {each.key: each for each in listed}
    kl, m = float(net.kl().detach()), 1200
    assert (about["kl"], about["m"]) == (kl, m)
    risks = posterior_risks(net, data.x, data.y, 7, p_min, stream(3, "risk on S"))
    for name in ("nll", "clipped", "gibbs", "ensemble", "ece"):
        assert about[f"train/{name}"] == risks[name]
    on_test = stream(3, "risk on test")
    assert about["test/gibbs"] == posterior_risks(net, data.x_test, data.y_test, 7, p_min, on_test)["gibbs"]
    b, q, gibbs = math.log(1000), risks["clipped"], risks["gibbs"]
    many = posterior_risks(net, data.x, data.y, 30, p_min, stream(3, "inverted risk"))["gibbs"]
    expected = {
        "hoeffding_clip": bounds.alquier_optimal(q, kl, m, delta, b),
        "seeger_clip": b * bounds.seeger(q / b, kl, m, delta),
        "seeger01": bounds.seeger(gibbs, kl, m, delta),
        "maurer01": bounds.maurer_pinsker(gibbs, kl, m, delta),
        "quadratic01": bounds.quadratic(gibbs, kl, m, delta),
        "lambda01": min(float(bounds.lambda_bound(gibbs, kl, m, delta, t / 1e4)) for t in range(1, 20_000)),
        "catoni01": min(float(bounds.catoni(gibbs, kl, m, delta / 3, lam * m)) for lam in lambdas),
        "alquier_clip": min(float(bounds.alquier_bounded(q, kl, m, delta / 3, lam * m, b)) for lam in lambdas),
        "elbo": risks["nll"] + kl / m,
        "certificate01": bounds.seeger(bounds.kl_inverse_upper(many, math.log(2 / 0.01) / 30), kl, m, delta - 0.01),
    }
    stacked = net.draws(6, stream(3, "prior draws"), prior=True)
    for key, mode in (("lsi", "total"), ("lsi_euclid", "identity"), ("lsi_corrected", "class_corrected")):
        draws = per_draw(net, stacked, data.x[:100], data.y[:100], grid(1.0, 33), mode)
        at = {lam: draws.complexity(lam * m, m)[0] for lam in lambdas}
        values = {
            lam: risks["nll"] + (kl + math.log(3 / delta) + c) / (lam * m) for lam, c in at.items()
        }  # the union over three lambdas
        best = min(values, key=values.get)
        expected[key] = values[best]
        terms = results[key].result.terms
        assert terms["C/lambda"] == pytest.approx(at[best] / (best * m), rel=1e-9)
        assert sum(terms.values()) == pytest.approx(results[key].result.value, rel=1e-9)
    for key, value in expected.items():
        near = 1e-7 if key == "lambda01" else 1e-9  # the best t lies between two of ten thousand
        assert results[key].result.value == pytest.approx(float(value), rel=near), key
    assert results["alquier_clip"].result.value > results["hoeffding_clip"].result.value  # of the best lambda
    assert all(results[key].result.value < 0.99 for key in ("seeger01", "maurer01", "quadratic01", "certificate01"))
    assert about["subgamma/v"] > 0
    assert about["subgamma/rms"] < 0.2


def test_risks_are_means_over_one_draw_for_all_examples() -> None:
    data = examples(m=50)
    net = network(data)
    risks = posterior_risks(net, data.x, data.y, 5, 0.05, stream(1, "risk on S"))
    stacked = net.draws(5, stream(1, "risk on S"))
    logits = torch.stack([net.at(one(stacked, k), data.x) for k in range(5)])
    loss = -logits.log_softmax(2)[:, torch.arange(50), data.y]
    assert risks["nll"] == pytest.approx(loss.mean().item(), rel=1e-5)
    assert risks["clipped"] == pytest.approx(loss.clamp_max(math.log(20)).mean().item(), rel=1e-5)
    assert risks["gibbs"] == pytest.approx((logits.argmax(2) != data.y).double().mean().item())
    assert risks["ensemble"] == pytest.approx((logits.softmax(2).mean(0).argmax(1) != data.y).double().mean().item())
    assert 0 <= risks["ece"] <= 1
    assert gibbs_error(net, data.x, data.y, 5, stream(1, "risk on S")) == risks["gibbs"]
    again = posterior_risks(net, data.x, data.y, 5, 0.05, stream(1, "risk on S"), budget=1)
    assert again == pytest.approx(risks, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"delta": 0.01}, "delta is 0.01: it lies below 1, and a certificate spends 0.01 of it on Monte Carlo"),
        ({"delta": 0.005}, "delta is 0.005"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"prior_draws": 0}, "prior_draws is 0: it has to be at least 1"),
        ({"posterior_draws": 0}, "posterior_draws is 0"),
        ({"certificate_draws": 0}, "certificate_draws is 0"),
        ({"examples": 0}, "examples is 0"),
        ({"examples": 11}, "has 1 example"),
        ({"points": 16}, "T is 16"),
        ({"lambdas": [0.3, 1.0]}, "is not on the grid of alpha"),
        ({"modes": ["pooled"]}, "unknown covariance 'pooled'"),
    ],
)
def test_settings_without_a_bound_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        found(examples(m=200), **settings)
    assert "\n" not in str(caught.value)


CONFIG = (
    "model: {network: linear, sigma_p: 0.3, posterior_draws: 5}\ndata: {dataset: digits, m: 150, center: heldout}\n"
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint in a run's folder, as training leaves it."""
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    module = BayesClassifier(sigma_p=0.3)
    module.build(examples(m=150, center="heldout"))
    torch.save({"state_dict": module.state_dict(), "made_with": module.made_with}, folder / "final.ckpt")
    return folder / "final.ckpt"


def learnt_elsewhere(saved: Path, said: str) -> None:
    """A prior of 300 digits, of which 150 taught it, saved as if it were of the first 150: those that it has seen."""
    module = BayesClassifier(sigma_p=0.3, prior_mode="learnt_split")
    module.build(examples(m=300, prior_fraction=0.5, center="heldout"))
    with torch.no_grad():
        for layer in module.net.layers:
            layer.prior_mu.copy_(layer.mu)
    made_with = {**module.made_with}
    if said == "fixed":
        made_with = {**torch.load(saved)["made_with"]}
    torch.save({"state_dict": module.state_dict(), "made_with": made_with}, saved)


def broken(saved: Path, how: str) -> Path:
    config = saved.with_name("config.yaml")
    if how == "missing":
        return saved.with_name("other.ckpt")
    if how == "alone":
        config.unlink()
    if how == "cut":
        saved.write_bytes(saved.read_bytes()[:1000])
    if how == "empty":
        saved.write_bytes(b"")
    if how == "text":
        saved.write_text("not a checkpoint")
    if how == "a list":
        torch.save([1, 2], saved)
    if how == "weights only":
        torch.save({"state_dict": torch.load(saved)["state_dict"]}, saved)
    if how.startswith("learnt"):
        learnt_elsewhere(saved, said="fixed" if how.endswith("fixed") else "learnt_split")
    if how.startswith("before "):
        state = torch.load(saved)
        del state["made_with"][how.removeprefix("before ")]
        torch.save(state, saved)
    if how.startswith("config: "):
        old, new = how.removeprefix("config: ").split(" -> ")
        assert old in CONFIG
        config.write_text(CONFIG.replace(old, new))
    return saved


NO = r"final\.ckpt is no checkpoint of this configuration"
BROKEN: list[tuple[str, list[str], str]] = [
    ("missing", [], r"other\.ckpt is missing: name the checkpoint in the folder of a run, as `train.py fit` left it"),
    ("alone", [], r"config\.yaml is missing: name the checkpoint in the folder of a run"),
    ("cut", [], NO),
    ("empty", [], NO),
    ("text", [], NO),
    ("a list", [], NO),
    ("weights only", [], NO),
    ("config: linear -> mlp", [], NO),
    ("config: sigma_p: 0.3 -> sigma_p: 0.1", [], "made with sigma_p = 0.3, the configuration has 0.1"),
    ("config: m: 150 -> m: 140", [], "made with n = 150, the configuration has 140"),
    ("config: sigma_p: 0.3 -> sigma_p: 0.3, delta: 0.1", [], "made with delta = 0.05, the configuration has 0.1"),
    ("config: sigma_p: 0.3 -> sigma_p: 0.3, prior_mode: learnt_split", [], "a learnt prior needs a share"),
    ("config: center: heldout -> center: train", [], "made with center = heldout, the configuration has train"),
    ("config: m: 150 -> m: 150, scale: standardised", [], "made with scale = unit, the configuration has standardised"),
    ("config: m: 150 -> m: 150, label_noise: 0.2", [], "made with examples = [0-9a-f]{16}, the configuration has"),
    ("learnt", [], "made with prior_mode = learnt_split, the configuration has fixed"),
    ("learnt, said to be fixed", [], "a prior with a mean that was learnt, and the configuration says prior_mode"),
    ("before prior_mode", [], "does not say its prior_mode: it is of an earlier version, train again"),
    ("before examples", [], "does not say its examples: it is of an earlier version"),
    ("config: network -> net", [], r"config\.yaml: got an unexpected keyword argument 'net'"),
    ("config: model: -> model", [], r"config\.yaml, line 1"),
    ("whole", ["--delta", "0.01"], "delta is 0.01"),
    ("whole", ["--delta", "1.5"], "--delta is 1.5: a confidence lies in"),
    ("whole", ["--prior-draws", "0"], "prior_draws is 0"),
    ("whole", ["--examples", "-5"], "examples is -5"),
    ("whole", ["--budget-mb", "0"], "--budget-mb is 0"),
    ("whole", ["--certificat-draw", "9"], "unrecognized arguments: --certificat-draw 9"),
    ("whole", ["--prior-draws", "few"], "argument --prior-draws: invalid int value: 'few'"),
]


@pytest.mark.parametrize(("how", "arguments", "says"), BROKEN)
def test_mistakes_are_one_line(saved: Path, how: str, arguments: Sequence[str], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        main(["--ckpt", str(broken(saved, how)), *arguments])
    assert "\n" not in str(caught.value)
    assert not saved.with_name("bounds.json").exists()


def test_the_command_takes_the_settings_of_the_configuration(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved.with_name("config.yaml").write_text(
        CONFIG.replace("posterior_draws: 5", "posterior_draws: 5, p_min: 0.01, lambdas: [0.5], covariances: [total]")
    )
    assert main(["--ckpt", str(saved), "--prior-draws", "3", "--certificate-draws", "9", "--examples", "100"]) == 0
    written = {each["title"]: each for each in json.loads(saved.with_name("bounds.json").read_text())["bounds"]}
    assert written["LSI, total covariance"]["terms"]["ln(1/delta)/lambda"] == pytest.approx(math.log(20) / 75)
    assert written["clipped kl-inverse"]["value"] <= math.log(100) * (1 + 1e-9)
    assert written["0-1 kl-inverse, 9 draws inverted"]["kind"] == "certificate"
    assert not {"LSI, Euclidean norm", "LSI, class-corrected"} & written.keys()
    assert "m = 150" in capsys.readouterr().out
    few = "posterior_draws: 5, prior_draws: 1, bound_examples: 100, certificate_draws: 11"
    saved.with_name("config.yaml").write_text(CONFIG.replace("posterior_draws: 5", few))
    of_configuration = ("11 draws inverted", 1.0, "100 of the sample's 150 examples")
    for options, (draws, ess, part) in (
        ([], of_configuration),
        (["--prior-draws", "3", "--certificate-draws", "9", "--examples", "90"], ("9 draws", None, "90 of the")),
    ):
        assert main(["--ckpt", str(saved), *options]) == 0
        written = {each["title"]: each for each in json.loads(saved.with_name("bounds.json").read_text())["bounds"]}
        lsi = written["LSI, total covariance"]
        assert any(title.startswith(f"0-1 kl-inverse, {draws}") for title in written)
        assert (lsi["ess"] == 1.0) == (ess == 1.0)  # of one draw it is 1, of several above
        assert any(part in reason for reason in lsi["reasons"])


def test_the_command_says_at_which_lambda(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the grid, as a multiple of m; a bound without lambda has none."""
    assert main(["--ckpt", str(saved), "--prior-draws", "3", "--certificate-draws", "9", "--examples", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("bound "))
    assert header.split("kind")[0].split() == ["bound", "on", "value", "lambda/m"]
    shown = {line[:38].strip(): line[header.index("lambda/m") : header.index("kind")].strip() for line in lines}
    written = {each["title"]: each for each in json.loads(saved.with_name("bounds.json").read_text())["bounds"]}
    for title in ("LSI, total covariance", "0-1 Catoni, lambda of the grid", "clipped Hoeffding, lambda of the grid"):
        assert float(shown[title]) == written[title]["lam"] / 150
        assert float(shown[title]) in (0.25, 0.5, 1, 2)
    assert shown["0-1 kl-inverse"] == ""


def test_the_command_draws_as_validate_does(saved: Path) -> None:
    """By the run's seed: a run of another one is not certified with the numbers that started its own training."""
    saved.with_name("config.yaml").write_text(f"seed_everything: 2\n{CONFIG}")
    assert main(["--ckpt", str(saved), "--prior-draws", "3", "--certificate-draws", "9", "--examples", "100"]) == 0
    written = {each["title"]: each for each in json.loads(saved.with_name("bounds.json").read_text())["bounds"]}
    module, data, _ = loaded(saved)
    few = {"prior_draws": 3, "examples": 100, "posterior_draws": 5, "certificate_draws": 9}
    for seed, same in ((2, True), (0, False)):
        results, _ = certificates(module.net, data, seed=seed, **few)
        for each in results:
            if each.result.C is not None or each.key == "certificate01":
                assert (written[each.title]["terms"] == pytest.approx(each.result.terms, rel=1e-12)) == same, each.title


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--prior-not-fixed"], "the prior was not fixed before the sample was seen"),
        (["--selected-over", "5 values of sigma_p"], "it is the least over 5 values of sigma_p, without a union bound"),
    ],
)
def test_what_only_the_user_knows_is_an_option(saved: Path, arguments: list[str], reason: str) -> None:
    few = ["--prior-draws", "3", "--certificate-draws", "9", "--examples", "100"]
    assert main(["--ckpt", str(saved), *few, *arguments]) == 0
    written = json.loads(saved.with_name("bounds.json").read_text())["bounds"]
    assert {each["kind"] for each in written} == {"estimate"}
    assert all(reason in each["reasons"] for each in written)
    lsi = next(each for each in written if each["title"].startswith("LSI"))
    assert "C and the assumed covariance are estimated on 100 of the sample's 150 examples" in lsi["reasons"]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=PAPER, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
    )  # fmt: skip


@pytest.mark.slow
def test_a_network_from_the_command_line_is_certified(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit = command(
        "train.py", "fit", "--config", "configs/digits_linear.yaml", "--trainer.max_epochs", "2", "--data.m", "300",
        "--data.center", "heldout", "--trainer.enable_progress_bar", "false", "--run_dir", str(folder),
    )  # fmt: skip
    assert fit.returncode == 0, fit.stderr
    done = command("-m", "logsobolev_bounds.certify", "--ckpt", str(folder / "final.ckpt"), "--delta", "0.05",
                   "--prior-draws", "20", "--certificate-draws", "100")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("LSI", "clipped", "0-1", "ELBO"))]
    assert len(rows) == 13
    assert sum("certificate" in row for row in rows) == 1
    assert next(row for row in rows if "certificate" in row).startswith("0-1 kl-inverse, 100")
    assert "unreliable" in done.stdout
    written = json.loads((folder / "bounds.json").read_text())
    assert (written["delta"], written["m"], len(written["bounds"])) == (0.05, 300.0, 13)
    assert {each["kind"] for each in written["bounds"]} == {"certificate", "estimate"}
    assert done.stdout.strip().splitlines()[-1] == str(folder / "bounds.json")
    wrong = command("-m", "logsobolev_bounds.certify", "--ckpt", str(folder / "other.ckpt"))
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert len(wrong.stderr.strip().splitlines()) == 1, wrong.stderr
