"""Word vectors and word pieces against the published libraries; hashed vectors; damaged files."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shared.errors import UserError
from spatial_textvqa.data.encode import Words
from spatial_textvqa.word_vectors import FastText, HashVectors, fnv, grams, parse_header, read_header
from spatial_textvqa.wordpiece import WordPiece

GOLDEN = Path(__file__).parent / "golden"
MODEL = GOLDEN / "tiny_fasttext.bin"
FASTTEXT = json.loads((GOLDEN / "tiny_fasttext.json").read_text())
PIECES = json.loads((GOLDEN / "wordpiece.json").read_text())


def test_fasttext_vectors_are_the_library_s() -> None:
    vectors, words = FastText(MODEL), list(FASTTEXT["vectors"])
    expected = torch.tensor(list(FASTTEXT["vectors"].values()))
    torch.testing.assert_close(vectors(words), expected, rtol=1e-5, atol=1e-8)
    both = vectors(["stop exit", "", "  exit "])
    torch.testing.assert_close(both[0], (vectors(["stop"])[0] + vectors(["exit"])[0]) / 2)
    assert not both[1].any()
    assert torch.equal(both[2], vectors(["exit"])[0])
    assert vectors([]).shape == (0, 6)


def test_the_header_states_the_matrix() -> None:
    header, _ = read_header(MODEL)
    assert (header.dim, header.words) == (FASTTEXT["dim"], FASTTEXT["nwords"])
    assert FastText(MODEL).memory == 4 * header.rows * header.dim
    assert MODEL.stat().st_size > FastText(MODEL).memory


def test_hashes_of_the_library() -> None:
    """Its ids of subwords are nwords + hash mod bucket."""
    data = MODEL.read_bytes()
    bucket, min_n, max_n = struct.unpack_from("<12i", data, 8)[8:11]
    checked = 0
    for word, (names, ids) in FASTTEXT["subwords"].items():
        ours = {g: FASTTEXT["nwords"] + fnv(g.encode()) % bucket for g in grams(word, min_n, max_n)}
        theirs = {name: i for name, i in zip(names, ids) if i >= FASTTEXT["nwords"]}
        assert ours == theirs, word
        checked += len(theirs)
    assert checked > 20


def test_a_cache_replaces_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "words.npz"
    first = FastText(MODEL, cache)
    expected = first(["stop", "日本", "new york"])
    first.save()
    assert [p.name for p in tmp_path.iterdir()] == ["words.npz"]
    assert first.model is None
    monkeypatch.setattr(FastText, "load", lambda self: pytest.fail("the matrix was read"))
    assert torch.equal(FastText(MODEL, cache)(["stop", "日本", "new york"]), expected)
    with np.load(cache) as file:
        np.savez(cache, **(dict(file) | {"source": "other"}))
    with pytest.raises(UserError, match="holds the vectors of another file"):
        FastText(MODEL, cache)
    cache.write_bytes(b"no archive")
    with pytest.raises(UserError, match="is no cache of word vectors"):
        FastText(MODEL, cache)
    with pytest.raises(UserError, match="no cache to save"):
        FastText(MODEL).save()


def test_a_cache_of_a_model_that_was_trained_on_is_stale(tmp_path: Path) -> None:
    """Same words, same size, another matrix: the cache would give the vectors of before."""
    model, cache = tmp_path / "model.bin", tmp_path / "words.npz"
    model.write_bytes(MODEL.read_bytes())
    first = FastText(model, cache)
    first(["stop"])
    first.save()
    content = bytearray(MODEL.read_bytes())
    content[-first.memory :] = bytes(first.memory)
    model.write_bytes(content)
    with pytest.raises(UserError, match="holds the vectors of another file"):
        FastText(model, cache)


def test_a_model_without_subwords_gives_unknown_words_zeros(tmp_path: Path) -> None:
    data, model = MODEL.read_bytes(), tmp_path / "model.bin"
    with MODEL.open("rb") as file:
        header, _ = parse_header(file, MODEL)
        start = file.tell()
    numbers = list(struct.unpack_from("<12i", data, 8))
    numbers[8] = 0  # buckets
    words, after = 4 * header.words * header.dim, start + 4 * header.rows * header.dim
    model.write_bytes(
        data[:8] + struct.pack("<12i", *numbers) + data[56 : start - 16] + struct.pack("<2q", header.words, header.dim)
        + data[start : start + words] + data[after:]
    )  # fmt: skip
    vectors = FastText(model)
    known, unknown, both = vectors(["stop", "unheardof", "stop unheardof"])
    assert known.any()
    assert not unknown.any()
    torch.testing.assert_close(both, known / 2)


def test_the_words_of_a_data_set_are_looked_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(MODEL.read_bytes())
    first = Words(str(model))
    first.prepare(["stop", "new york", "stop"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.bin.words.npz"]
    monkeypatch.setattr(FastText, "load", lambda self: pytest.fail("the matrix was read"))
    again = Words(str(model))
    again.prepare(["new york", "stop"])
    assert torch.equal(first.fasttext[first.rows(["stop"])], again.fasttext[again.rows(["stop"])])
    monkeypatch.undo()
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    again.vectors.model = object()
    again.prepare([])
    assert "not kept (Permission denied)" in caplog.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: b"1 2 3 4 5 6 7" + d, "is no fastText model"),
        (lambda d: d[:4] + struct.pack("<i", 11) + d[8:], "version 11: version 12 is read"),
        (lambda d: d[:40], "is cut off at byte"),
        (lambda d: d[:150], "is cut off at byte"),
        (lambda d: d[: -len(d) // 2], "does not fit"),
        (lambda d: b"", "is cut off at byte 0"),
    ],
)
def test_files_that_are_no_models(change: object, says: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(change(MODEL.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UserError, match=says):
        FastText(path)


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    data, path = bytearray(MODEL.read_bytes()), tmp_path / "model.bin"
    matrix = FastText(MODEL).memory
    flag = data.rfind(b"\0" + struct.pack("<q", read_header(MODEL)[0].rows), 0, len(data) - 1)
    assert 0 < flag < len(data)
    assert matrix
    data[flag] = 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is quantised: give the full model"):
        FastText(path)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no fastText file at .*none.bin"):
        FastText(tmp_path / "none.bin")
    monkeypatch.setitem(sys.modules, "gensim.models.fasttext", None)
    with pytest.raises(UserError, match="are read by gensim"):
        FastText(MODEL)(["stop"])


def test_hashed_vectors() -> None:
    """Deterministic, near for words that share n-grams, zero for nothing."""
    words = ["street", "streets", "pizza", "", "new york", "日本", "a"]
    first, second = HashVectors()(words), HashVectors()(words[::-1]).flip(0)
    assert torch.equal(first, second)
    assert first.shape == (7, 300)
    near = torch.nn.functional.cosine_similarity(first[:1], first)
    assert near[1] > 0.5 > 0.2 > near[2].abs()
    assert not first[3].any()
    assert first[[0, 1, 2, 4, 5, 6]].any(1).all()
    torch.testing.assert_close(first[4], HashVectors()(["new", "york"]).mean(0))
    one = HashVectors(4)(["a"])  # of the single gram <a>: written down, so that no version changes it
    torch.testing.assert_close(one, torch.tensor([[0.8403, -0.7765, 0.8734, 0.7160]]), rtol=0, atol=1e-4)
    big = HashVectors()([f"w{i}x" for i in range(500)])
    assert abs(float(big.mean())) < 0.01


def vocabulary(tmp_path: Path, pieces: list[str]) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def test_word_pieces_are_the_library_s(tmp_path: Path) -> None:
    pieces = WordPiece(vocabulary(tmp_path, PIECES["vocab"]))
    assert pieces.size == len(PIECES["vocab"])
    for case in PIECES["cases"]:
        assert pieces.ids(case["text"]) == case["ids_untruncated"]
        ids, mask = pieces(case["text"], PIECES["max_length"])
        assert ids.tolist() == case["padded"]
        assert int(mask.sum()) == case["num"]
    ids, mask = pieces("what is the name of the street " * 4)
    assert ids.tolist() == [2, *[5, 6, 7, 8, 9, 7, 31] * 2, 5, 6, 7, 8, 9]  # cut, without [SEP]
    assert mask.all()
    assert pieces("")[0][:3].tolist() == [2, 3, 0]


def test_vocabularies_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no WordPiece vocabulary at"):
        WordPiece(tmp_path / "none.txt")
    for pieces, says in (
        (["[PAD]", "a"], r"lacks \[UNK\], \[CLS\], \[SEP\]"),
        ([*PIECES["vocab"], "red"], "line 42: 'red' stands in line 19 already"),
        (PIECES["vocab"][::-1], r"\[PAD\] is number 40"),
    ):
        with pytest.raises(UserError, match=says):
            WordPiece(vocabulary(tmp_path, pieces))
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8"):
        WordPiece(tmp_path / "vocab.txt")
