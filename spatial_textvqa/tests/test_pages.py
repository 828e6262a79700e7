"""The attention page: its numbers are those of the maps, and in a browser its switches change what is shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared.errors import UserError
from spatial_textvqa.__main__ import main
from spatial_textvqa.ask import Asker
from spatial_textvqa.custom import picture_of
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.pages.build import MOST_SAMPLES, write_pages

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
TAKEN = "[...document.querySelectorAll('.drawing:not([hidden]) .edge.chosen')].length"


@pytest.fixture(scope="module")
def asker(small_checkpoint: Path) -> Asker:
    return Asker.load(small_checkpoint)


@pytest.fixture(scope="module")
def written(asker: Asker, shown_scenes: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = {"sample_id": "../../x</script><b>", "question": "what word is on the red square"}
    odd = replace(shown_scenes[1], **named, flipped=None)  # type: ignore[arg-type]
    return write_pages(asker, [shown_scenes[0], odd], tmp_path_factory.mktemp("pages") / "out").parent


def test_the_maps_are_those_of_the_network(asker: Asker, shown_scenes: list[Sample], written: Path) -> None:
    assert sorted(file.name for file in (written / "maps").iterdir()) == ["0-flipped.npz", "0.npz", "1.npz"]
    sample = shown_scenes[0]
    assert sample.flipped is not None
    for name, question, gold in (("0", sample.question, sample.answers[0]), ("0-flipped", *sample.flipped)):
        with np.load(written / "maps" / f"{name}.npz") as found:
            looked = asker.looked(picture_of(sample), question)
            np.testing.assert_allclose(found["attention"], looked.attention, atol=1e-3)
            np.testing.assert_array_equal(found["relations"], looked.graph)
            assert (str(found["question"]), str(found["gold"])) == (question, gold)
            assert str(found["prediction"]) == gold
            assert found["names"].tolist() == [*sample.obj_names, *sample.ocr_tokens]
            np.testing.assert_allclose(found["boxes"], np.concatenate([sample.obj_boxes, sample.ocr_boxes]), atol=1e-6)


def test_nothing_of_a_sample_can_end_the_script_or_name_a_file(written: Path) -> None:
    assert "</script>" not in (written / "samples.js").read_text()
    assert "<b>" not in (written / "page.html").read_text()
    assert sorted(file.name for file in written.parent.iterdir()) == ["out"]


def test_the_command_writes_scenes(small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pages", "--ckpt", str(small_checkpoint), "--out", str(tmp_path / "p"), "--count", "1"]) == 0
    assert capsys.readouterr().out == f"1 samples: {tmp_path / 'p' / 'page.html'}\n"
    with pytest.raises(UserError, match="--count is 0"):
        main(["pages", "--ckpt", str(small_checkpoint), "--out", str(tmp_path / "p"), "--count", "0"])


def test_too_many_samples_are_refused(asker: Asker, shown_scenes: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a page holds 1 to 200"):
        write_pages(asker, [shown_scenes[0]] * (MOST_SAMPLES + 1), tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((found for name in names if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no Chromium found ({', '.join(names)}): the attention page was not opened in one")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the page was not opened")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_from_disk(browser: Any, written: Path, shown_scenes: list[Sample], width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("request", lambda r: said.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((written / "page.html").as_uri())
    first, flipped = shown_scenes[0], shown_scenes[0].flipped
    assert flipped is not None
    assert page.text_content("#question") == first.question
    assert page.text_content("#prediction") == first.answers[0]
    assert page.text_content("#gold") == f"gold: {first.answers[0]}"
    assert page.text_content("#list .right") == f"{first.answers[0]} ✓"
    assert page.locator(".drawing:visible").count() == 1
    # The switch shows the flipped question and its answer.
    page.check("#flipped")
    assert (page.text_content("#question"), page.text_content("#prediction")) == flipped
    assert page.text_content(".drawing:not([hidden]) .answer").strip("“”") == flipped[1]
    page.uncheck("#flipped")
    # A spatial layer's head shows edges of its own relations only: 12 (itself) has none between boxes.
    page.select_option("#layer", "1")
    page.select_option("#head", "11")
    assert page.evaluate(TAKEN) == 0
    page.select_option("#head", "1")  # head 2: inside
    assert page.evaluate(TAKEN) > 0
    labels = page.locator(".drawing:visible .edge.chosen > text").all_text_contents()
    assert {label.partition(": ")[2] for label in labels} == {"inside"}
    assert page.text_content("#shown") == f"{len(labels)} edges of this head between boxes"
    # A sample without a spatial word cannot be flipped.
    page.click("#list li:nth-child(2) button")
    assert page.is_disabled("#flipped")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []
    page.close()
