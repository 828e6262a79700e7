"""Weights of the published model under its own names, one to one (section 12)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from shared.errors import UserError
from torch import Tensor, nn

from .encoders import BertEncoder
from .model import SAM4C

NESTED = ("model_state_dict", "state_dict", "model")
BUFFERS = ("position_ids", "token_type_ids")  # numbers 0, 1, 2, ... that older libraries saved
OURS = "(ours) "

LAYER = {  # ours: the published name below encoder.normal_layers.k or encoder.spatial_layers.k
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "output": "attention.output.dense",
    "output_norm": "attention.output.LayerNorm",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "norm": "output.LayerNorm",
}
PREVIOUS = {
    "position": "position_embeddings",
    "source": "token_type_embeddings",
    "word_norm": "ans_layer_norm",
    "ocr_norm": "ocr_layer_norm",
    "norm": "emb_layer_norm",
}
FOLDERS = {"n": "normal_layers", "s": "spatial_layers"}


def published_names(kinds: str) -> dict[str, str]:
    """Our module's name to the published one, for a layer string."""
    names = {"question.bert": "text_bert", "question.out": "text_bert_out_linear"}
    for ours, theirs in (("objects", "obj"), ("ocr", "ocr")):
        names |= {
            f"{ours}.feature": f"linear_{theirs}_feat_to_mmt_in",
            f"{ours}.box": f"linear_{theirs}_bbox_to_mmt_in",
            f"{ours}.feature_norm": f"{theirs}_feat_layer_norm",
            f"{ours}.box_norm": f"{theirs}_bbox_layer_norm",
        }
    names |= {f"previous.{ours}": f"mmt.prev_pred_embeddings.{theirs}" for ours, theirs in PREVIOUS.items()}
    for number, kind in enumerate(kinds):
        place = f"mmt.encoder.{FOLDERS[kind]}.{kinds[:number].count(kind)}"
        names |= {f"transformer.layers.{number}.{ours}": f"{place}.{theirs}" for ours, theirs in LAYER.items()}
    return names | {
        "pointer.query": "ocr_ptr_net.query", "pointer.key": "ocr_ptr_net.key", "classifier": "classifier",
    }  # fmt: skip


def to_published(name: str, names: Mapping[str, str]) -> str | None:
    """The published name of one of our tensors; None where the published model has none (the learned bias)."""
    for ours, theirs in names.items():
        if name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    return None


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a `.safetensors` file, or from one that `torch.save` wrote: the dict itself, or one inside
    it under `model_state_dict`, `state_dict` or `model`. The `module.` of data-parallel training is taken off.

    Raises:
        UserError: no such file, or one that is not a state dict of tensors alone.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no weights at {path}: give a file (.safetensors, or one written by torch.save)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the two readers make of a damaged or foreign file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} can't be read as weights alone ({reason[:120]}): save its state dict anew") from None
    for name in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not state or not all(isinstance(x, Tensor) for x in state.values()):
        raise UserError(f"{path} holds no state dict: expected a dict of tensors, or one under {', '.join(NESTED)}")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def fill(module: nn.Module, state: Mapping[str, Tensor], names: Mapping[str, str], source: str) -> None:
    """Copy into every parameter of `module` the tensor that `names` says; tensors that no one wants are an error.

    Raises:
        UserError: tensors are missing, left over, or of another shape; nothing is changed then.
    """
    own = dict(module.named_parameters())
    missing = [names[name] for name in own if names[name] not in state]
    extra = sorted(set(state) - set(names.values()))
    for kind, which in (("lacks", missing), ("has no place for", extra)):
        if which:
            more = f" and {len(which) - 3} more" if len(which) > 3 else ""
            hint = "another layer string or question encoder?" if kind == "lacks" else "are they another model's?"
            raise UserError(f"{source} {kind} {', '.join(which[:3])}{more}: {hint}")
    for name, parameter in own.items():
        if state[names[name]].shape != parameter.shape:
            theirs, ours = tuple(state[names[name]].shape), tuple(parameter.shape)
            raise UserError(f"{source}: {names[name]} has shape {theirs}, this model's is {ours}: check its sizes")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[names[name]])


def load_published(model: SAM4C, path: str | Path) -> None:
    """Weights of the published model, under its names; a learned relation bias, which it has not, stays as it is.

    Raises:
        UserError: the file is no state dict; tensors are missing, left over, or of another shape.
    """
    names = published_names(model.config.layers)
    state = {name: x for name, x in read_state(path).items() if not name.endswith(BUFFERS)}
    ours = {name: to_published(name, names) or OURS + name for name, _ in model.named_parameters()}
    own = {published: p.detach() for name, p in model.named_parameters() if (published := ours[name]).startswith(OURS)}
    fill(model, state | own, ours, str(path))


def save_published(model: SAM4C, path: str | Path) -> None:
    """A state dict under the published names; what the published model has no name for is left out."""
    names = published_names(model.config.layers)
    state = {to_published(name, names): p.detach().clone() for name, p in model.named_parameters()}
    torch.save({name: x for name, x in state.items() if name is not None}, path)


def load_bert(model: SAM4C, path: str | Path) -> None:
    """The first layers of a BERT-base state dict into the text encoder; its other layers and its heads are left out.

    Raises:
        UserError: the model's questions are not encoded by BERT; the file is no such state dict.
    """
    if not isinstance(model.question, BertEncoder):
        raise UserError(f"question is {model.config.question!r}: BERT weights are for the encoder `bert`")
    state = {}
    for name, value in read_state(path).items():
        name = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
        state[name.replace("LayerNorm.beta", "LayerNorm.bias")] = value
    own = {name: name for name, _ in model.question.bert.named_parameters()}
    fill(model.question.bert, {name: x for name, x in state.items() if name in own}, own, str(path))
