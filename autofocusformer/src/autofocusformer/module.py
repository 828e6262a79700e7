"""How the network trains."""

from __future__ import annotations

import pytorch_lightning as L
import torch
from shared.errors import UserError
from torch import Tensor, nn

from autofocusformer.data import Images
from autofocusformer.model import Net


class Classifier(L.LightningModule):
    """A classifier by cross entropy and Adam.

    Args:
        hidden: units of the hidden layer.
        dropout: share of them dropped in training.
        lr: learning rate.

    Raises:
        UserError: a setting out of its range.
    """

    def __init__(self, hidden: int = 64, dropout: float = 0.0, lr: float = 1e-3) -> None:
        super().__init__()
        if hidden < 1:
            raise UserError(f"hidden is {hidden}: it has to be at least 1")
        if not 0 <= dropout < 1:
            raise UserError(f"dropout is {dropout}: it has to be in [0, 1)")
        self.hidden, self.dropout, self.lr = hidden, dropout, lr

    def configure_model(self) -> None:
        if not hasattr(self, "net"):
            data: Images = self.trainer.datamodule  # type: ignore[attr-defined]
            self.net = Net(data.inputs, self.hidden, data.classes, self.dropout)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, labels = batch
        loss = nn.functional.cross_entropy(self.net(x), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        x, labels = batch
        wrong = self.net(x).argmax(1) != labels
        self.log("test/error", 100 * wrong.float().mean(), on_epoch=True, batch_size=len(labels))
