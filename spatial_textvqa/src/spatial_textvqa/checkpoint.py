"""Weights of the published model under its own names, one to one (section 12)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

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


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the `module.` of data-parallel training."""
    return {re.sub(r"^module\.", "", name): value for name, value in state.items()}
