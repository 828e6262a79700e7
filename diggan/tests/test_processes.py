"""Two processes over gloo, in float64, against the same updates written out by hand in one."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diggan.data import LimitedImages
from diggan.gradient_gap import DIGRegularizer
from diggan.module import DigGAN
from diggan.training import Batch, adam
from torch import Tensor

EPOCHS, ITERATIONS, WEIGHT = 3, 2, 10.0
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"network": "mlp64", "width": 16, "regulariser": "dig", "weight": WEIGHT, "ema_start": 3},
    "biggan": {"network": "biggan_cifar", "width": 1, "regulariser": "dig", "weight": WEIGHT, "d_steps": 2},
}
DATA: dict[str, dict[str, Any]] = {
    "mlp": {"dataset": "digits", "num_samples": 40, "batch_size": 6, "iterations": ITERATIONS},
    "biggan": {"dataset": "cifar10", "batch_size": 3, "iterations": ITERATIONS},
}
SCRIPT = """
import json, os, sys
from pathlib import Path
import pytorch_lightning as L, torch
from diggan.data import LimitedImages
from diggan.module import DigGAN
from shared.resume import ResumeCheckpoint

torch.set_num_threads(1)
folder, runs = Path(sys.argv[1]), json.loads(sys.argv[2])

class Double(DigGAN):
    def look(self):  # on images in float32, and not what is tested here
        self.curves.setdefault("fid", []).append(float(self.global_rank))

    def on_train_start(self):  # with what was loaded
        own = self.regulariser.named_buffers()
        self.begun = {f"regulariser.{name}": value.clone() for name, value in own}

    def training_step(self, batch, batch_idx):
        batch.x, batch.z = batch.x.double(), batch.z.double()
        super().training_step(batch, batch_idx)

class Last(ResumeCheckpoint):
    def save_if_due(self, trainer):
        if trainer.current_epoch == 2:
            super().save_if_due(trainer)

def fit(name, model, data, resume, devices=2):
    L.seed_everything(0, verbose=False)
    module = Double(**model).double()
    if model["regulariser"] == "lecam":
        module.regulariser.start = 2
    trainer = L.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", devices=devices, logger=False,
        strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[Last(folder / f"{name}.ckpt", 0.0)],
    )
    trainer.fit(module, LimitedImages(**data), ckpt_path=resume and folder / resume, weights_only=True)
    torch.save(module.begun, folder / f"{name}-{rank}-begun.pt")
    torch.save(module.state_dict() | {"curve": torch.tensor(module.curves["fid"])}, folder / f"{name}-{rank}.pt")

def processes(count, runs):
    global rank
    pids = []
    for rank in range(count):
        os.environ["LOCAL_RANK"] = str(rank)
        if not (pid := os.fork()):
            for run in runs:
                fit(*run, devices=count)
            os._exit(0)
        pids.append(pid)
    return any([os.waitpid(pid, 0)[1] for pid in pids])

