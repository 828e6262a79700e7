"""SA-M4C: a multimodal transformer with spatially aware attention, and M4C, the same with "n" layers only (Fig. 2).

question, objects, OCR tokens -> encoders -> transformer -> scores over fixed vocabulary and OCR tokens, step by step.
A batch is a dict of tensors; `N` entities are the objects and then the OCR tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from shared.errors import UserError
from torch import Tensor, nn

from .decoder import POSITIONS, Decoded, Pointer, PreviousPrediction, beam_search, greedy, reorder_all
from .encoders import BertEncoder, ObjectEncoder, OCREncoder, WordEncoder
from .transformer import MultimodalTransformer, Scene

Batch = Mapping[str, Tensor]
STD = 0.02  # of weights at the start, as in BERT


@dataclass
class SAM4CConfig:
    """Sizes and options; the defaults are the paper's.

    Args:
        vocab_size: V, rows of the classifier; start_index, end_index: `<s>` and `</s>` among them.
        question: `bert`, or `words` with a vocabulary of `question_vocab` words and `question_length` positions.
        text_layers: layers of the text encoder.
        layers: `n` (full attention) and `s` (spatial), from the input on; "nnnnnn" is M4C.
        context: c, the number of adjacent sectors that a head sees; one for each spatial layer, or one for all.
        feature_width: of appearances; word_vectors, phoc: of the OCR tokens' other features.
        steps: S, words of an answer with `</s>`.
        masked_quadrants: blocks query x key that no spatial layer sees, 1..9.
        relation_bias: a learned term of the scores for each head and relation (ours).
        attention: `spatial`, or a control: `neighbours`, `full`, `top_k`, `relative`.
        init: `bert`: N(0, 0.02) in text encoder and transformer; `default`: the framework's own.
    """

    vocab_size: int = 5000
    start_index: int = 1
    end_index: int = 2
    question: str = "bert"
    question_vocab: int = 30522
    question_length: int = 20
    text_layers: int = 3
    dim: int = 768
    heads: int = 12
    ffn: int = 3072
    layers: str = "nnssss"
    context: int | Sequence[int] = 3
    feature_width: int = 2048
    max_objects: int = 100
    max_ocr: int = 50
    steps: int = 12
    dropout: float = 0.1
    masked_quadrants: Sequence[int] = (1, 2)
    relation_bias: bool = False
    attention: str = "spatial"
    top_k: int = 9
    init: str = "bert"
    word_vectors: int = 300
    phoc: int = 604

    def contexts(self) -> list[int]:
        """c of each spatial layer."""
        spatial = self.layers.count("s")
        return [self.context] * spatial if isinstance(self.context, int) else list(self.context)

    def check(self) -> None:
        """Raises:
        UserError: a setting that makes no network; the layers' own are checked where they are made.
        """
        for name in (
            "vocab_size",
            "dim",
            "heads",
            "ffn",
            "feature_width",
            "steps",
            "question_vocab",
            "question_length",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: at least 1")
        if self.text_layers < 0:
            raise UserError(f"text_layers is {self.text_layers}: at least 0")
        for name, known in (("question", ("bert", "words")), ("init", ("bert", "default"))):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(known)}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}: from 0 to below 1")
        if self.steps > POSITIONS:
            raise UserError(f"steps is {self.steps}: at most {POSITIONS}")
        if self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}: at least 1")
        for name in ("start_index", "end_index"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise UserError(f"{name} is {getattr(self, name)}: an index of the {self.vocab_size} words")


class SAM4C(nn.Module):
    """The whole network.

    Raises:
        UserError: a setting that makes no network.
    """

    def __init__(self, config: SAM4CConfig) -> None:
        super().__init__()
        config.check()
        self.config, c = config, config
        self.question: nn.Module
        if c.question == "bert":
            self.question = BertEncoder(c.text_layers, c.dim, c.dropout)
        else:
            sizes = (c.question_vocab, c.question_length, c.dim, c.heads, c.ffn, c.text_layers)
            self.question = WordEncoder(*sizes, c.dropout)
        self.objects = ObjectEncoder(c.feature_width, c.dim, c.dropout)
        self.ocr = OCREncoder(c.feature_width, c.dim, c.dropout, c.word_vectors, c.phoc)
        self.previous = PreviousPrediction(c.dim, c.dropout)
        self.transformer = MultimodalTransformer(
            c.dim, c.heads, c.ffn, c.layers, c.contexts(), c.dropout, c.masked_quadrants, c.relation_bias, c.attention,
            c.top_k,
        )  # fmt: skip
        self.pointer, self.classifier = Pointer(c.dim), nn.Linear(c.dim, c.vocab_size)
        if c.init == "bert":
            for part in (self.question, self.transformer, self.previous):
                part.apply(initialise)
            if isinstance(self.question, BertEncoder) and self.question.out is not None:
                self.question.out.reset_parameters()

    # What the encoders make of a batch.

    def entities(self, batch: Batch) -> tuple[Float[Tensor, "b t_plus_n dim"], Float[Tensor, "b nc dim"], Scene]:
        """Question, objects and OCR tokens in one row, the OCR encoder's outputs, and the graph with its masks."""
        question = self.question(batch["question_ids"], batch["question_mask"])
        objects = self.objects(batch["obj_features"], batch["obj_boxes"])
        ocr = self.ocr.tokens(batch["ocr_fasttext"], batch["ocr_phoc"], batch["ocr_features"], batch["ocr_boxes"])
        valid = torch.cat([batch["question_mask"], batch["obj_mask"], batch["ocr_mask"]], 1)
        boxes = torch.cat([batch["obj_boxes"], batch["ocr_boxes"]], 1)
        scene = Scene(batch["relations"], valid, question.shape[1], boxes)
        return torch.cat([question, objects, ocr], 1), ocr, scene

    def pointer_keys(self, o: Float[Tensor, "b nc dim"]) -> Float[Tensor, "b nc dim"]:
        """Of the transformer's OCR outputs; float32 under autocast."""
        with torch.autocast(o.device.type, enabled=False):
            return self.pointer.key(o.to(self.classifier.weight.dtype))

    def scores(
        self, z: Float[Tensor, "b s dim"], keys: Float[Tensor, "b nc dim"], batch: Batch
    ) -> Float[Tensor, "b s v_plus_nc"]:
        """Of decoder outputs z; float32 under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.to(self.classifier.weight.dtype)
            return torch.cat([self.classifier(z), self.pointer(z, keys, batch["ocr_mask"])], -1)

    def decoder_in(self, previous: Int[Tensor, "b s"], ocr: Tensor, first: int = 0) -> Float[Tensor, "b s dim"]:
        return self.previous(previous, self.classifier.weight, ocr, first)

    def teacher_forced(
        self, x: Tensor, ocr: Tensor, scene: Scene, previous: Int[Tensor, "b s"], batch: Batch
    ) -> tuple[Float[Tensor, "b s v_plus_nc"], Float[Tensor, "b l dim"]]:
        """Scores of all steps, and the transformer's output at all positions, in one pass."""
        steps, ocr_start = previous.shape[1], x.shape[1] - ocr.shape[1]
        out = self.transformer(torch.cat([x, self.decoder_in(previous, ocr)], 1), scene, steps)
        keys = self.pointer_keys(out[:, ocr_start : x.shape[1]])
        return self.scores(out[:, x.shape[1] :], keys, batch), out

    def forward(self, batch: Batch) -> Float[Tensor, "b s v_plus_nc"]:
        """Scores of every step, the right previous words (`prev_inds`) given."""
        return self.teacher_forced(*self.entities(batch), batch["prev_inds"], batch)[0]

    @torch.no_grad()
    def decode(self, batch: Batch, beam: int = 1, cached: bool = True) -> Decoded:
        """Answers from `<s>` on, `config.steps` of them.

        Args:
            beam: width of the search; 1 is greedy.
            cached: encode question, entities and `<s>` once; otherwise everything at every step, to the same end.

        Raises:
            UserError: a beam below 1.
        """
        if beam < 1:
            raise UserError(f"beam is {beam}: at least 1")
        x, ocr, scene = self.entities(batch)
        steps, end = self.config.steps, self.config.end_index
        start = torch.full((len(x),), self.config.start_index, device=x.device)
        if cached:
            begin = torch.cat([x, self.decoder_in(start[:, None], ocr)], 1)
            encoded, past = self.transformer.encode(begin, scene, steps, ocr.shape[1] + 1)
            keys = self.pointer_keys(encoded[:, :-1])
            first = self.scores(encoded[:, -1:], keys, batch)[:, 0]
        if beam > 1:  # the rows of a sample differ from its second step on
            rows = torch.arange(len(x), device=x.device).repeat_interleave(beam)
            start, ocr, scene, batch = start[rows], ocr[rows], scene.rows(rows), {"ocr_mask": batch["ocr_mask"][rows]}
            if cached:
                first, keys = first[rows], keys[rows]
                reorder_all(past, rows)
            else:
                x = x[rows]
        if cached:

            def step(previous: Tensor, t: int) -> Tensor:
                if t == 0:
                    return first
                z = self.transformer.step(self.decoder_in(previous[:, None], ocr, t), scene, past)
                return self.scores(z, keys, batch)[:, 0]

            def reorder(rows: Tensor) -> None:
                reorder_all(past, rows)

        else:
            inputs = torch.zeros(len(start), steps, dtype=torch.long, device=x.device)

            def step(previous: Tensor, t: int) -> Tensor:
                inputs[:, t] = previous
                return self.teacher_forced(x, ocr, scene, inputs, batch)[0][:, t]

            def reorder(rows: Tensor) -> None:
                inputs.copy_(inputs[rows])

        if beam == 1:
            return greedy(step, start, steps, end)
        return beam_search(step, reorder, start, steps, end, beam)

    @torch.no_grad()
    def attention_maps(self, batch: Batch) -> list[Float[Tensor, "b h l l"]]:
        """Attention probabilities layer by layer, with `prev_inds` as the decoder's inputs (its own answer without)."""
        x, ocr, scene = self.entities(batch)
        previous = batch.get("prev_inds")
        if previous is None:
            answer = self.decode(batch).indices
            start = torch.full_like(answer[:, :1], self.config.start_index)
            previous = torch.cat([start, answer[:, :-1]], 1)
        x = torch.cat([x, self.decoder_in(previous, ocr)], 1)
        return self.transformer.maps(x, scene, previous.shape[1])


def initialise(module: nn.Module) -> None:
    """N(0, 0.02) for weights, 0 for biases, 1 and 0 for the layer norms."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.LayerNorm):
        module.reset_parameters()


def parameter_counts(model: SAM4C) -> dict[str, int]:
    """Trainable numbers by part (section 4.5)."""
    parts = dict(model.named_children())
    counts = {name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts.items()}
    return counts | {"total": sum(counts.values())}
