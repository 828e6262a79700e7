"""From samples to batches: one way for any sample, a fast one for scenes, the same result."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared.errors import UserError
from spatial_textvqa.answers import targets
from spatial_textvqa.data import scenes as S
from spatial_textvqa.data.encode import Encoder, Encoding
from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.data.tensors import Batches, TargetTable, encoded, encoded_scenes
from spatial_textvqa.vocabulary import Vocabulary

SMALL: dict[str, Any] = {"train_samples": 70, "val_samples": 20, "test_samples": 30, "feature_width": 16}


def encoder(**changes: Any) -> Encoder:
    settings = {"question": "content", "question_words": S.question_words(True), "question_length": 3}
    settings |= {"max_objects": 6, "max_ocr": 6, "feature_width": 16, "steps": 2}
    return Encoder(Encoding(**(settings | changes)), S.VOCABULARY)


def test_scenes_at_once_are_the_scenes_one_by_one() -> None:
    scenes = S.draw(S.Settings(kinds=S.KINDS, two_tokens=True), 5, range(40))
    read = encoder(max_ocr=12, steps=3)
    fast = encoded_scenes(scenes, read, 5, "object")
    objects, tokens = S.features(scenes, 5, 16, "object")
    assert tokens is not None
    samples = [
        replace(scenes.sample(i), obj_features=objects[i], ocr_features=tokens[i, : len(scenes.tokens(i))])
        for i in range(40)
    ]
    slow = encoded(samples, read)
    collated, quick = read.collate(samples), fast.batch(torch.arange(40))
    other = slow.batch(torch.arange(40))
    for name in ("question_ids", "question_mask", "obj_features", "obj_boxes", "obj_mask", "ocr_features", "ocr_boxes",
                 "ocr_mask", "ocr_fasttext", "ocr_phoc", "relations", "targets", "prev_inds", "loss_mask"):  # fmt: skip
        torch.testing.assert_close(quick[name], collated[name], msg=name)
        torch.testing.assert_close(other[name], collated[name], msg=name)
    assert (fast.wanted == slow.wanted).all()
    assert fast.answers == slow.answers
    assert collated["samples"] == samples


def test_graphs_are_bytes_and_computed_once_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_textvqa.data import encode

    made = []

    def counted(*args: Any) -> Any:
        made.append(args)
        return real(*args)

    real = encode.relations
    monkeypatch.setattr(encode, "relations", counted)
    sample = S.draw(S.Settings(), 0, [0]).sample(0)
    read = encoder()
    batch = read.collate([sample, replace(sample, sample_id="another", question="what is written on the red star")])
    assert len(made) == 1
    assert batch["relations"].dtype == torch.uint8
    assert read.graphs[sample.image_id].nbytes == 12 * 12
    assert encoded([sample, replace(sample, sample_id="b")], read).images["relations"].shape[0] == 1


def test_tables_of_words_grow_without_a_copy_for_each_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_textvqa.data import encode

    monkeypatch.setattr(encode, "ROOM", 2)
    words, places = encode.Words(), set()
    for i in range(40):
        assert words.rows([f"word{i}", "word0"]).tolist() == [i + 1, 1]
        places.add(words.fasttext.data_ptr())
    assert len(places) <= 6  # 2, 4, 8 ... 64 rows
    again = encode.Words()
    rows = again.rows([f"word{i}" for i in range(40)])
    for name in ("fasttext", "phoc"):
        torch.testing.assert_close(getattr(words, name)[1:41], getattr(again, name)[rows], rtol=0, atol=0)
        assert not getattr(words, name)[0].any()
        assert not getattr(words, name)[41:].any()


def test_word_vectors_have_the_width_of_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_textvqa.data import encode

    from spatial_textvqa import word_vectors

    monkeypatch.setattr(encode, "FastText", lambda path, cache: word_vectors.HashVectors(5))
    read = encode.Words("vectors.bin")
    read.rows(["stop"])
    assert read.fasttext.shape[1] == 5


def test_a_sample_without_objects_text_or_answers_is_a_batch() -> None:
    batch = encoder().collate([Sample("a", "a", "what is written on the red star")])
    assert not batch["obj_mask"].any()
    assert not batch["ocr_mask"].any()
    assert (batch["relations"] == 0).all()
    assert batch["loss_mask"].sum() == 0


def test_a_box_at_no_place_is_padding() -> None:
    boxes = np.array([[0, 0, 0, 0], [0.1, 0.1, 0.2, 0.2]], dtype=np.float32)
    batch = encoder().collate([Sample("a", "a", "left red star", ocr_tokens=["x", "y"], ocr_boxes=boxes)])
    assert batch["ocr_mask"][0, :2].tolist() == [False, True]


def test_boxes_are_kept_from_the_network_but_not_from_the_graph() -> None:
    sample = S.draw(S.Settings(), 0, [0]).sample(0)
    told, untold = (encoder(boxes=boxes).collate([sample]) for boxes in (True, False))
    assert (untold["obj_boxes"] == 0).all()
    assert (untold["ocr_boxes"] == 0).all()
    assert (untold["relations"] == told["relations"]).all()
    assert untold["ocr_mask"].all()


def test_random_relations_are_the_same_labels_elsewhere_and_the_same_again() -> None:
    sample = S.draw(S.Settings(), 0, [0]).sample(0)
    spatial, first, second = (
        encoder(relations=kind).collate([sample])["relations"] for kind in ("spatial", "random", "random")
    )
    assert (first == second).all()
    assert not (first == spatial).all()
    assert (first.flatten().sort().values == spatial.flatten().sort().values).all()


def test_questions_are_cut_to_content_words_and_to_their_length() -> None:
    read = encoder()
    ids, mask = read.question("What word is LEFT of the Blue circle?")
    words = [read.encoding.question_words[i] for i in ids.tolist()]
    assert words == ["left", "blue", "circle"]
    assert mask.all()
    whole = encoder(question="words", question_words=S.question_words(), question_length=10)
    ids, mask = whole.question("what word is left of the blu circle")
    assert ids.tolist()[6] == 1  # <unk>
    assert mask.sum() == 8
    whole.question("what word is left of the blue circle " * 2)
    assert whole.lost["questions"] == 1


def test_a_question_without_a_known_word_says_what_is_known() -> None:
    with pytest.raises(
        UserError, match=r"sample q7: no word of the question 'Huh\?' is known to this model; it knows on"
    ):
        encoder().collate([Sample("q7", "a", "Huh?")])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ocr_boxes": np.full((1, 4), np.nan, dtype=np.float32)}, "sample q: box 0"),
        ({"ocr_boxes": np.array([[0.5, 0, 0.4, 1]], dtype=np.float32)}, "sample q: box 0"),
        ({"ocr_boxes": np.zeros((2, 4), dtype=np.float32)}, "1 OCR tokens and 2 boxes"),
        ({"ocr_features": np.zeros((1, 5), dtype=np.float32)}, r"OCR features are \(1, 5\), expected \(rows, 16\)"),
    ],
)
def test_what_is_wrong_with_a_sample_names_it(change: dict[str, Any], says: str) -> None:
    sample = Sample("q", "a", "left", ocr_tokens=["x"], ocr_boxes=np.array([[0, 0, 1, 1]], dtype=np.float32))
    with pytest.raises(UserError, match=says):
        encoder().collate([replace(sample, **change)])


def test_what_has_no_room_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    from spatial_textvqa.data import encode

    read = encoder(max_objects=4, max_ocr=3)
    batch = read.collate([S.draw(S.Settings(), 0, [0]).sample(0)])
    assert batch["obj_mask"].shape == (1, 4)
    assert batch["relations"].shape == (1, 7, 7)
    encode.report_lost(read.taken_lost())
    assert "1 samples had more objects" in caplog.text
    assert "1 samples had more tokens" in caplog.text


def test_a_target_table_gives_what_the_samples_give() -> None:
    vocabulary = Vocabulary.of(["stop", "sign"])
    every = [
        targets(["stop"] * 7 + ["stop sign"] * 3, ["stop", "sign", "stop"], vocabulary, 4, 5),
        targets(["nowhere"] * 10, ["stop"], vocabulary, 4, 5),
        targets(["sign"] * 10, ["sign"], vocabulary, 4, 5),
    ]
    table = TargetTable(every, len(vocabulary) + 5)
    rows = torch.tensor([2, 0, 1, 0])
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(50):
        batch = table.dense(table.drawn(rows, generator))
        for b, row in enumerate(rows.tolist()):
            ways = every[row].distinct or [None]
            expected = [every[row].dense(every[row].at(way)) for way in ways]
            given = [batch[name][b] for name in ("targets", "prev_inds", "loss_mask")]
            same = [n for n, e in enumerate(expected) if all(map(torch.equal, e, given))]
            assert len(same) == 1
            seen.add((row, same[0]))
    assert len(seen) == sum(len(one.distinct) for one in every) + 1  # every way, and the one of no way


def test_an_epoch_shows_every_question_once_and_another_order_next_time() -> None:
    data = TextVQAData(**SMALL)
    data.setup()
    orders = [
        torch.cat([b["rows"] for b in Batches(data.train, 32, torch.Generator().manual_seed(s))]) for s in (0, 0, 1)
    ]
    assert orders[0].sort().values.tolist() == list(range(70))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_processes_share_an_epoch_in_equal_parts() -> None:
    """Every question is in one process's part; 70 of three processes are filled up to 72 by the first of the order."""
    data = TextVQAData(**SMALL)
    data.setup()
    whole = torch.cat([b["rows"] for b in Batches(data.train, 8, torch.Generator().manual_seed(0))])
    parts = [Batches(data.train, 8, torch.Generator().manual_seed(0), rank, 3) for rank in range(3)]
    rows = [[b["rows"] for b in part] for part in parts]
    assert [len(part) for part in parts] == [len(each) for each in rows] == [3, 3, 3]
    together = torch.stack([torch.cat(each) for each in rows], 1).flatten()
    assert torch.equal(together, torch.cat([whole, whole[:2]]))
    states = {bytes(part.generator.get_state().tolist()) for part in parts if part.generator}
    assert len(states) == 1  # the order goes on alike in all of them


