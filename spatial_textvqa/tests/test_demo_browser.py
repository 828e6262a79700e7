"""The demo in headless Chromium: ask, flip, see the answer change; on a telephone and on a wide screen."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from spatial_textvqa.ask import Asker
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.demo import serve

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((found for name in names if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no Chromium found ({', '.join(names)}): the demo was not opened in one")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the demo was not opened")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def address(small_checkpoint: Path, shown_scenes: list[Sample]) -> Iterator[str]:
    with serve.listen("127.0.0.1", 0) as bound, serve.service(bound, Asker.load(small_checkpoint), shown_scenes):
        yield serve.address_of(bound)


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """The page at a width; no request leaves it, no error is said in its console but those that are expected."""
    pages: list[Any] = []
    said: list[str] = []

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("request", lambda r: said.append(r.url) if not r.url.startswith((address, "data:")) else None)
        page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.locator("#drawing svg").wait_for()
        page.locator("#ask-button:enabled").wait_for()
        return page

    open_page.said = said  # type: ignore[attr-defined]
    yield open_page
    for page in pages:
        page.close()
    assert said == []


def settled(page: Any) -> None:
    page.locator("#drawing[aria-busy=false]").wait_for()


@pytest.mark.parametrize("width", WIDTHS)
def test_ask_flip_and_see_the_answer_change(opened: Callable[..., Any], width: int, shown_scenes: list[Sample]) -> None:
    scene = shown_scenes[0]
    page = opened(width)
    assert page.input_value("#question") == scene.question
    assert page.locator("#drawing g.entity").count() == 12
    assert page.locator("#drawing g.answer").count() == 0
    page.click("#ask-button")
    settled(page)
    assert page.text_content("#answer") == scene.answers[0]
    assert page.text_content("#drawing g.answer").strip("“”") == scene.answers[0]
    assert page.locator("#drawing g.edge").count() == page.locator("#edges li").count() > 0
    assert page.text_content("#edges li").startswith(f"“{scene.answers[0]}” ")
    assert "read in the picture" in page.text_content("#words")
    page.click("#flip")
    settled(page)
    assert scene.flipped is not None
    assert page.input_value("#question") == scene.flipped[0]
    assert page.text_content("#answer") == scene.flipped[1] != scene.answers[0]
    assert page.text_content("#drawing g.answer").strip("“”") == scene.flipped[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_next_scene_is_another_and_before_the_first_is_the_last(
    opened: Callable[..., Any], shown_scenes: list[Sample]
) -> None:
    page = opened()
    page.click("#next")
    settled(page)
    assert page.input_value("#question") == shown_scenes[1].question
    assert page.text_content("#which") == f"scene 2 of {len(shown_scenes)}"
    for _ in range(2):
        page.click("#previous")
        settled(page)
    assert page.text_content("#which") == f"scene {len(shown_scenes)} of {len(shown_scenes)}"
    page.keyboard.press("Tab")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_upload_is_asked_about(opened: Callable[..., Any], scheme: str) -> None:
    image = Image.new("RGB", (400, 300), "#dde5ee")
    ImageDraw.Draw(image).rectangle((40, 60, 160, 200), fill="#aa3333")
    data = io.BytesIO()
    image.save(data, "PNG")
    words = [
        {"text": "<img src=x onerror=alert(1)>", "box": [60, 100, 140, 120]},
        {"text": "open", "box": [250, 90, 330, 115]},
    ]
    page = opened(390, scheme)
    page.locator("#own summary").click()
    page.set_input_files(
        "#ocr", {"name": "ocr.json", "mimeType": "application/json", "buffer": json.dumps(words).encode()}
    )
    page.set_input_files("#image", {"name": "a.png", "mimeType": "image/png", "buffer": data.getvalue()})
    page.click("#upload button")
    settled(page)
    assert page.text_content("#which") == "your picture"
    assert "no objects were given" in page.text_content("#notes")
    assert page.locator("#drawing image").get_attribute("href").startswith("data:image/jpeg")
    assert page.locator("body img").count() == 0
    page.fill("#question", "left red square")
    page.click("#ask-button")
    settled(page)
    assert page.text_content("#asked") == "left red square"  # the answer is up to a network that knows six scenes
    assert words[0]["text"][:20] in page.text_content("#drawing svg")
    assert page.text_content("#error") == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_refused_is_said_on_the_page(opened: Callable[..., Any]) -> None:
    page = opened()
    page.fill("#question", "quo vadis")
    page.click("#flip")
    settled(page)
    assert "no spatial word to flip" in page.text_content("#error")
    page.click("#ask-button")
    settled(page)
    assert "no word of the question" in page.text_content("#error")
    # Chromium itself tells of the two replies that were no success.
    assert [text for text in opened.said if "status of 422" not in text] == []  # type: ignore[attr-defined]
    assert len(opened.said) == 2  # type: ignore[attr-defined]
    opened.said.clear()  # type: ignore[attr-defined]
