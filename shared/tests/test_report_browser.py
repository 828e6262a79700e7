"""The report in headless Chromium: from disk, wide and narrow, light and dark, without script."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shared.report import build

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TITLES = {
    "alpha": "A paper with a title that is long enough to need two lines on a telephone",
    "beta": "Beta",
    "gamma_with_a_long_name": "Gamma",
}


def _browser() -> str | None:
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("made_up_papers", Path(__file__).with_name("test_report.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root: Path = module.make_repository(tmp_path_factory.mktemp("browser") / "repo", TITLES)
    build.build(root)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = _browser()
    if executable is None:
        pytest.skip("no Chromium found (chromium, chromium-browser or google-chrome): the report was not opened in one")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the report was not opened")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(
    params=[(1280, "light"), (910, "light"), (390, "dark"), (320, "light")],
    ids=["wide", "middle", "narrow-dark", "narrowest"],
)
def page(request: pytest.FixtureRequest, browser: Any, repository: Path) -> Iterator[Any]:
    """The report, opened from disk; whatever the browser complains of, or asks the network for, fails the test."""
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    opened.on("request", lambda r: complaints.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    opened.goto((repository / "report" / "index.html").as_uri())
    yield opened
    opened.close()
    assert complaints == []


# What sticks out of the page, other than a plot, which scrolls by itself, and heads that are for screen readers only.
STICKS_OUT = """() => [...document.body.querySelectorAll('*')].filter(e => {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    const excused = e.closest('.plot svg') || (innerWidth <= 900 && e.closest('thead'));
    return !excused && box.width > 1 && box.right > innerWidth + 0.5 && style.visibility == 'visible';
}).map(e => e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 40))"""


def test_no_horizontal_scroll_with_everything_open(page: Any) -> None:
    for everything in (False, True):
        if everything:
            assert page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)") is None
            assert page.locator("details:not([open])").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(STICKS_OUT) == []


def test_overview_fits_one_screen(page: Any) -> None:
    assert page.locator("#overview tbody tr").count() == len(TITLES)
    assert page.evaluate("document.querySelector('#overview').getBoundingClientRect().bottom") < 844


def test_every_anchor_leads_somewhere(page: Any) -> None:
    anchors = page.eval_on_selector_all("a[href^='#']", "all => all.map(a => a.getAttribute('href'))")
    assert len(anchors) > len(TITLES)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for anchor in set(anchors):
        page.evaluate("place => { location.hash = place }", anchor)
        assert page.evaluate("document.querySelector(':target')?.getClientRects().length") == 1, anchor


def test_figures_are_drawn_and_in_the_scheme(page: Any) -> None:
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    label = page.locator(".plot svg text", has_text="test error (%)").first
    ink = label.evaluate("e => getComputedStyle(e).fill")
    card = page.locator(".plot svg path").first.evaluate("e => getComputedStyle(e).fill")
    assert (ink, card) == (
        ("rgb(228, 228, 228)", "rgb(27, 29, 31)") if dark else ("rgb(43, 43, 43)", "rgb(255, 255, 255)")
    )
    # Labels stay readable: at least 9 pixels high, though the figure is wider than a telephone.
    assert label.evaluate("e => Math.hypot(e.getCTM().a, e.getCTM().b) * parseFloat(getComputedStyle(e).fontSize)") >= 9


CONTRAST = """() => {
    const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const page = light(getComputedStyle(document.body).backgroundColor);
    return [...document.querySelectorAll('.chip, .spread, .why, a, h2, td')].map(e => {
        const text = light(getComputedStyle(e).color);
        return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
    });
}"""


def test_words_are_readable_in_the_scheme(page: Any) -> None:
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 50
    assert min(contrasts) >= 4.5  # WCAG AA


def test_print_opens_the_details(browser: Any, repository: Path) -> None:
    opened = browser.new_page()
    opened.goto((repository / "report" / "index.html").as_uri())
    hidden = opened.locator(".claims details .tier").first
    assert not hidden.is_visible()
    opened.emulate_media(media="print")
    assert hidden.is_visible()
    opened.close()
