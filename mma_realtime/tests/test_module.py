"""The trainer: predictor then classifier, members, a killed run, two processes, and checkpoints of something else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.errors import SearchError
from mma_realtime.models import SMALL
from mma_realtime.module import Detector, load_detector, rate_at
from shared.errors import UserError
from shared.resume import ResumeCheckpoint

torch.set_num_threads(1)
DATA: dict[str, Any] = {
    "bank_size": 40, "noise_seconds": 32.0, "batch_size": 8, "steps_per_epoch": 3, "validation_windows": 16,
    "snr_start": [30.0, 40.0], "snr_end": [20.0, 30.0], "seed": 5, "sample_rate": 1024,
}  # fmt: skip
RESNET: dict[str, Any] = {
    "network": "coherent_resnet", "size": {"widths": (8, 8), "blocks": (1, 1), "groups": 4}, "loss": "bce",
    "optimiser": "adamw", "schedule": "onecycle",
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the measured noise curves, wherever the tests run."""
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "offline")


def trainer(folder: Path, epochs: int = 3, **more: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, **more,
    )  # fmt: skip


def fit(
    folder: Path, model: dict[str, Any], data: dict[str, Any] | None = None, resume: Path | None = None, **more: Any
) -> Detector:
    L.seed_everything(0, verbose=False)
    module = Detector(**model)
    trainer(folder, **more).fit(module, SimulatedBBH(**{**DATA, **(data or {})}), ckpt_path=resume, weights_only=True)
    return module


def everything(module: Detector) -> dict[str, torch.Tensor]:
    """Networks, optimiser, curves, and the place in the data."""
    out = dict(module.state_dict())
    (optimiser,) = module.trainer.optimizers
    for place, state in optimiser.state_dict()["state"].items():
        out |= {f"adam {place} {key}": torch.as_tensor(value) for key, value in state.items()}
    out |= {name: torch.tensor(values) for name, values in module.curves.items()}
    return out | {"places": torch.tensor([module.data.handed_out, module.trainer.global_step])}


class Killed(Exception):
    pass


