"""How SA-M4C trains (section 6): the loss on one drawn way to say the answer, Adam with a warm-up, looks by decoding.

A checkpoint keeps the network's configuration, the fixed vocabulary and how samples are encoded, all that `load` needs.
"""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from shared.errors import UserError
from torch import Tensor

from spatial_textvqa.answers import answerable_from_ocr, bce_loss
from spatial_textvqa.ask import Asker
from spatial_textvqa.data.module import TextVQAData, given
from spatial_textvqa.data.tensors import TensorSet
from spatial_textvqa.evaluation import answerable, attended, flips, measure, picture, said, sparsity, spatial_rows
from spatial_textvqa.example import SEED, asked, example_scene
from spatial_textvqa.metrics import (
    ANLS,
    STVQAAccuracy,
    TextVQAAccuracy,
    WholeAnswerAccuracy,
    is_spatial,
)  # fmt: skip
from spatial_textvqa.model import SAM4C, SAM4CConfig
from spatial_textvqa.schedule import factor
from spatial_textvqa.vocabulary import Vocabulary

LOG_EVERY = 50


class SpatialTextVQA(L.LightningModule):
    """SA-M4C on any data of `TextVQAData`; `layers` of `n` alone is M4C.

    Args:
        dim, heads, ffn, layers, context, text_layers, dropout, masked_quadrants, relation_bias, attention, top_k, init:
            see `SAM4CConfig`. `context` is c, or a list with a c for each spatial layer.
        text_weights: local file of BERT's weights for the text encoder.
        lr, eps: of Adam; text_lr: factor of the text encoder's rate when it has BERT's weights.
        warmup, warmup_from, drops, drop_by: see `schedule.factor`.
        beam: width of the search, of the looks and when tested.
        keep_best: a number of the looks (`accuracy`, `textvqa`, `anls` ...): the weights of the look where it was
            highest are the ones that are tested; empty: the last ones.
        probes: ask the test scenes otherwise, too (flipped questions, transposed graphs ...).
        picture: keep one test scene with the strongest attention edges, for a figure, and what `ask` says of the scene
            of `example`.

    Raises:
        UserError: a setting out of its range.
    """

    def __init__(
        self,
        dim: int = 768,
        heads: int = 12,
        ffn: int = 3072,
        layers: str = "nnssss",
        context: int | list[int] = 3,
        text_layers: int = 3,
        dropout: float = 0.1,
        masked_quadrants: list[int] | None = None,
        relation_bias: bool = False,
        attention: str = "spatial",
        top_k: int = 9,
        init: str = "bert",
        text_weights: str | None = None,
        lr: float = 1e-4,
        eps: float = 1e-8,
        text_lr: float = 0.1,
        warmup: int = 1000,
        warmup_from: float = 0.2,
        drops: list[float] | None = None,
        drop_by: float = 0.1,
        beam: int = 1,
        keep_best: str = "",
        probes: bool = True,
        picture: bool = False,
    ) -> None:
        super().__init__()
        if not lr > 0:
            raise UserError(f"lr is {lr}: it has to be > 0")
        if warmup < 0 or not 0 <= warmup_from <= 1:
            raise UserError(f"warmup is {warmup} and warmup_from {warmup_from}: at least 0, and in [0, 1]")
        if beam < 1:
            raise UserError(f"beam is {beam}: it has to be at least 1")
        masked = [1, 2] if masked_quadrants is None else masked_quadrants
        self.options: dict[str, Any] = {
            "dim": dim, "heads": heads, "ffn": ffn, "layers": layers, "context": context, "text_layers": text_layers,
            "dropout": dropout, "masked_quadrants": masked, "relation_bias": relation_bias, "attention": attention,
            "top_k": top_k, "init": init,
        }  # fmt: skip
        self.text_weights, self.lr, self.eps, self.text_lr = text_weights, lr, eps, text_lr
        self.warmup, self.warmup_from, self.drop_by = warmup, warmup_from, drop_by
        self.drops = [14_000, 19_000] if drops is None else drops
        self.beam, self.keep_best, self.probes, self.picture = beam, keep_best, probes, picture
        self.best: dict[str, Any] = {}
        self.pictured: dict[str, list[float]] = {}
        self.curves: dict[str, list[float]] = {}
        self.final: dict[str, float] = {}
        self.train_seconds = 0.0
        self.challenge = torch.nn.ModuleDict({"textvqa": TextVQAAccuracy(), "stvqa": STVQAAccuracy(), "anls": ANLS()})
        # Whole answers, all and spatial; TextVQA's accuracy of spatial questions, all and those that OCR tokens answer.
        self.looks = torch.nn.ModuleDict(
            {
                "accuracy": WholeAnswerAccuracy(), "spatial": WholeAnswerAccuracy(),
                "spatial_textvqa": TextVQAAccuracy(), "spatial_ocr": TextVQAAccuracy(),
            }
        )  # fmt: skip

    # Set-up ------------------------------------------------------------------------------------------------------

    @property
    def data(self) -> TextVQAData:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        if hasattr(self, "net"):
            return
        self.net = SAM4C(network_config(self.options, self.data))
        if self.text_weights is not None:
            from spatial_textvqa.checkpoint import load_bert

            load_bert(self.net, Path(given(self.text_weights)))

    def configure_optimizers(self) -> Any:
        # The linear layer behind BERT, where the widths differ, is as new as the rest.
        slow = {id(p) for p in self.net.question.bert.parameters()} if self.text_weights is not None else set()  # type: ignore[union-attr]
        groups = [
            {"params": [p for p in self.net.parameters() if id(p) not in slow], "lr": self.lr},
            {"params": [p for p in self.net.parameters() if id(p) in slow], "lr": self.lr * self.text_lr},
        ]
        # Lightning refuses to clip gradients of a fused optimiser in mixed precision.
        fused = self.trainer.precision == "32-true"
        optimiser = torch.optim.Adam([g for g in groups if g["params"]], lr=self.lr, eps=self.eps, fused=fused)
        iterations = int(self.trainer.estimated_stepping_batches)
        rate = factor(iterations, self.warmup, self.warmup_from, self.drops, self.drop_by)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return {k: t.to(device) if isinstance(t, Tensor) else t for k, t in batch.items()}

    # Training ----------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        self.started, self.began, self.questions = time.process_time(), time.perf_counter(), 0

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = bce_loss(self.net(batch), batch["targets"], batch["loss_mask"])
        if batch_idx % LOG_EVERY == 0:
            self.log("train/loss", loss, batch_size=len(batch["prev_inds"]))
            if not torch.isfinite(loss):
                raise UserError(
                    f"the loss is {loss.item()} in epoch {self.current_epoch}: lower model.lr (it is {self.lr:g})"
                )
        return loss

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs the epoch's questions a second, all processes together and before the look: for people, not results."""
        self.questions += len(batch["prev_inds"])
        if self.trainer.is_last_batch:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # the last steps are still under way
            rate = self.questions / (time.perf_counter() - self.began)
            self.log(
                "train/samples_per_second", rate, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True,
                batch_size=1,
            )  # fmt: skip

    def on_train_epoch_end(self) -> None:
        self.train_seconds += time.process_time() - self.started

    # Looks -------------------------------------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._look(batch, self.data.val)

    def _look(self, batch: dict[str, Any], data: Any) -> list[str]:
        indices = self.net.decode(batch, beam=self.beam).indices
        if "samples" in batch:
            tokens = [sample.ocr_tokens for sample in batch["samples"]]
            answers = [sample.answers for sample in batch["samples"]]
        else:
            rows = batch["rows"].tolist()
            tokens, answers = [data.tokens[row] for row in rows], [data.answers[row] for row in rows]
            among = torch.nonzero(spatial_rows(data)[rows])[:, 0].tolist()
            spatial = (indices[among], [tokens[n] for n in among], [answers[n] for n in among])
            self.looks["spatial"].update(*spatial, self.data.vocabulary)  # type: ignore[operator]
        self.looks["accuracy"].update(indices, tokens, answers, self.data.vocabulary)  # type: ignore[operator]
        texts = said(self.data.vocabulary, indices, tokens)
        for metric in self.challenge.values():
            metric.update(texts, answers)  # type: ignore[operator]
        for sample, text in zip(batch.get("samples", []), texts):
            if is_spatial(sample.question):
                self.looks["spatial_textvqa"].update([text], [sample.answers])  # type: ignore[operator]
                if sample.answers and answerable_from_ocr(sample.answers, sample.ocr_tokens):
                    self.looks["spatial_ocr"].update([text], [sample.answers])  # type: ignore[operator]
        return texts

    def on_validation_epoch_end(self) -> None:
        found = self._looked()
        for name, value in found.items():
            self.curves.setdefault(f"val/{name}", []).append(value)
            self.log(f"val/{name}", value)
        if self.keep_best:
            if self.keep_best not in found:
                raise UserError(f"keep_best is {self.keep_best}: the looks give {', '.join(found)}")
            if not self.best or found[self.keep_best] > self.best["value"]:
                weights = {name: tensor.detach().cpu().clone() for name, tensor in self.net.state_dict().items()}
                look = len(self.curves[f"val/{self.keep_best}"]) - 1
                self.best = {"value": found[self.keep_best], "look": look, "weights": weights}

    def on_train_end(self) -> None:
        if self.best:
            self.net.load_state_dict(self.best["weights"])

    def _looked(self) -> dict[str, float]:
        """The numbers of a look, over all processes; one that no sample counts for is left out."""
        found = {}
        for name, metric in (*self.looks.items(), *self.challenge.items()):
            found[name] = float(metric.compute())  # type: ignore[operator]
            metric.reset()  # type: ignore[operator]
        on_disk, by_ocr, whole = found.pop("spatial_textvqa"), found.pop("spatial_ocr"), found.pop("spatial")
        # TextVQA's accuracy of the spatial subset where questions come from its files, else whole answers.
        found |= {"spatial": on_disk if on_disk == on_disk else whole, "spatial_ocr": by_ocr}
        return {name: value for name, value in found.items() if value == value}

    def on_test_epoch_start(self) -> None:
        self.final = {}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        if not isinstance(self.data.test, TensorSet):
            self._look(batch, self.data.test)

    def on_test_epoch_end(self) -> None:
        test = self.data.test
        if not isinstance(test, TensorSet):
            self.final = {f"test/{name}": value for name, value in self._looked().items()}
            return
        self.final = {f"test/{k}": v for k, v in measure(self.net, self.data.vocabulary, test, self.beam).items()}
        self.final |= {"test/mean_degree": sparsity(test), "test/answerable": answerable(test)}
        if self.data.dataset != "scenes":
            return
        self.final["test/reference_attention"] = attended(self.net, test)
        if self.probes:
            for name, probe in self.data.probes().items():
                found = measure(self.net, self.data.vocabulary, probe)
                self.final |= {f"{name}/{what}": found[what] for what in ("accuracy", "spatial") if what in found}
            self.final |= flips(self.net, self.data)
        if self.picture:
            self.pictured = picture(self.net, self.data)
            asker = Asker(copy.deepcopy(self.net).cpu(), self.data.vocabulary, self.data.encoder)
            width, objects = self.data.encoding.feature_width, self.data.scenes.objects
            self.pictured |= asked(asker, example_scene(SEED, width, self.data.ocr_appearance, objects))

    def results(self) -> dict[str, Any]:
        """What the ledger reads: numbers of the test set and of the look whose weights were kept; curves of all."""
        look = self.best.get("look", -1)
        last = {name: curve[look] for name, curve in self.curves.items() if curve}
        numbers = {name: value for name, value in (last | self.final).items() if value == value}
        numbers["train/cpu_seconds"] = self.train_seconds
        numbers["parameters"] = float(sum(p.numel() for p in self.net.parameters()))
        return numbers | {f"curve/{name}": values for name, values in self.curves.items()} | self.pictured

    # Checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["spatial_textvqa"] = {
            "config": plain_config(self.net.config),
            "vocabulary": self.data.vocabulary.words,
            "encoding": self.data.encoding.plain(),
            "scenes": {"ocr_appearance": self.data.ocr_appearance, "objects": self.data.scenes.objects},
        }
        checkpoint["looks"] = {"curves": self.curves, "train_seconds": self.train_seconds, "best": self.best}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        looks = checkpoint.get("looks", {})
        self.curves, self.train_seconds = looks.get("curves", {}), looks.get("train_seconds", 0.0)
        self.best = looks.get("best", {})


