"""The status page in headless Chromium: it follows without reload, on a telephone and on a wide screen."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mma_realtime.alerts.outbox import relay
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import Superevent
from mma_realtime.bus.log import SqliteLog
from mma_realtime.status import serve
from mma_realtime.status.beats import Heart
from mma_realtime.status.watch import Watch

spec = importlib.util.spec_from_file_location("status_inputs", Path(__file__).with_name("status_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", 
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTHS = (390, 1600)
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (; node; node = node.parentElement) {
    const c = rgb(getComputedStyle(node).backgroundColor); 
    if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  const bad = [];
  for (const node of document.querySelectorAll("h1, h2, p, td, th, dt, dd, a, span")) {
    if (!node.textContent.trim() || !node.getClientRects().length) continue;
    const a = light(rgb(getComputedStyle(node).color)), b = light(behind(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${node.tagName} ${node.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


class Site(NamedTuple):
    address: str
    store: Store
    bus: SqliteLog


def until(page: Any, condition: str) -> None:
    """Waits for a condition; playwright's own way needs eval, which the page's policy forbids."""
    inputs.wait_for(lambda: page.evaluate(condition))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((found for name in names if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no Chromium found ({', '.join(names)}): the status page was not opened in one")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the page was not opened")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    store, bus = inputs.system(tmp_path)
    with serve.listen(port=0) as bound, serve.service(bound, Watch(store.path, bus)):
        yield Site(serve.address_of(bound), store, bus)
    store.close()
    bus.close()


@pytest.fixture
def opened(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """The page at a width; no request leaves it, no error is said in its console."""
    pages: list[Any] = []
    said: list[str] = []

    def open_page(width: int = 1600, scheme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("request", lambda request: said.append(request.url) if site.address not in request.url else None)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(site.address)
        until(page, "document.getElementById('link').textContent === 'live'")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_shows_everything_at_every_width(opened: Callable[..., Any], width: int, scheme: str) -> None:
    page = opened(width, scheme)
    text = page.inner_text("body")
    for shown in ("Simulated noise with simulated signals", "is a test", "S170817a", "< 1 per 37.3 d", "preliminary",
                  "cross-match", "runs", "threshold", "RA 197.4"):  # fmt: skip
        assert shown in text, shown
    until(page, "document.querySelector('#sky img').naturalWidth > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []


def test_the_page_can_be_used_without_eyes_and_without_a_mouse(opened: Callable[..., Any]) -> None:
    page = opened()
    assert page.evaluate("document.documentElement.lang") == "en"
    named = "s => document.getElementById(s.getAttribute('aria-labelledby')) !== null"
    assert page.evaluate(f"[...document.querySelectorAll('section')].every({named})")
    assert "highest 13.1" in page.text_content("#scores title")
    assert "S170817a" in page.get_attribute("#sky img", "alt")
    assert page.get_attribute("#news", "aria-live") == "polite"
    assert page.evaluate("[...document.querySelectorAll('th')].every(th => th.scope === 'col')")


def test_a_new_alert_comes_without_reload_and_is_announced(opened: Callable[..., Any], site: Site) -> None:
    page = opened()
    page.evaluate("window.same = true")
    assert page.text_content("#news") == ""
    second = inputs.tell(site.store, Superevent.opened(inputs.candidate(3, 15.2), 1), 1)
    relay(site.store, site.bus)
    until(page, f"document.getElementById('news').textContent.includes('{second.id}')")
    assert page.text_content("#news") == f"New: {second.id}, version 1, preliminary."
    until(page, "document.querySelectorAll('#alerts tr').length === 3")
    assert page.text_content("#alerts tr td") == second.id
    assert "15.2" in page.text_content("#triggers")
    assert page.evaluate("window.same")


def test_a_stage_dies_and_comes_back(opened: Callable[..., Any], site: Site) -> None:
    page = opened()
    row = "[...document.querySelectorAll('#stages tr')].find(r => r.textContent.includes('localiser'))"
    assert page.evaluate(f"{row}.textContent").startswith("localiserruns")
    Heart(site.bus, "localiser").beat("died", "ended by signal 9; starts again in 0.5 s", now=True)
    until(page, f"{row}.textContent.startsWith('localiserdown')")
    assert "signal 9" in page.evaluate(f"{row}.textContent")
    Heart(site.bus, "localiser", restarts=1).beat(now=True, lag=0.0)
    until(page, f"{row}.textContent.startsWith('localiserruns')")
    assert page.evaluate(f"{row}.cells[3].textContent") == "1"


def test_the_page_follows_a_service_that_was_away(browser: Any, tmp_path: Path) -> None:
    store, bus = inputs.system(tmp_path)
    with serve.listen(port=0) as bound, serve.service(bound, Watch(store.path, bus)):
        port = bound.getsockname()[1]
        page = browser.new_page()
        page.goto(serve.address_of(bound))
        until(page, "document.getElementById('link').textContent === 'live'")
    until(page, "document.getElementById('link').textContent.startsWith('no connection')")
    second = inputs.tell(store, Superevent.opened(inputs.candidate(3), 1), 1)
    relay(store, bus)
    with serve.listen(port=port) as bound, serve.service(bound, Watch(store.path, bus)):
        until(page, f"document.getElementById('news').textContent.includes('{second.id}')")
        until(page, "document.getElementById('link').textContent === 'live'")
        page.close()
    store.close()
    bus.close()


def test_what_comes_from_outside_is_text(opened: Callable[..., Any], site: Site) -> None:
    page = opened()
    Heart(site.bus, "<img src=x onerror=window.hit=1>").beat(note="<script>window.hit=1</script>", now=True)
    until(page, "document.getElementById('stages').textContent.includes('<script>')")
    assert page.evaluate("document.querySelectorAll('#stages img, #stages script').length") == 0
    assert page.evaluate("window.hit") is None