PROCESSES = """
import json, os, sys
from pathlib import Path
import pytorch_lightning as L, torch
from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.module import SpatialTextVQA

torch.set_num_threads(1)
folder, model, data = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])

class Seen(SpatialTextVQA):
    def on_fit_start(self):
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["rows"].tolist())
        return super().training_step(batch, batch_idx)

def fit(rank):
    L.seed_everything(0, verbose=False)
    module = Seen(**model)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
    )
    trainer.fit(module, TextVQAData(**data))
    assert torch.distributed.get_backend() == "gloo" and trainer.world_size == 2
    (folder / f"{rank}.json").write_text(json.dumps(module.seen))
    torch.save(module.net.state_dict(), folder / f"{rank}.pt")

pids = []
for rank in range(2):
    os.environ["LOCAL_RANK"] = str(rank)
    if not (pid := os.fork()):
        fit(rank)
        os._exit(0)
    pids.append(pid)
sys.exit(any([os.waitpid(pid, 0)[1] for pid in pids]))
"""


@pytest.mark.slow
def test_two_processes_train_one_network_on_halves_of_every_epoch(tmp_path: Path) -> None:
    """Lightning's DDP over gloo: 70 questions are 35 and 35, five batches each; another order in the
    next epoch; both processes end with the same weights to the bit.
    """
    model = {"dim": 24, "ffn": 24, "layers": "ns", "text_layers": 0, "dropout": 0.0, "init": "default", "warmup": 1}
    (tmp_path / "two.py").write_text(PROCESSES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    data = {**SMALL, "batch_size": 8}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "two.py"), str(tmp_path), json.dumps(model), json.dumps(data)],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [[len(rows) for rows in each] for each in seen] == [[8, 8, 8, 8, 3] * 2] * 2
    epochs = [[[row for rows in each[first : first + 5] for row in rows] for each in seen] for first in (0, 5)]
    for one, other in epochs:
        assert sorted(one + other) == list(range(70))
    assert epochs[0] != epochs[1]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_features_are_made_in_pieces_of_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = S.draw(S.Settings(two_tokens=True), 5, range(10))
    whole = S.features(scenes, 5, 16, "object")
    asked = []
    normal = S.draws.normal
    monkeypatch.setattr(S.draws, "normal", lambda *a: asked.append(len(a[1])) or normal(*a))
    monkeypatch.setattr(S, "AT_ONCE", 4)
    pieces = S.features(scenes, 5, 16, "object")
    assert all((one == other).all() for one, other in zip(whole, pieces))
    assert max(asked) == 4