class Kill(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 7:  # in the third epoch
            raise Killed


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ({"pretrain_steps": 4, "members": 2}, {}),
        ({"pretrain_steps": 6, "schedule": "onecycle"}, {}),  # the checkpoint lies where the phases meet
        (RESNET, {"detectors": 2, "snr_law": "power"}),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(model: dict[str, Any], data: dict[str, Any], tmp_path: Path) -> None:
    whole = everything(fit(tmp_path, model, data))
    saved = tmp_path / "last.ckpt"
    with pytest.raises(Killed):
        fit(tmp_path, model, data, callbacks=[ResumeCheckpoint(saved, 0.0), Kill()])
    torch.manual_seed(99)  # another process has other global numbers
    resumed = everything(fit(tmp_path, model, data, resume=saved))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert whole["places"].tolist() == [9, 9]


class Watch(L.Callback):
    """Copies of the weights before each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_before_zero_grad(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any) -> None:
        self.seen.append({name: p.detach().clone() for name, p in module.named_parameters()})


def test_the_predictor_comes_first_and_the_classifier_begins_as_it(tmp_path: Path) -> None:
    watch = Watch()
    module = fit(tmp_path, {"pretrain_steps": 4, "lr": 1e-2, "schedule": "none"}, callbacks=[watch])
    before, at_end = watch.seen, dict(module.named_parameters())

    def moved(prefix: str, a: dict[str, torch.Tensor], b: dict[str, Any]) -> bool:
        return any(not torch.equal(a[name], b[name]) for name in a if name.startswith(prefix))

    assert moved("predictors.", before[0], before[3])
    assert not moved("members.", before[0], before[3])
    assert moved("members.", before[3], at_end)
    assert not moved("predictors.", before[4], at_end)
    trunk = "0.trunk.0.weight"  # two small steps of Adam away from the predictor's, which is further from its own start
    gap = (before[5][f"members.{trunk}"] - before[4][f"predictors.{trunk}"]).abs().max()
    assert gap < 0.025 < (before[5][f"members.{trunk}"] - before[0][f"members.{trunk}"]).abs().max()
    assert module.begun


def test_members_are_trained_as_if_alone_on_their_own_rows(tmp_path: Path) -> None:
    module = Detector(members=3)
    data = SimulatedBBH(**{**DATA, "batch_size": 12})
    data.setup("fit")
    module.build(data)
    batch = data.batch(0)
    module._trainer = trainer(tmp_path)  # for the step count
    module.loss(batch).backward()
    together = [[p.grad.clone() for p in net.parameters()] for net in module.nets]
    for number, net in enumerate(module.nets):
        net.zero_grad()
        x, label = batch.x[number::3], batch.label[number::3]
        torch.nn.functional.cross_entropy(net(x), label.long()).backward()
        for p, grad in zip(net.parameters(), together[number], strict=True):
            torch.testing.assert_close(p.grad, grad)
    assert not torch.equal(module.nets[0].trunk[0].weight, module.nets[1].trunk[0].weight)


def test_a_run_learns_is_measured_and_can_be_searched_with(tmp_path: Path) -> None:
    L.seed_everything(0, verbose=False)
    module = Detector(lr=2e-3, pretrain_steps=20, members=2, combine="min")
    data = SimulatedBBH(**{**DATA, "steps_per_epoch": 50, "batch_size": 32, "validation_windows": 128})
    own = trainer(tmp_path, 2)
    own.fit(module, data)
    own.test(module, data, verbose=False)
    found = module.results()
    assert found["test/tpr_at_fap_0.01"] > 0.8  # loud signals
    assert found["test/partial_auroc"] > 0.8
    assert 0 < found["test/mass_error"] < 1
    assert found["parameters"] == 49714
    assert found["curve/step"] == [49, 99]
    own.save_checkpoint(tmp_path / "final.ckpt")
    again = load_detector(tmp_path / "final.ckpt", {"sample_rate": 1024, "detectors": ["H1"]})
    x = data.batch(0).x
    module.eval()
    with torch.no_grad():
        assert torch.equal(again.statistic(x), module.statistic(x))
        each = torch.stack([net.statistic(x) for net in module.nets])
        assert torch.equal(again.statistic(x), each.min(0).values)
        assert torch.equal(again.predict_masses(x), module.predict_masses(x))
    for wanted, says in (
        ({"sample_rate": 2048}, "was trained with sample_rate 1024, here it is 2048"),
        ({"detectors": ["H1", "L1"]}, r"was trained with detectors \['H1'\], here it is \['H1', 'L1'\]"),
    ):
        with pytest.raises(SearchError, match=says):
            load_detector(tmp_path / "final.ckpt", wanted)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    saved = tmp_path / "last.ckpt"
    fit(tmp_path, {}, callbacks=[ResumeCheckpoint(saved, 0.0)], epochs=2)
    with pytest.raises(UserError, match="was trained with loss 'cross_entropy', here it is 'bce'"):
        fit(tmp_path, {"loss": "bce"}, resume=saved)
    with pytest.raises(UserError, match="sample_rate"):
        fit(tmp_path, {}, {"sample_rate": 2048}, resume=saved)
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(SearchError, match="does not say how it was trained"):
        load_detector(tmp_path / "other.ckpt")


def test_the_rates_of_a_phase() -> None:
    assert rate_at(50, 100, "none") == 1
    assert [rate_at(k, 100, "cosine") for k in (0, 50, 100)] == pytest.approx([1, 0.5, 0], abs=1e-12)
    cycle = [rate_at(k, 1000, "onecycle") for k in range(1001)]
    assert cycle[0] == pytest.approx(1 / 25)
    assert max(cycle) == pytest.approx(1)
    assert cycle.index(max(cycle)) == 115
    assert cycle[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        ({"network": "resnet"}, {}, "network is 'resnet': use one of deepfilter_shallow"),
        ({"loss": "hinge"}, {}, "loss is 'hinge'"),
        ({"lr": 0.0}, {}, "lr is 0.0"),
        ({"members": 0}, {}, "members is 0"),
        ({"combine": "max"}, {}, "combine is 'max'"),
        ({"members": 5}, {}, "batch_size is 8: 5 members need at least 10"),
        ({"size": {"lenght": 3}}, {}, "lenght"),
        ({"network": "coherent_resnet", "pretrain_steps": 3}, {}, "coherent_resnet has no predictor"),
        ({"pretrain_steps": 9}, {}, "pretrain_steps is 9 of 9 steps"),
        ({"network": "deepfilter_deep"}, {}, "input_length is 1024: DeepFilterDeep needs at least"),
    ],
)
def test_bad_settings_are_one_line(model: dict[str, Any], data: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=says) as caught:
        fit(tmp_path, model, data)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss is nan at step 49: training has diverged; lower model.lr"):
        fit(tmp_path, {"lr": 1e25, "schedule": "none"}, {"steps_per_epoch": 50}, epochs=1)


SCRIPT = """
import os, sys, torch
import pytorch_lightning as L
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.module import Detector
torch.set_num_threads(1)
folder, data = sys.argv[1], eval(sys.argv[2])
pids = []
for rank in range(2):
    os.environ["LOCAL_RANK"] = str(rank)
    if not (pid := os.fork()):
        L.seed_everything(0, verbose=False)
        module = Detector(schedule="none")
        module.taken = []
        whole = module.loss
        module.loss = lambda batch: (module.taken.append(batch.x.sum()), whole(batch))[1]
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0,
        )
        trainer.fit(module, SimulatedBBH(**data))
        torch.save(module.state_dict() | {"taken": torch.stack(module.taken)}, f"{folder}/{rank}.pt")
        os._exit(0)
    pids.append(pid)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in pids))
"""


@pytest.mark.slow
def test_two_processes_share_the_weights_and_have_batches_of_their_own(tmp_path: Path) -> None:
    """And one process that takes the mean of the same two batches' gradients ends where they do."""
    (tmp_path / "two.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
    data = {**DATA, "steps": 6}
    subprocess.run(
        [sys.executable, str(tmp_path / "two.py"), str(tmp_path), repr(data)], env=environment, check=True, timeout=240
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert len(set(first.pop("taken").tolist()) | set(second.pop("taken").tolist())) == 6
    for name, value in first.items():
        assert torch.equal(value, second[name]), name

    L.seed_everything(0, verbose=False)
    alone, windows = Detector(schedule="none"), SimulatedBBH(**data)
    windows.setup("fit")
    alone.build(windows)
    (net,) = alone.nets
    optimiser = torch.optim.Adam(net.parameters(), alone.lr, fused=True)
    for k in range(3):
        interval = windows.snr_interval(k / 6)
        optimiser.zero_grad()
        for rank in range(2):
            batch = windows.windows("train", "train", 2 * k + rank, 8, interval)
            (torch.nn.functional.cross_entropy(net(batch.x), batch.label.long()) / 2).backward()
        optimiser.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(first[f"members.0.{name}"], value, atol=2e-5, rtol=1e-4)


def test_the_small_residual_network_is_configured_by_its_sizes() -> None:
    module = Detector("coherent_resnet", SMALL, loss="bce")
    data = SimulatedBBH(**{**DATA, "detectors": 2})
    module.build(data)
    assert module.nets[0].channels == 2
    assert module.nets[0].input_length == 1024
