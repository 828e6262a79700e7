"""A drawn scene as files, and README's commands about it as a new user types them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared.errors import UserError
from shared.runs.plan import read_yaml
from spatial_textvqa.__main__ import main
from spatial_textvqa.ask import Asker
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.example import FEATURE_WIDTH, asked, retold, write_example
from spatial_textvqa.scene_picture import FILL

HERE = Path(__file__).resolve().parent.parent
FILES = ("features.npz", "objects.json", "ocr.json", "scene.png")


def readme_commands() -> list[list[str]]:
    """`example` and `ask` of README's block about a picture, as arguments; the training before it is left out."""
    section = (HERE / "README.md").read_text().split("## Ask it about your own picture")[1]
    block = next(part for part in section.split("\n\n") if "spatial_textvqa ask" in part)
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    train, *others = [words for words in lines if words]
    assert train[:3] == ["python", "train.py", "fit"]
    assert all(words[:3] == ["python", "-m", "spatial_textvqa"] for words in others)
    return [words[3:] for words in others]


def test_the_readme_s_two_commands_give_the_answer_that_the_first_says_is_right(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example, ask = readme_commands()
    assert [example[0], ask[0]] == ["example", "ask"]
    checkpoint = tmp_path / ask[ask.index("--ckpt") + 1]
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(small_checkpoint, checkpoint)
    monkeypatch.chdir(tmp_path)
    assert main(example) == 0
    said = capsys.readouterr().out
    assert f'"{ask[-1]}"' in said
    right = re.search(r"^right answer: (\w+)$", said, re.MULTILINE)
    assert right is not None
    assert main(ask) == 0
    answered = capsys.readouterr()
    assert answered.out.startswith(f"answer: {right[1]}\n")
    assert answered.err == ""
    assert Path(ask[ask.index("--explain") + 1]).is_file()


@pytest.mark.parametrize("number", [0, 1])
def test_what_a_run_keeps_of_asking_is_what_the_command_prints(
    small_checkpoint: Path, shown_scenes: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    sample, asker = shown_scenes[number], Asker.load(small_checkpoint)
    kept = json.loads(json.dumps(asked(asker, sample)))  # as results.json has it
    write_example(sample, tmp_path)
    files = {name: str(tmp_path / file) for name, file in zip(("features", "objects", "ocr", "image"), FILES)}
    options = [text for name, file in files.items() for text in (f"--{name}", file)]
    assert main(["ask", "--ckpt", str(small_checkpoint), *options, sample.question]) == 0
    picture, answer = retold(kept, sample)
    assert capsys.readouterr().out.splitlines() == answer.lines(picture)
    assert answer.text == sample.answers[0]
    assert answer.edges


def test_the_files_are_of_the_documented_forms_and_of_one_scene(
    shown_scenes: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["example", "--out", str(tmp_path / "new" / "one")]) == 0
    folder, sample = tmp_path / "new" / "one", shown_scenes[0]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    ocr, objects = (json.loads((folder / name).read_text()) for name in ("ocr.json", "objects.json"))
    assert [row["text"] for row in ocr] == sample.ocr_tokens
    assert [row["label"] for row in objects] == sample.obj_names
    np.testing.assert_allclose([row["box"] for row in ocr], sample.ocr_boxes * 1000, rtol=1e-6)
    np.testing.assert_allclose([row["box"] for row in objects], sample.obj_boxes * 1000, rtol=1e-6)
    with np.load(folder / "features.npz") as features:
        assert features["object_features"].shape == (6, FEATURE_WIDTH)
        assert not features["ocr_features"].any()
    said = capsys.readouterr().out
    assert f'question: "{sample.question}"\nright answer: {sample.answers[0]}\n' in said


def test_the_picture_shows_every_object_in_its_colour_where_its_box_is(
    shown_scenes: list[Sample], tmp_path: Path
) -> None:
    assert main(["example", "--out", str(tmp_path)]) == 0
    sample = shown_scenes[0]
    with Image.open(tmp_path / "scene.png") as image:
        assert image.size == sample.image_size
        for name, (x0, y0, x1, y1) in zip(sample.obj_names, (sample.obj_boxes * 1000).tolist()):
            wanted = tuple(bytes.fromhex(FILL[name.split()[0]][1:]))
            found = image.convert("RGB").crop((round(x0), round(y0), round(x1), round(y1)))
            colours = {colour for _, colour in found.getcolors(2**20) or []}
            assert wanted in colours, name
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_other_seeds_are_other_scenes_and_the_same_again(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["example", "--out", str(tmp_path / name), "--seed", seed]) == 0
    for file in FILES[1:]:
        first, again, other = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert first == again != other, file


def test_without_a_checkpoint_the_features_are_those_of_the_quick_tier() -> None:
    assert read_yaml(HERE / "configs" / "quick.yaml")["data"]["feature_width"] == FEATURE_WIDTH


def test_an_example_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file: name a folder"):
        main(["example", "--out", str(tmp_path / "file")])
    with pytest.raises(UserError, match="--seed is -1: at least 0"):
        main(["example", "--out", str(tmp_path / "x"), "--seed", "-1"])
