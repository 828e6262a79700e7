"""Weights under the published names, and of BERT: fabricated files, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from shared.errors import UserError
from spatial_textvqa.checkpoint import load_bert, load_published, published_names, read_state, save_published
from spatial_textvqa.model import SAM4C, SAM4CConfig

from spatial_textvqa import encoders


@pytest.fixture
def tiny_bert(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setattr(encoders, "BERT", sizes)


def made(seed: int = 0, **options: Any) -> SAM4C:
    torch.manual_seed(seed)
    small: dict[str, Any] = {
        "vocab_size": 9,
        "dim": 12,
        "ffn": 8,
        "feature_width": 4,
        "layers": "nnss",
        "text_layers": 2,
    }
    return SAM4C(SAM4CConfig(**(small | options)))


def fabricated(model: SAM4C) -> dict[str, torch.Tensor]:
    """The tensors that section 12 of the specification lists, by its names and with nothing else."""
    layer = {
        "attention.self.query": (12, 12), "attention.self.key": (12, 12), "attention.self.value": (12, 12),
        "attention.output.dense": (12, 12), "intermediate.dense": (8, 12), "output.dense": (12, 8),
    }  # fmt: skip
    out: dict[str, torch.Tensor] = {}

    def linear(name: str, rows: int, columns: int) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = torch.randn(rows, columns), torch.randn(rows)

    def norm(name: str) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = torch.randn(12), torch.randn(12)

    for kind in ("normal", "spatial"):
        for k in range(2):
            place = f"mmt.encoder.{kind}_layers.{k}"
            for name, (rows, columns) in layer.items():
                linear(f"{place}.{name}", rows, columns)
            for name in ("attention.output.LayerNorm", "output.LayerNorm"):
                norm(f"{place}.{name}")
    for kind, width in (("obj", 4), ("ocr", 300 + 604 + 4 + 50)):
        linear(f"linear_{kind}_feat_to_mmt_in", 12, width)
        linear(f"linear_{kind}_bbox_to_mmt_in", 12, 4)
        norm(f"{kind}_feat_layer_norm")
        norm(f"{kind}_bbox_layer_norm")
    for name in ("ans_layer_norm", "ocr_layer_norm", "emb_layer_norm"):
        norm(f"mmt.prev_pred_embeddings.{name}")
    out["mmt.prev_pred_embeddings.position_embeddings.weight"] = torch.randn(100, 12)
    out["mmt.prev_pred_embeddings.token_type_embeddings.weight"] = torch.randn(5, 12)
    linear("ocr_ptr_net.query", 12, 12)
    linear("ocr_ptr_net.key", 12, 12)
    linear("classifier", 9, 12)
    linear("text_bert_out_linear", 12, 24)
    assert isinstance(model.question, encoders.BertEncoder)
    return out | {f"text_bert.{n}": torch.randn(p.shape) for n, p in model.question.bert.named_parameters()}


@pytest.mark.usefixtures("tiny_bert")
@pytest.mark.parametrize("form", ["plain", "parallel", "nested"])
def test_a_published_checkpoint_maps_one_to_one(form: str, tmp_path: Path) -> None:
    model = made()
    state = fabricated(model)
    written: Any = state | {"text_bert.embeddings.position_ids": torch.arange(9)[None]}
    if form == "parallel":
        written = {f"module.{name}": x for name, x in written.items()}
    if form == "nested":
        written = {"model_state_dict": written, "epoch": 3}
    torch.save(written, tmp_path / "published.pt")
    load_published(model, tmp_path / "published.pt")
    assert len(state) == len(list(model.parameters()))
    place = model.transformer.layers[2]
    assert torch.equal(place.contract.weight, state["mmt.encoder.spatial_layers.0.output.dense.weight"])
    assert torch.equal(place.attention.key.bias, state["mmt.encoder.spatial_layers.0.attention.self.key.bias"])
    assert torch.equal(model.ocr.box_norm.bias, state["ocr_bbox_layer_norm.bias"])
    save_published(model, tmp_path / "again.pt")
    again = read_state(tmp_path / "again.pt")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], x) for name, x in state.items())


@pytest.mark.usefixtures("tiny_bert")
def test_a_learned_bias_is_left_alone(tmp_path: Path) -> None:
    model = made()
    torch.save(fabricated(model), tmp_path / "published.pt")
    biased = made(1, relation_bias=True)
    torch.nn.init.ones_(biased.transformer.layers[3].attention.beta)
    load_published(biased, tmp_path / "published.pt")
    load_published(model, tmp_path / "published.pt")
    assert (biased.transformer.layers[3].attention.beta == 1).all()
    assert torch.equal(biased.classifier.weight, model.classifier.weight)


@pytest.mark.usefixtures("tiny_bert")
def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path: Path) -> None:
    model, path = made(), tmp_path / "published.pt"
    before = {name: p.clone() for name, p in model.named_parameters()}
    for change, says in (
        ({"classifier.bias": None, "ocr_ptr_net.key.bias": None}, r"lacks ocr_ptr_net.key.bias, classifier.bias"),
        ({"extra.weight": torch.ones(1)}, "has no place for extra.weight"),
        ({"classifier.weight": torch.ones(5, 12)}, r"classifier.weight has shape \(5, 12\), this model's is \(9, 12\)"),
    ):
        state = fabricated(model) | change
        torch.save({name: x for name, x in state.items() if x is not None}, path)
        with pytest.raises(UserError, match=says):
            load_published(model, path)
        assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    torch.save(fabricated(model), path)
    with pytest.raises(UserError, match=r"lacks mmt\.encoder\.spatial_layers\.2"):
        load_published(made(layers="nnsss"), path)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights at"):
        read_state(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match="can't be read as weights alone"):
        read_state(tmp_path / "text.pt")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="can't be read as weights alone"):
        read_state(tmp_path / "text.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state(tmp_path / "list.pt")
    torch.save({"run": Path("a")}, tmp_path / "pickle.pt")
    with pytest.raises(UserError, match="can't be read as weights alone"):
        read_state(tmp_path / "pickle.pt")


@pytest.mark.usefixtures("tiny_bert")
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_the_first_layers_of_bert(suffix: str, tmp_path: Path) -> None:
    deep, model = made(1, text_layers=4), made()
    assert isinstance(deep.question, encoders.BertEncoder)
    state = {f"bert.{name}": p.detach().clone() for name, p in deep.question.bert.named_parameters()}
    state = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): x for name, x in state.items()}
    state["cls.predictions.bias"] = torch.zeros(40)
    path = tmp_path / f"model{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    load_bert(model, path)
    assert isinstance(model.question, encoders.BertEncoder)
    theirs = dict(deep.question.bert.named_parameters())
    assert all(torch.equal(p, theirs[name]) for name, p in model.question.bert.named_parameters())
    torch.save({"a": torch.ones(1)}, tmp_path / "other.bin")
    with pytest.raises(UserError, match=r"lacks embeddings.word_embeddings.weight"):
        load_bert(model, tmp_path / "other.bin")
    with pytest.raises(UserError, match="question is 'words'"):
        load_bert(made(question="words"), path)


def test_the_published_names_of_the_paper_s_layers() -> None:
    names = published_names("snsn")
    assert names["transformer.layers.0.norm"] == "mmt.encoder.spatial_layers.0.output.LayerNorm"
    assert names["transformer.layers.2.norm"] == "mmt.encoder.spatial_layers.1.output.LayerNorm"
    assert names["transformer.layers.3.output"] == "mmt.encoder.normal_layers.1.attention.output.dense"


@pytest.mark.usefixtures("tiny_bert")
def test_initialisation(tmp_path: Path) -> None:
    """N(0, 0.02) in text encoder, transformer and its tables; the framework's own elsewhere."""
    model = made(dim=48, ffn=96)
    assert isinstance(model.question, encoders.BertEncoder)
    for parameter in (
        model.question.bert.embeddings.word_embeddings.weight, model.question.bert.encoder.layer[0].output.dense.weight,
        model.transformer.layers[0].expand.weight, model.previous.position.weight,
    ):  # fmt: skip
        assert 0.015 < float(parameter.detach().std()) < 0.025
    assert not model.transformer.layers[0].expand.bias.any()
    for linear in (model.objects.feature, model.pointer.query, model.classifier, model.question.out):
        bound = linear.in_features**-0.5  # uniform between -bound and bound
        assert 0.8 * bound < float(linear.weight.detach().abs().max()) <= bound
        assert linear.bias.any()
    plain = made(dim=48, ffn=96, init="default")
    assert float(plain.transformer.layers[0].expand.weight.detach().std()) == pytest.approx(48**-0.5 / 3**0.5, rel=0.1)
