"""Every configuration is whole: planned, claimed, and one batch of it runs."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared.errors import UserError
from shared.runs.plan import load_plan, merge, read_yaml
from shared.runs.reproduce import read_ledger
from spatial_textvqa.checkpoint import load_bert
from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.experiment import data_fingerprint, run
from spatial_textvqa.model import SAM4C, parameter_counts
from spatial_textvqa.module import SpatialTextVQA, network_config

from spatial_textvqa import checkpoint, figures

HERE = Path(__file__).resolve().parent.parent
TIERS = ("quick", "cpu", "gpu", "paper")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def config(*files: str, **sections: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for file in files:
        out = merge(out, read_yaml(HERE / "configs" / file))
    return merge(out, sections)


@pytest.mark.parametrize("tier", TIERS)
def test_the_ledger_names_experiments_of_the_tier(tier: str) -> None:
    plan = load_plan(HERE, tier)
    ledger = read_ledger(HERE, plan)
    assert ledger is not None
    assert any(tier in claim.tiers for claim in ledger.claims)


def test_only_the_servers_own_numbers_are_of_the_test_split() -> None:
    """Its answers are not public: an order between two runs of ours has to be one of the validation split."""
    ledger = read_ledger(HERE, load_plan(HERE, "paper"))
    assert ledger is not None
    of_test = [c for c in ledger.claims if "paper" in c.tiers and c.metric.name.startswith("test/")]
    assert {c.rule.kind for c in of_test} == {"within"}


def test_a_gap_is_planned_in_both_settings_of_appearance() -> None:
    for tier in ("quick", "cpu"):
        names = {experiment.name for experiment in load_plan(HERE, tier).experiments}
        assert {"c3_none", "full_none", "c3_object", "full_object"} <= names


def test_ours_and_the_baseline_differ_in_one_setting() -> None:
    for tier in ("quick", "cpu"):
        found = {experiment.name: experiment for experiment in load_plan(HERE, tier).experiments}
        for look in ("none", "object"):
            ours, full = found[f"c3_{look}"].config, found[f"full_{look}"].config
            assert merge(ours, {"model": {"layers": "nnn"}}) == full
            assert ours["data"]["ocr_appearance"] == look


def test_full_attention_is_tuned_alike_in_both_settings_to_both_sides_of_its_rate() -> None:
    """Chosen among the same rates and numbers of scenes, the usual ones among them, with a rate above and one below."""
    plan = load_plan(HERE, "cpu")
    planned = {experiment.name: experiment for experiment in plan.experiments}
    chosen = {selection.name: selection for selection in plan.selections}
    for look, name in (("none", "full_tuned"), ("object", "full_tuned_object")):
        among = [planned[each].config for each in chosen[name].among]
        assert {(c["model"]["lr"], c["data"]["train_samples"]) for c in among} == {
            (2e-3, 6000), (4e-3, 6000), (1e-3, 18000), (2e-3, 18000),
        }  # fmt: skip
        assert {(c["model"]["layers"], c["data"]["ocr_appearance"]) for c in among} == {("nnn", look)}
        assert {tuple(planned[each].seeds) for each in chosen[name].among} == {(0, 1, 2)}
        assert chosen[name].by == "val/spatial"


def test_every_control_that_is_drawn_is_planned_and_the_other_way_round() -> None:
    planned = load_plan(HERE, "cpu").experiments
    without_appearance = {
        e.name for e in planned if e.config["data"].get("ocr_appearance") == "none" and "sentences" not in e.name
    }
    assert set(figures.CONTROLS) == without_appearance


def test_every_axis_of_the_ablation_is_planned() -> None:
    plan = {experiment.name: experiment.config for experiment in load_plan(HERE, "paper").experiments}
    base = plan["textvqa_c3"]
    assert len({json.dumps(c, sort_keys=True) for c in plan.values()}) == len(plan)
    for name, each in plan.items():
        if name.startswith(("layers_", "context_", "quadrants_", "control_", "threshold_", "beam")):
            different = [
                (section, key)
                for section in ("model", "data")
                for key in {**each[section], **base[section]}
                if each[section].get(key) != base[section].get(key)
            ]
            assert 1 <= len(different) <= 2, name


@pytest.mark.slow
@pytest.mark.parametrize("files", [("quick.yaml",), ("quick.yaml", "ten_epochs.yaml", "sentences.yaml")], ids=len)
def test_one_batch_of_scenes(files: tuple[str, ...], tmp_path: Path) -> None:
    few = {"train_samples": 64, "val_samples": 16, "test_samples": 16}
    out = run(config(*files, data=few, trainer={"fast_dev_run": True}), 0, tmp_path)
    assert 0 <= out["test/accuracy"] <= 1


@pytest.mark.slow
def test_one_batch_of_the_full_size_scenes_with_a_narrower_network(tmp_path: Path) -> None:
    few = {"train_samples": 8, "val_samples": 4, "test_samples": 4, "batch_size": 4, "feature_width": 32}
    narrow = {"dim": 48, "ffn": 48}
    trainer = {"fast_dev_run": True, "accelerator": "cpu"}  # its precision stays bf16-mixed, with clipped gradients
    out = run(config("quick.yaml", "full_size.yaml", data=few, model=narrow, trainer=trainer), 0, tmp_path)
    assert 0 <= out["test/accuracy"] <= 1


def test_the_full_size_scenes_train_the_published_network_but_for_two_tables() -> None:
    """What is counted is what `full_size.yaml` says: all of 96,633,224 but BERT's embeddings and the 5,000 answers."""
    made = config("quick.yaml", "full_size.yaml", data={"train_samples": 1, "val_samples": 1, "test_samples": 1})
    data = TextVQAData(**made["data"])
    data.setup()
    module = SpatialTextVQA(**made["model"])
    with torch.device("meta"):
        found = parameter_counts(SAM4C(network_config(module.options, data)))
    words = data.encoding.question_words
    golden = json.loads((HERE / "tests/golden/schedule_and_parameters.json").read_text())["parameter_counts"]
    own = 768 * (len(words) + data.encoding.question_length + 2)
    assert found["question"] == golden["text_bert_encoder"] + own
    assert found["classifier"] == len(data.vocabulary) * 769
    tables = golden["text_bert_embeddings"] + golden["classifier"]
    assert found["total"] == 96_633_224 - tables + own + found["classifier"]
    assert f"# {found['total']:,} parameters" in (HERE / "configs/full_size.yaml").read_text()


