"""Weights of the published model become a checkpoint that `ask`, `demo`, `pages` and `predict` take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from shared.errors import UserError

from spatial_textvqa.checkpoint import load_published, read_state
from spatial_textvqa.data.encode import Encoder, Encoding
from spatial_textvqa.model import SAM4C, SAM4CConfig
from spatial_textvqa.module import plain_config
from spatial_textvqa.vocabulary import Vocabulary

SIZES = {  # of the configuration: a tensor of the published model, and which of its sides
    "dim": ("classifier.weight", 1),
    "ffn": ("mmt.encoder.normal_layers.0.intermediate.dense.weight", 0),
    "feature_width": ("linear_obj_feat_to_mmt_in.weight", 1),
}


def import_published(
    weights: Path, vocabulary: Path, wordpiece: Path, word_vectors: str, out: Path, layers: str = "nnssss",
    context: int = 3,
) -> SAM4C:  # fmt: skip
    """Writes the checkpoint; widths and the text encoder's layers are those of the weights, the rest is the paper's.

    Args:
        weights: state dict under the published names.
        vocabulary: the fixed answers, in the classifier's order; wordpiece: BERT's vocabulary.
        word_vectors: fastText's `.bin` that the network was trained with, or `hash`.
        layers, context: see `SAM4CConfig`; weights do not tell the order of layers, nor c.

    Raises:
        UserError: a file that is missing, or does not fit the others.
    """
    state = read_state(weights)
    if missing := [tensor for tensor, _ in SIZES.values() if tensor not in state]:
        raise UserError(f"{weights} lacks {missing[0]}: expected weights under the published model's names")
    sizes: dict[str, Any] = {name: state[tensor].shape[side] for name, (tensor, side) in SIZES.items()}
    words = Vocabulary.read(vocabulary)
    vectors = "hash" if word_vectors == "hash" else str(Path(word_vectors).resolve())
    encoding = Encoding(wordpiece=str(wordpiece.resolve()), feature_width=sizes["feature_width"], word_vectors=vectors)
    encoder = Encoder(encoding, words)
    place = "text_bert.encoder.layer."
    text_layers = {name.removeprefix(place).partition(".")[0] for name in state if name.startswith(place)}
    config = SAM4CConfig(
        vocab_size=len(words), start_index=words.start, end_index=words.end, text_layers=len(text_layers),
        layers=layers, context=context, word_vectors=encoder.words.vectors.dim, **sizes,
    )  # fmt: skip
    model = SAM4C(config)
    load_published(model, weights)
    own = {"config": plain_config(config), "vocabulary": words.words, "encoding": encoding.plain()}
    content = {"state_dict": {f"net.{name}": x for name, x in model.state_dict().items()}, "spatial_textvqa": own}
    partial = out.with_name(f"{out.name}.part")
    torch.save(content, partial)
    partial.replace(out)
    return model