def network_config(options: dict[str, Any], data: TextVQAData) -> SAM4CConfig:
    """The network for these data."""
    encoding, vocabulary = data.encoding, data.vocabulary
    return SAM4CConfig(
        vocab_size=len(vocabulary),
        start_index=vocabulary.start,
        end_index=vocabulary.end,
        question="bert" if encoding.question == "bert" else "words",
        question_vocab=30522 if encoding.question == "bert" else len(encoding.question_words),
        question_length=encoding.question_length,
        feature_width=encoding.feature_width,
        max_objects=encoding.max_objects,
        max_ocr=encoding.max_ocr,
        steps=encoding.steps,
        word_vectors=data.encoder.words.vectors.dim,
        **options,
    )


def plain_config(config: SAM4CConfig) -> dict[str, Any]:
    return {
        name: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for name, v in asdict(config).items()
    }


def load(path: Path | str) -> tuple[SAM4C, Vocabulary, dict[str, Any]]:
    """A trained network in eval mode, its fixed vocabulary, and `{"config", "encoding", "scenes"}`.

    `Encoder(Encoding.of(settings["encoding"]), vocabulary)` reads samples as the run that trained it did.

    Raises:
        UserError: no such file, no checkpoint, or one of another program.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such checkpoint; `python train.py fit --config configs/quick.yaml` makes one"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name the checkpoint in it, such as final.ckpt") from None
    except (RuntimeError, EOFError, KeyError, AttributeError, TypeError, ValueError, pickle.UnpicklingError):
        raise UserError(f"{path}: not a checkpoint, or a damaged one") from None
    own = content.get("spatial_textvqa") if isinstance(content, dict) else None
    if not isinstance(own, dict):
        raise UserError(f"{path}: a checkpoint, but not one of spatial_textvqa's train.py")
    model = SAM4C(SAM4CConfig(**own["config"]))
    weights = {k.removeprefix("net."): v for k, v in content["state_dict"].items() if k.startswith("net.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise UserError(f"{path}: its weights do not fit its own configuration: made by another version?") from None
    settings = {"config": own["config"], "encoding": own["encoding"], "scenes": own.get("scenes", {})}
    return model.eval(), Vocabulary(own["vocabulary"]), settings
