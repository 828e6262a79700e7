"""What goes into the transformer: question words, objects, OCR tokens (section 3.1 of the paper; 4.1 here)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from shared.errors import UserError
from torch import Tensor, nn

from .transformer import EPS, Attention, Layer, Scene, sight

LEGACY = 50  # zeros at the end of an OCR token's feature, a slot of the published network that nothing fills
BERT = {"vocab_size": 30522, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}


class BoxedFeatures(nn.Module):
    """x = Drop(LN(W1 f) + LN(W2 b)): an appearance f and a normalised box b. No ReLU."""

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.feature, self.feature_norm = nn.Linear(width, dim), nn.LayerNorm(dim, EPS)
        self.box, self.box_norm = nn.Linear(4, dim), nn.LayerNorm(dim, EPS)
        self.drop = nn.Dropout(dropout)

    def forward(self, f: Float[Tensor, "b n width"], boxes: Float[Tensor, "b n 4"]) -> Float[Tensor, "b n dim"]:
        return self.drop(self.feature_norm(self.feature(f)) + self.box_norm(self.box(boxes)))


class ObjectEncoder(BoxedFeatures):
    """Detected objects: f is the detector's feature, L2-normalised."""

    def forward(self, f: Float[Tensor, "b n width"], boxes: Float[Tensor, "b n 4"]) -> Float[Tensor, "b n dim"]:
        return super().forward(F.normalize(f, dim=-1), boxes)


class OCREncoder(BoxedFeatures):
    """OCR tokens: f is [word vector; PHOC; appearance; 50 zeros], each part L2-normalised on its own.

    Args:
        width: of the appearance; word_vectors and phoc: of the other two.
    """

    def __init__(self, width: int, dim: int, dropout: float, word_vectors: int = 300, phoc: int = 604) -> None:
        super().__init__(word_vectors + phoc + width + LEGACY, dim, dropout)

    def tokens(
        self,
        word_vectors: Float[Tensor, "b n w"],
        phoc: Float[Tensor, "b n p"],
        f: Float[Tensor, "b n width"],
        boxes: Float[Tensor, "b n 4"],
    ) -> Float[Tensor, "b n dim"]:
        parts = [F.normalize(part, dim=-1) for part in (word_vectors, phoc, f)]
        return self(torch.cat([*parts, f.new_zeros(*f.shape[:-1], LEGACY)], -1), boxes)


class WordEncoder(nn.Module):
    """A question in a small vocabulary of its own: word + position, LN, then transformer layers, if any."""

    def __init__(
        self, vocabulary: int, length: int, dim: int, heads: int, ffn: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(vocabulary, dim), nn.Embedding(length, dim)
        self.norm, self.drop = nn.LayerNorm(dim, EPS), nn.Dropout(dropout)
        view = sight("n", 1, heads, "full", (), 0)
        self.layers = nn.ModuleList(
            Layer(dim, ffn, dropout, Attention(dim, heads, dropout, view)) for _ in range(layers)
        )

    def forward(self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t dim"]:
        if ids.shape[1] > len(self.position.weight):
            raise UserError(
                f"a question of {ids.shape[1]} words: the model was made for {len(self.position.weight)}, cut it"
            )
        x = self.drop(self.norm(self.word(ids) + self.position.weight[: ids.shape[1]]))
        scene = Scene(torch.zeros(len(ids), 0, 0, dtype=torch.uint8, device=ids.device), mask, ids.shape[1])
        for layer in self.layers:
            x = layer(x, scene, 0)
        return x


class BertEncoder(nn.Module):
    """The first layers of BERT-base, and a linear where the transformer has another width.

    Random unless weights are loaded: `spatial_textvqa.checkpoint.load_bert`.
    """

    def __init__(self, layers: int, dim: int, dropout: float) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel  # slow to import, and the small models have no use for it

        sizes: dict[str, Any] = {**BERT, "num_hidden_layers": layers}
        drops: dict[str, Any] = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self.bert = BertModel(BertConfig(**sizes, **drops), add_pooling_layer=False)
        self.out = nn.Linear(BERT["hidden_size"], dim) if dim != BERT["hidden_size"] else None

    def forward(self, ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t dim"]:
        x = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return x if self.out is None else self.out(x)
