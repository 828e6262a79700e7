"""Training: it learns, it is the same again and after a break, its checkpoint is enough, and what is wrong says so."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from shared.errors import UserError
from spatial_textvqa.data.encode import Encoder, Encoding
from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.data.scenes import Settings, draw
from spatial_textvqa.example import example_scene, retold
from spatial_textvqa.experiment import data_fingerprint, run
from spatial_textvqa.module import SpatialTextVQA, load, network_config

MODEL: dict[str, Any] = {
    "dim": 24, "ffn": 24, "layers": "ns", "text_layers": 0, "dropout": 0.0, "init": "default", "lr": 3e-3, "warmup": 5,
    "warmup_from": 0.0, "drops": [],
}  # fmt: skip
DATA: dict[str, Any] = {
    "train_samples": 96,
    "val_samples": 16,
    "test_samples": 24,
    "feature_width": 16,
    "batch_size": 32,
}
CONFIG: dict[str, Any] = {
    "model": MODEL,
    "data": DATA,
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "gradient_clip_val": 1.0, "log_every_n_steps": 100},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {name: {**CONFIG[name], **sections.get(name, {})} for name in CONFIG}


def test_a_run_reports_what_the_claims_read_and_again_the_same(tmp_path: Path) -> None:
    config = changed(model={"picture": True})
    first, second, other = (run(config, seed, tmp_path / str(n)) for n, seed in enumerate((0, 0, 1)))
    for out in (first, second, other):
        assert out.pop("train/cpu_seconds") > 0
    assert first == second != other
    numbers = (
        "test/spatial", "test/kind/on", "test/grounding", "test/reference_attention", "test/mean_degree", "test/anls",
        "flipped/accuracy", "flipped/changed", "flipped/both", "transposed/spatial", "other_scene/spatial",
        "more_objects/spatial", "val/spatial",
    )  # fmt: skip
    for name in numbers:
        assert isinstance(first[name], float), name
    assert len(first["curve/val/spatial"]) == 2
    assert len(first["picture/boxes"]) == 24
    edges = np.array(first["picture/edges"]).reshape(-1, 4)
    assert (edges[:, :2] < 12).all()
    assert ((edges[:, 3] > 0) & (edges[:, 3] <= 1)).all()
    sample = example_scene(0, DATA["feature_width"], "none", 6)
    picture, answer = retold(first, sample)
    assert answer.lines(picture)[0].startswith("answer: ")
    assert len(answer.candidates[0]) == 5


def test_the_log_has_the_questions_a_second_of_each_epoch_and_the_results_do_not() -> None:
    import pytorch_lightning as L
    from pytorch_lightning.loggers import CSVLogger

    class Kept(CSVLogger):
        rates: list[float] = []  # noqa: RUF012

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            self.rates += [value for name, value in metrics.items() if name == "train/samples_per_second"]

    module, logger = SpatialTextVQA(**MODEL), Kept("unused")
    options = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=logger, num_sanity_val_steps=0, **options)
    began = time.perf_counter()
    trainer.fit(module, TextVQAData(**DATA))
    assert len(logger.rates) == 2
    assert min(logger.rates) > DATA["train_samples"] / (time.perf_counter() - began)
    assert not [name for name in module.results() if "samples_per_second" in name]


def test_a_broken_run_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    from shared.cli import train_and_test

    def trained(folder: Path, epochs: int) -> dict[str, Any]:
        config = changed(trainer={"max_epochs": epochs}, model={"keep_best": "accuracy", "probes": False})
        about = (folder, "spatial_textvqa", "x", "fit")
        return train_and_test(SpatialTextVQA, TextVQAData, config, 0, *about, every_seconds=0)

    whole = trained(tmp_path / "whole", 3)
    trained(tmp_path / "broken", 2)
    assert (tmp_path / "broken" / "last.ckpt").is_file()
    resumed = trained(tmp_path / "broken", 3)
    for out in (whole, resumed):
        del out["train/cpu_seconds"]
    assert resumed == whole
    # To the bit: accuracies of a few scenes are equal by chance.
    one, other = (torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("whole", "broken"))
    one, other = one["state_dict"], other["state_dict"]
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_what_is_reported_is_the_look_whose_weights_were_kept() -> None:
    module = SpatialTextVQA(**MODEL)
    module.net = torch.nn.Linear(1, 1)
    module.curves = {"val/accuracy": [0.3, 0.5, 0.4], "val/anls": [0.1, 0.2, 0.9]}
    module.best = {"value": 0.5, "look": 1, "weights": {}}
    assert (module.results()["val/accuracy"], module.results()["val/anls"]) == (0.5, 0.2)
    module.best = {}
    assert (module.results()["val/accuracy"], module.results()["val/anls"]) == (0.4, 0.9)


def test_only_berts_own_weights_learn_slowly() -> None:
    module = SpatialTextVQA(**(MODEL | {"text_weights": "bert.pt", "text_lr": 0.1}))
    module.net = torch.nn.Module()
    module.net.question = torch.nn.Module()
    module.net.question.bert, module.net.question.out = torch.nn.Linear(2, 3), torch.nn.Linear(3, 4)
    module._trainer = SimpleNamespace(estimated_stepping_batches=10, precision="32-true")
    fast, slow = module.configure_optimizers()["optimizer"].param_groups
    assert [p.shape for p in slow["params"]] == [(3, 2), (3,)]
    assert [p.shape for p in fast["params"]] == [(4, 3), (4,)]
    assert slow["lr"] == pytest.approx(0.1 * fast["lr"])


def test_it_learns_the_words_on_a_few_scenes() -> None:
    torch.manual_seed(0)
    data = TextVQAData(**(DATA | {"kinds": ["on"], "ocr_appearance": "object", "train_samples": 32}))
    data.setup()
    from spatial_textvqa.answers import bce_loss
    from spatial_textvqa.evaluation import measure
    from spatial_textvqa.model import SAM4C

    net = SAM4C(network_config(SpatialTextVQA(**MODEL).options, data))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    batch = data.train.batch(torch.arange(32))
    for _ in range(120):
        optimiser.zero_grad()
        bce_loss(net(batch), batch["targets"], batch["loss_mask"]).backward()
        optimiser.step()
    found = measure(net, data.vocabulary, data.train)
    assert found["accuracy"] > 0.9
    assert found["textvqa"] > 0.9
    assert found["grounding"] > 0.9


def test_a_checkpoint_is_all_that_answering_needs(tmp_path: Path) -> None:
    from shared.cli import HouseCLI

    cli = HouseCLI(
        SpatialTextVQA, TextVQAData, paper="spatial_textvqa", run_dir=tmp_path, args={**CONFIG, "seed_everything": 0},
        run=False, quiet=True,
    )  # fmt: skip
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    cli.trainer.save_checkpoint(tmp_path / "final.ckpt")
    net, vocabulary, settings = load(tmp_path / "final.ckpt")
    assert not net.training
    assert vocabulary.words == cli.datamodule.vocabulary.words
    encoder = Encoder(Encoding.of(settings["encoding"]), vocabulary)
    assert encoder.encoding == cli.datamodule.encoding
    assert settings["scenes"] == {"ocr_appearance": "none", "objects": cli.datamodule.scenes.objects}
    batch = encoder.collate([draw(Settings(), 9, [0]).sample(0)])
    with torch.no_grad():
        ours, theirs = net(batch), cli.model.eval().net(batch)
    torch.testing.assert_close(ours, theirs)


def test_files_that_are_no_checkpoint_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "a.ckpt").write_text("hello")
    with pytest.raises(UserError, match="not a checkpoint, or a damaged one"):
        load(tmp_path / "a.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "b.ckpt")
    with pytest.raises(UserError, match="not one of spatial_textvqa"):
        load(tmp_path / "b.ckpt")


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("model", "lr", 0.0, "lr is 0"),
        ("model", "warmup", -1, "warmup is -1"),
        ("model", "beam", 0, "beam is 0"),
        ("model", "text_layers", -1, "text_layers is -1: at least 0"),
        ("model", "layers", "nx", "layers is 'nx'"),
        ("model", "keep_best", "bleu", "keep_best is bleu: the looks give accuracy"),
        ("model", "depth", 2, "unknown key 'model.depth'"),
        ("data", "ocr_appearance", "all", "ocr_appearance is 'all'"),
    ],
)
def test_bad_settings_are_one_line(section: str, key: str, value: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        run(changed(**{section: {key: value}}), 0, tmp_path)


def test_a_loss_that_is_no_number_says_what_to_lower(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss is .* lower model\.lr"):
        run(changed(model={"lr": 1e30, "warmup": 0}, trainer={"max_epochs": 3, "gradient_clip_val": None}), 0, tmp_path)


def test_scenes_are_synthetic_and_their_name_says_so() -> None:
    assert data_fingerprint(CONFIG)[1] == "synthetic"