@pytest.mark.slow
def test_one_batch_of_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(0)
    for kind in ("box", "key"):
        (tmp_path / "sroie" / kind).mkdir(parents=True)
    for number in range(20):
        total = f"{random.randint(1, 99)}.00"
        rows = ["10,10,90,10,90,20,10,20,SHOP", "10,30,50,30,50,40,10,40,TOTAL", f"60,30,90,30,90,40,60,40,{total}"]
        (tmp_path / "sroie/box" / f"{number:03}.csv").write_text("\n".join(rows))
        (tmp_path / "sroie/key" / f"{number:03}.json").write_text(json.dumps({"company": "SHOP", "total": total}))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    made = config("receipts.yaml", trainer={"fast_dev_run": True}, data={"batch_size": 8})
    assert data_fingerprint(made)[1] == "real"
    out = run(made, 0, tmp_path / "run")
    assert 0 <= out["test/anls"] <= 1
    assert "test/kind/total" in out


def fabricated(root: Path, layers: int = 1, answers: int = 6) -> None:
    """TextVQA and ST-VQA of three questions each, with features of the real form.

    Args:
        layers: of BERT's weights; answers: V.
    """
    from transformers import BertConfig, BertModel

    with torch.device("meta"):
        shapes = {name: p.shape for name, p in BertModel(BertConfig(num_hidden_layers=layers)).named_parameters()}
    # One number, seen as tensors of BERT-base's shapes: the file stays small.
    torch.save(
        {f"bert.{name}": torch.full((1,), 0.01).expand(shape) for name, shape in shapes.items()}, root / "bert.pt"
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    unused = [f"[unused{i}]" for i in range(99)]
    pieces = ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters)]
    (root / "bert-base-uncased-vocab.txt").write_text("\n".join(pieces))
    generator = np.random.default_rng(0)
    for name in ("textvqa", "stvqa"):
        (root / name / "imdb").mkdir(parents=True)
        words = ["<pad>", "<s>", "</s>", "<unk>", "stop", "red", *(f"word{i}" for i in range(answers - 6))]
        (root / name / "fixed_answer_vocab.txt").write_text("\n".join(words))
        for kind in ("obj", "ocr"):
            (root / name / "features" / kind).mkdir(parents=True)
        for part in ("train", "val", "test"):
            rows: list[dict[str, Any]] = [{"dataset": name, "version": 0.5}]
            for number in range(3):
                image = f"{part}{number}"
                tokens = ["stop", "main", "st"][:number]
                said = {} if part == "test" else {"answers": ["stop"] * (10 if name == "textvqa" else 2)}
                question = "what is left of the sign" if number % 2 else "what colour is it"
                rows.append({"question": question, "question_id": number, "image_id": image, **said,
                             "google_ocr_tokens_filtered": tokens})  # fmt: skip
                for kind, count in (("obj", 4), ("ocr", len(tokens))):
                    low = generator.uniform(0, 90, (count, 2))
                    boxes = np.concatenate([low, low + 10], 1)
                    features = generator.normal(size=(count, 2048)).astype(np.float32)
                    np.savez(root / name / "features" / kind / f"{image}.npz", features=features, boxes=boxes,
                             image_h=100, image_w=100)  # fmt: skip
            np.save(root / name / "imdb" / f"imdb_{part}.npy", np.array(rows, dtype=object), allow_pickle=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "dataset"),
    [(("textvqa.yaml",), "textvqa"), (("textvqa.yaml", "stvqa.yaml"), "stvqa"), (("textvqa.yaml",), "textvqa+stvqa")],
)
def test_one_batch_of_the_papers_data_in_their_real_formats(
    files: tuple[str, ...], dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's configuration with a narrower and shallower network: the text encoder is BERT's, layer for layer."""
    fabricated(tmp_path)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    narrow = {"dim": 48, "ffn": 48, "text_layers": 1}
    trainer = {"fast_dev_run": True, "accelerator": "cpu"}
    made = config(*files, model=narrow, data={"dataset": dataset, "workers": 0, "batch_size": 2}, trainer=trainer)
    assert data_fingerprint(made)[1] == "real"
    loaded = []
    monkeypatch.setattr(checkpoint, "load_bert", lambda net, path: loaded.append(path) or load_bert(net, path))
    out = run(made, 0, tmp_path / "run")
    assert 0 <= out["val/textvqa"] <= 1
    assert loaded == [tmp_path / "bert.pt"]


@pytest.mark.slow
def test_the_full_size_network_takes_a_step_within_12_gb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's configuration as it is, on made-up files: forward, backward, Adam, decoding; in its own process."""
    fabricated(tmp_path, layers=3, answers=5000)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    trainer = {"fast_dev_run": True, "accelerator": "cpu"}
    made = config("textvqa.yaml", data={"workers": 0, "batch_size": 2}, trainer=trainer)
    (tmp_path / "config.json").write_text(json.dumps(made))
    code = (
        "import json, resource, sys; from pathlib import Path; from spatial_textvqa.experiment import run\n"
        "root = Path(sys.argv[1]); out = run(json.loads((root / 'config.json').read_text()), 0, root / 'run')\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "print('\\n' + json.dumps([out['parameters'], out['val/textvqa'], peak]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    parameters, accuracy, peak = json.loads(done.stdout.splitlines()[-1])
    assert parameters == 96_633_224
    assert 0 <= accuracy <= 1
    assert 96_633_224 * 16 < peak < 12e9  # weights, gradients and Adam's two moments are in it


def test_the_run_s_key_follows_every_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fabricated(tmp_path)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    (tmp_path / "vectors.bin").write_bytes(b"1")
    made = config("textvqa.yaml", data={"word_vectors": "vectors.bin"})
    seen = {data_fingerprint(made)[0]}
    files = ("textvqa/fixed_answer_vocab.txt", "bert-base-uncased-vocab.txt", "vectors.bin", "bert.pt")
    for i, file in enumerate(files, 2):
        with (tmp_path / file).open("ab") as content:
            content.write(b"x")
        seen.add(data_fingerprint(made)[0])
        assert len(seen) == i
    (tmp_path / "bert.pt").unlink()
    with pytest.raises(UserError, match=r"model\.text_weights is bert\.pt: no such file, here or in .*\(or null"):
        data_fingerprint(made)
    assert data_fingerprint(config("textvqa.yaml", model={"text_weights": None}))[0] not in seen


def test_the_key_of_data_without_files_is_that_of_the_data() -> None:
    assert data_fingerprint(config("quick.yaml"))[0] == hashlib.sha256(b"scenes").hexdigest()
