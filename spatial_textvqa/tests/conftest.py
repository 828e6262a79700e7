"""A small network that really answers: taught a handful of scenes, their questions and the flipped ones, by heart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from spatial_textvqa.answers import bce_loss
from spatial_textvqa.data import scenes
from spatial_textvqa.data.encode import Encoder, Encoding
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.demo.scenes import flippable_scenes
from spatial_textvqa.model import SAM4C, SAM4CConfig
from spatial_textvqa.module import plain_config

WIDTH, SCENES, MOST_UPDATES = 32, 6, 600


def both_ways(samples: list[Sample]) -> list[Sample]:
    """Every sample, and the same with its question flipped."""
    flipped = [replace(s, question=s.flipped[0], answers=[s.flipped[1]] * 10) for s in samples if s.flipped]
    return [*samples, *flipped]


@pytest.fixture(scope="session")
def shown_scenes() -> list[Sample]:
    return flippable_scenes(SCENES, WIDTH)


@pytest.fixture(scope="session")
def small_checkpoint(shown_scenes: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as `module.load` takes it, of a network that knows `shown_scenes`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: more threads only wait for each other
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vocabulary = scenes.VOCABULARY
        words = scenes.question_words(content=True)
        encoding = Encoding("content", words, question_length=3, max_objects=6, max_ocr=6, feature_width=WIDTH, steps=2)
        config = SAM4CConfig(
            vocab_size=len(vocabulary), start_index=vocabulary.start, end_index=vocabulary.end, question="words",
            question_vocab=len(words), question_length=3, text_layers=0, dim=48, heads=12, ffn=96, layers="nss",
            feature_width=WIDTH, max_objects=6, max_ocr=6, steps=2, dropout=0.0, init="default",
        )  # fmt: skip
        model = SAM4C(config)
        batch = Encoder(encoding, vocabulary).collate(both_ways(shown_scenes))
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(MOST_UPDATES):
            scores = model(batch)
            right = batch["targets"].argmax(-1)
            if (scores.argmax(-1) == right).all() and scores.sigmoid().gather(-1, right[..., None]).min() > 0.8:
                break
            optimiser.zero_grad()
            bce_loss(scores, batch["targets"], batch["loss_mask"]).backward()
            optimiser.step()
        else:
            pytest.fail(f"the network does not know {SCENES} scenes by heart after {MOST_UPDATES} updates")
    torch.set_num_threads(threads)
    own = {"config": plain_config(config), "vocabulary": vocabulary.words, "encoding": encoding.plain()}
    path = tmp_path_factory.mktemp("small") / "small.ckpt"
    torch.save({"state_dict": {f"net.{k}": v for k, v in model.state_dict().items()}, "spatial_textvqa": own}, path)
    return path