def test_parts_have_no_scene_in_common_and_follow_the_seed() -> None:
    torch.manual_seed(3)
    data = TextVQAData(**SMALL)
    data.setup()
    boxes = [
        {tuple(row.flatten().tolist()) for row in part.images["obj_boxes"]}
        for part in (data.train, data.val, data.test)
    ]
    assert not boxes[0] & boxes[1]
    assert not (boxes[0] | boxes[1]) & boxes[2]
    torch.manual_seed(4)
    other = TextVQAData(**SMALL)
    other.setup()
    assert not torch.equal(other.test.images["obj_boxes"], data.test.images["obj_boxes"])


def test_ood_words_of_the_test_are_not_those_of_training() -> None:
    data = TextVQAData(**SMALL, ood_words=True)
    data.setup()
    words = [{w for tokens in part.tokens for w in tokens} for part in (data.train, data.test)]
    assert not words[0] & words[1]


def test_probes_change_one_thing_each() -> None:
    data = TextVQAData(**SMALL)
    data.setup()
    probes = data.probes()
    assert torch.equal(probes["transposed"].images["relations"], data.test.images["relations"].mT)
    assert torch.equal(probes["other_scene"].images["relations"][1], data.test.images["relations"][0])
    assert probes["more_objects"].images["obj_boxes"].shape[1] == 9
    assert 0 < len(probes["flipped"]) < 30


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"dataset": "coco"}, "dataset is 'coco'"),
        ({"relations": "none"}, "relations is 'none'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"train_samples": 0}, "train_samples is 0"),
        ({"question": "letters"}, "question is 'letters'"),
        ({"question_length": 0}, "question_length is 0"),
        ({"threshold": 0.0}, "threshold is 0"),
        ({"max_ocr": 3}, "scenes have 6 objects and 6 tokens"),
        ({"max_objects": -1}, "max_objects is -1"),
        ({"dataset": "textvqa"}, "give the file of its fixed answers"),
    ],
)
def test_settings_that_mean_nothing_say_so(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TextVQAData(**wrong)


def test_bert_needs_its_vocabulary_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give BERT's vocabulary file as data\.wordpiece"):
        TextVQAData(**SMALL, question="bert").setup()