sys.exit(any([processes(*some) for some in runs]))
""".replace("EPOCHS", str(EPOCHS))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> tuple[Path, str]:
    """Folder of what every process ended with, and what was logged: one process alone, then two, then one again."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "two.py").write_text(SCRIPT)
    DATA["biggan"]["root"] = str(toy_data)
    lecam = {**MODELS["mlp"], "regulariser": "lecam"}

    def small(suffix: str, file: str | None = None) -> list[list[Any]]:
        """[name, model, data, checkpoint to go on from] of perceptrons."""
        models = {"mlp": MODELS["mlp"], "lecam": lecam}
        resumed = {n: None if file is None else f"{n}{file}.ckpt" for n in models}
        return [[n + suffix, m, DATA["mlp"], resumed[n]] for n, m in models.items()]

    biggan = ["biggan", MODELS["biggan"], DATA["biggan"], None]
    two = [biggan, *small(""), *small(" resumed", ""), *small(" from one", " one")]
    runs = [[1, small(" one")], [2, two], [1, small(" from two", "")]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    done = subprocess.run(
        [sys.executable, str(folder / "two.py"), str(folder), json.dumps(runs)],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stderr


@pytest.fixture(scope="module")
def states(played: tuple[Path, str]) -> dict[str, list[dict[str, Tensor]]]:
    """What both processes ended with: networks as above, and perceptrons that went on from their last epoch's start."""
    names = (*MODELS, "lecam", "mlp resumed", "lecam resumed")
    return {name: [torch.load(played[0] / f"{name}-{r}.pt", weights_only=True) for r in range(2)] for name in names}


def batches(name: str, module: DigGAN) -> list[list[Batch]]:
    """[iteration][process]."""
    sets = []
    for rank in range(2):
        torch.manual_seed(0)
        data = LimitedImages(**DATA[name])
        data.setup()
        data.plan_options = module.plan_options()
        data.seed += 1_000_003 * rank
        sets.append(data)
    out = [[data.batch(k) for data in sets] for k in range(EPOCHS * ITERATIONS)]
    for batch in (batch for both in out for batch in both):
        batch.x, batch.z = batch.x.double(), batch.z.double()
    return out


def by_hand(name: str) -> tuple[DigGAN, list[Tensor]]:
    """Every update from gradients averaged over both processes' batches; smoothed norms [2B] of each process."""
    torch.manual_seed(0)
    module = DigGAN(**MODELS[name]).double()
    nets = [(module.game.g, module.game.d), copy.deepcopy((module.game.g, module.game.d))]
    opts = [(adam(g, module.lr_g), adam(d, module.lr_d)) for g, d in nets]
    smoothed: list[Any] = [None, None]

    def update(losses: list[Tensor], side: int) -> None:
        grads = [torch.autograd.grad(loss, list(pair[side].parameters())) for loss, pair in zip(losses, nets)]
        for pair, opt in zip(nets, opts):
            for p, *both in zip(pair[side].parameters(), *grads):
                p.grad = (sum(both) / 2).contiguous()  # as the fused step of Adam takes it to be
            opt[side].step()

    for own in batches(name, module):
        for step in range(module.d_steps):
            losses = []
            for rank, ((g, d), batch) in enumerate(zip(nets, own)):
                gy = () if batch.gy is None else (batch.gy[step],)
                with torch.no_grad():
                    fake = g(batch.z[step], *gy)
                x = torch.cat([fake, batch.x[step]]).requires_grad_()
                y = () if batch.y is None else (torch.cat([*gy, batch.y[step]]),)
                at_fake, at_real = d(x, *y).flatten().chunk(2)
                loss = (1 - at_real).relu().mean() + (1 + at_fake).relu().mean()
                if step == 0:
                    (grad,) = torch.autograd.grad(at_fake.sum() + at_real.sum(), x, create_graph=True)
                    s = grad.flatten(1).norm(dim=1)
                    s = s if smoothed[rank] is None else s / 2 + smoothed[rank] / 2
                    smoothed[rank] = s.detach()
                    s_fake, s_real = s.chunk(2)
                    loss = loss + WEIGHT * (s_fake - s_real).square().mean()
                losses.append(loss)
            update(losses, 1)
        losses = []
        for (g, d), batch in zip(nets, own):
            gy = () if batch.gy is None else (batch.gy[-1],)
            losses.append(-d(g(batch.z[-1], *gy), *gy).mean())
        update(losses, 0)
    return module, smoothed


@pytest.mark.parametrize("name", MODELS)
def test_every_update_is_by_the_mean_of_the_processes_gradients(name: str, states: dict[str, Any]) -> None:
    """Parameters after six iterations, twelve updates of D of which six have the penalty, equal those of updates by
    hand in one process: D's gradient is the mean over the processes of the gradients of adversarial loss + weight *
    penalty, each on its own batch and its own smoothed norms. float64, relative 1e-8 (absolute 1e-10): the order of
    sums is all that differs. Both processes have the same parameters to the last bit.
    """
    module, smoothed = by_hand(name)
    first, second = states[name]
    torch.manual_seed(0)
    start = DigGAN(**MODELS[name]).game.d.state_dict()
    for key, value in module.named_parameters():
        assert torch.equal(first[key], second[key]), key
        if key.startswith(("game.g.", "game.d.")):
            torch.testing.assert_close(first[key], value, rtol=1e-8, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}")
    assert not any(
        torch.allclose(first["game.d." + key], start[key].double()) for key in start if key.endswith("weight")
    )
    for state, expected in zip((first, second), smoothed):
        found = torch.cat([state["game.regularisers.0.s_fake"], state["game.regularisers.0.s_real"]])
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert not torch.allclose(smoothed[0], smoothed[1], rtol=1e-3)


def test_two_processes_are_one_with_both_batches(states: dict[str, Any]) -> None:
    """Losses and penalty are means over the batch and pair by place, so that two processes with B images each are one
    process with both batches behind each other, its smoothed norms those of both; as above in tolerance.
    """
    torch.manual_seed(0)
    module = DigGAN(**MODELS["mlp"]).double()
    game = module.game
    opts = adam(game.g, module.lr_g), adam(game.d, module.lr_d)
    for first, second in batches("mlp", module):
        x, z = torch.cat([first.x, second.x], 1), torch.cat([first.z, second.z], 1)
        game.iterate(Batch(x, None, z, None), *opts)
    for key, value in game.named_parameters():
        torch.testing.assert_close(states["mlp"][0]["game." + key], value, rtol=1e-8, atol=1e-10)
    for key in ("s_fake", "s_real"):
        both = torch.cat([state[f"regulariser.{key}"] for state in states["mlp"]])
        torch.testing.assert_close(both, getattr(module.regulariser, key), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("name", "own"), [("mlp", "s_real"), ("lecam", "anchor_real")])
def test_resumed_processes_end_with_the_same_bits(name: str, own: str, states: dict[str, Any]) -> None:
    """Each with its own smoothed norms or anchors, although one file is saved."""
    for whole, resumed in zip(states[name], states[f"{name} resumed"]):
        assert whole.keys() == resumed.keys()
        for key in whole:
            assert key == "curve" or torch.equal(whole[key], resumed[key]), key
    assert len(states[f"{name} resumed"][0]["curve"]) == len(states[name][0]["curve"]) == EPOCHS + 1
    first, second = (state[f"regulariser.{own}"] for state in states[name])
    assert not torch.allclose(first, second, rtol=1e-6)


def test_other_numbers_of_processes_start_the_memory_of_regularisers_anew(played: tuple[Path, str]) -> None:
    """Norms and anchors are each process's own: with another number of them nobody goes on with the first one's."""
    folder, said = played

    def begun(name: str, rank: int) -> dict[str, Tensor]:
        return torch.load(folder / f"{name}-{rank}-begun.pt", weights_only=True)

    for kind, own in (("mlp", "s_real"), ("lecam", "anchor_real")):
        key = f"regulariser.{own}"
        for rank in range(2):
            assert begun(f"{kind} resumed", rank)[key].numel() > 0
            assert begun(f"{kind} from one", rank)[key].numel() == 0
        assert begun(f"{kind} from two", 0)[key].numel() == 0
        for name, ranks in ((f"{kind} from one", 2), (f"{kind} from two", 1)):
            for rank in range(ranks):
                ended = torch.load(folder / f"{name}-{rank}.pt", weights_only=True)[key]
                assert ended.shape == ((6,) if kind == "mlp" else ())
                assert ended.isfinite().all()
    assert said.count("the checkpoint is of 1 process, there are 2 here: what the regulariser remembers") == 2
    assert said.count("the checkpoint is of 2 processes, there is 1 here: what the regulariser remembers") == 2


def test_what_regularisers_remember_is_left_out_of_what_processes_share() -> None:
    module = DigGAN(regulariser="dig")
    assert isinstance(module.regulariser, DIGRegularizer)
    assert sorted(module._ddp_params_and_buffers_to_ignore) == [
        "game.regularisers.0.s_fake", "game.regularisers.0.s_real", "regulariser.s_fake", "regulariser.s_real",
    ]  # fmt: skip
    assert len(DigGAN(regulariser="lecam")._ddp_params_and_buffers_to_ignore) == 4
    assert DigGAN(regulariser="dig", weight="auto")._ddp_params_and_buffers_to_ignore[0].endswith("s_fake")
    assert DigGAN(regulariser="r1")._ddp_params_and_buffers_to_ignore == []
