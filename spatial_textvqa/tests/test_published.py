"""The published model's weights become a checkpoint that is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from shared.errors import UserError
from spatial_textvqa.__main__ import main
from spatial_textvqa.ask import Asker
from spatial_textvqa.checkpoint import save_published
from spatial_textvqa.model import SAM4C, SAM4CConfig
from spatial_textvqa.picture import Picture, Word

from spatial_textvqa import encoders

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "is", "left"]


def test_imported_weights_answer_as_the_network_they_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setattr(encoders, "BERT", sizes)
    torch.manual_seed(0)
    small: dict[str, Any] = {"vocab_size": 6, "dim": 12, "ffn": 8, "feature_width": 4, "layers": "nss"}
    model = SAM4C(SAM4CConfig(**small, text_layers=2)).eval()
    save_published(model, tmp_path / "weights.pt")
    (tmp_path / "answers.txt").write_text("<pad>\n<s>\n</s>\n<unk>\nyes\nno\n")
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    files = {"weights": "weights.pt", "vocabulary": "answers.txt", "wordpiece": "vocab.txt", "out": "out.ckpt"}
    argv = [part for name, file in files.items() for part in (f"--{name}", str(tmp_path / file))]
    assert main(["import", *argv, "--word_vectors", "hash", "--layers", "nss"]) == 0
    asker = Asker.load(tmp_path / "out.ckpt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(asker.model.state_dict()[name], tensor), name
    picture = Picture("p", 100, 100, [Word("EXIT", (1.0, 2.0, 30.0, 40.0))])
    batch = asker.batch(picture, "what is left")
    torch.testing.assert_close(asker.model.decode(batch).scores, model.decode(batch).scores)
    asker.ask(picture, "what is left")
    with pytest.raises(UserError, match=r"weights\.pt"):
        main(["import", *argv, "--word_vectors", "hash", "--layers", "nsss"])
    (tmp_path / "answers.txt").write_text("<pad>\n<s>\n</s>\n<unk>\nyes\n")
    with pytest.raises(UserError, match=r"classifier\.weight has shape \(6, 12\), this model's is \(5, 12\)"):
        main(["import", *argv, "--word_vectors", "hash", "--layers", "nss"])
