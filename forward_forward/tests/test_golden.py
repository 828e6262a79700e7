"""Against reference numbers made independently (provenance and tolerances: tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forward_forward.collaboration import collaborate, gamma_mask, losses, residuals
from forward_forward.entropy import entropy_report
from forward_forward.goodness import normalise, row_scale
from forward_forward.model import ForwardForwardNet
from forward_forward.peer import PeerNormalisation

GOLDEN = Path(__file__).parent / "golden"
THETA = {"sum_l2": 2.0, "sum_rms": 14.0, "mean_l2": 0.1, "mean_rms": 1.0}


def load(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def build(weights: list[Any], biases: list[Any], classes: int = 10, **options: Any) -> ForwardForwardNet:
    net = ForwardForwardNet(weights[0].shape[0] - classes, [len(b) for b in biases], classes, **options)
    net = net.to(weights[0].dtype)
    with torch.no_grad():
        for p, w in zip([*net.weights, *net.biases], [*weights, *biases]):
            p.copy_(w)
    return net


def close(ours: torch.Tensor, golden: torch.Tensor, rtol: float, atol: float) -> None:
    torch.testing.assert_close(ours.detach().reshape(golden.shape).to(golden.dtype), golden, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 1e-9, 1e-12), (torch.float32, 1e-4, 1e-6)])
@pytest.mark.parametrize("case", sorted(THETA))
@torch.no_grad()
def test_collaboration(case: str, dtype: torch.dtype, rtol: float, atol: float) -> None:
    golden = load(f"collab_{case}")
    kind, norm = case.split("_")
    d = {key: value.to(dtype) if value.is_floating_point() else value for key, value in golden.items()}
    net = build([d[f"w{i}"] for i in range(3)], [d[f"b{i}"] for i in range(3)], kind=kind, norm=norm)
    images, pairs = d["x"][:, 10:], torch.stack([d["y"], d["y_neg"]])
    theta = torch.full((3,), THETA[case], dtype=dtype)
    passed = net.pairs(images, pairs)
    close(passed.goodness, golden["goodness"], rtol, atol)
    for mode in ("none", "prev", "all"):
        logits = collaborate(passed.goodness, gamma_mask(mode, 3), 1.0, theta)
        r = residuals(logits.clone(), 7, 1.0)
        close(losses(logits, 7, 1.0), golden[f"{mode}.loss"], rtol, atol)
        for i in range(3):
            close(logits[:, i], golden[f"{mode}.logit{i}"], rtol, atol * 10 if dtype == torch.float32 else atol)
            dw, db = net.layer_gradient(passed, i, r[:, i])
            close(dw, golden[f"{mode}.grad_w{i}"], rtol, atol)
            close(db, golden[f"{mode}.grad_b{i}"], rtol, atol)
    report = entropy_report(golden["goodness"][:7])
    close(report["total"], golden["ent.total"], 1e-9, 1e-12)
    close(report["between_layers"], golden["ent.between_layers"], 1e-9, 1e-12)
    close(report["within_per_layer"], golden["ent.within_per_layer"], 1e-9, 1e-12)
    close(net.goodness_all_labels(images), golden["goodness_all_labels"], rtol, atol)
    assert torch.equal(net.goodness_all_labels(images).sum(2).argmax(1), golden["pred"])
    for i in range(3):  # one alternating sweep on one batch, gamma with the layers already updated
        passed = net.pairs(images, pairs)
        r = residuals(collaborate(passed.goodness, gamma_mask("all", 3), 1.0, theta), 7, 1.0)
        dw, db = net.layer_gradient(passed, i, r[:, i])
        net.weights[i] -= 0.1 * dw
        net.biases[i] -= 0.1 * db
    for i in range(3):
        close(net.weights[i], golden[f"alt_sweep.w{i}"], rtol, atol)
        close(net.biases[i], golden[f"alt_sweep.b{i}"], rtol, atol)


@torch.no_grad()
def test_greedy_training_of_the_public_tiny_baseline() -> None:
    d = load("greedy_mean")
    net = build([d["w0"].T, d["w1"].T], [d["b0"], d["b1"]], kind="mean", norm="l2", strength=float(d["x"].max()))
    images, pairs = d["x"][:, 10:], torch.stack([d["y"], d["y_neg"]])
    n = len(images)
    for i in range(2):
        optimiser = torch.optim.Adam([net.weights[i], net.biases[i]], lr=0.03)
        for step in range(5):
            passed = net.pairs(images, pairs, up_to=i + 1)
            logits = passed.goodness[:, i : i + 1] - 2.0
            dw, db = net.layer_gradient(passed, i, residuals(logits.clone(), n, 1.0)[:, 0])
            if step == 0:
                close(passed.h[i][:n], d[f"h_pos{i}"], 1e-4, 1e-6)
                close(passed.goodness[:n, i], d[f"g_pos{i}"], 1e-4, 1e-6)
                close(passed.goodness[n:, i], d[f"g_neg{i}"], 1e-4, 1e-6)
                close(losses(logits, n, 1.0), d[f"loss{i}"], 1e-4, 1e-6)
                close(dw.T, d[f"grad_w{i}"], 1e-4, 1e-6)
                close(db, d[f"grad_b{i}"], 1e-4, 1e-6)
            net.weights[i].grad, net.biases[i].grad = dw, db
            optimiser.step()
        close(net.weights[i].T, d[f"w{i}_after"], 1e-4, 1e-6)
        close(net.biases[i], d[f"b{i}_after"], 1e-4, 1e-6)
    g = net.goodness_all_labels(images)
    close(g, d["goodness_all_labels"], 1e-4, 1e-6)
    assert torch.equal(g.sum(2).argmax(1), d["pred"])


@torch.no_grad()
def test_peer_normalisation_and_read_out() -> None:
    d = load("peer_norm")
    net = build([d[f"w{i}"].T for i in range(3)], [d[f"b{i}"] for i in range(3)])
    net.head.copy_(d["w_cls"].T)
    images, n = d["x"][:, 10:], 6
    passed = net.pairs(images, torch.stack([d["y"], d["y_neg"]]))
    logits = passed.goodness - 24.0
    peer = PeerNormalisation([24, 24, 24], "loss")
    loss = losses(logits, n, 1.0)
    peer_loss = torch.zeros(())
    for i in range(3):
        ungated = peer.gradient(i, passed.h[i][:n].sum(0), n)
        m = getattr(peer, f"mean{i}")
        peer_loss += (m.mean() - m).square().mean()
        dw, db = net.layer_gradient(passed, i, residuals(logits.clone(), n, 1.0)[:, i], ungated)
        close(loss[i], d[f"ff_loss{i}"], 1e-4, 1e-6)
        close(m, d[f"running_mean{i}"], 1e-4, 1e-6)
        close(dw.T, d[f"grad_w{i}"], 1e-4, 1e-6)
        close(db, d[f"grad_b{i}"], 1e-4, 1e-6)
    z = net.neutral_activities(images)
    cls_loss = torch.nn.functional.cross_entropy(z @ net.head, d["y"])
    close(cls_loss, d["cls_loss"], 1e-4, 1e-6)
    close(peer_loss, d["peer_loss_sum"], 1e-4, 1e-6)
    close(loss.sum() + 0.03 * peer_loss + cls_loss, d["total_loss"], 1e-4, 1e-6)
    p = (z @ net.head).softmax(1) - torch.nn.functional.one_hot(d["y"], 10)
    close((z.T @ p / n).T, d["grad_cls"], 1e-4, 1e-6)


def test_hintons_form_of_peer_normalisation_is_5_widths_stronger() -> None:
    active = torch.linspace(0, 3, 24)
    loss, hinton = (PeerNormalisation([24], form).gradient(0, active, 6) for form in ("loss", "hinton"))
    torch.testing.assert_close(hinton, loss * 5 * 24)


@torch.no_grad()
def test_energies_for_all_labels() -> None:
    d = load("energy_test")
    net = build([d[f"w{i}"] for i in (1, 2, 3)], [d[f"b{i}"] for i in (1, 2, 3)])
    g = net.goodness_all_labels(d["x"][:, 10:])
    close(g, d["energy_all_labels"], 1e-5, 1e-5)
    assert torch.equal(g[:, :, 1:].sum(2).argmax(1), d["energy_guess"])


def test_rows_that_are_dead_stay_finite() -> None:
    h = torch.zeros(3, 8)
    for norm in ("rms", "l2", "none"):
        assert torch.equal(normalise(h, norm), h)  # type: ignore[arg-type]
        assert torch.isfinite(row_scale(h.square().sum(1), 8, norm)).all()  # type: ignore[arg-type]
