"""The report on one event: what it says is what was found, in one file that needs nothing and runs nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mma_realtime.data.strain import write_npz
from mma_realtime.errors import SearchError
from mma_realtime.event_report import find, main, page, q_map

from mma_realtime import models

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
MERGER = inputs.START + 16.4


@pytest.fixture(autouse=True)
def known_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.NETWORKS, "template", inputs.Template)


@pytest.fixture(scope="module")
def event():
    return find(inputs.template_model(time_offset=-0.1), inputs.strain_with(16.4, seconds=32))


class Reader(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_white_noise_has_power_one_and_a_tone_its_own_frequency() -> None:
    rng, rate = np.random.default_rng(0), 1024
    frequencies = np.geomspace(20, 400, 40)
    noise = q_map(rng.normal(size=64 * rate), rate, frequencies)
    assert noise.mean(axis=1) == pytest.approx(np.ones(40), abs=0.25)
    t = np.arange(4 * rate) / rate
    tone = q_map(np.sin(2 * np.pi * 100 * t), rate, frequencies)
    assert frequencies[tone[:, 2 * rate].argmax()] == pytest.approx(100, rel=0.05)


def test_a_click_is_where_it_is() -> None:
    x = np.zeros(4096)
    x[3000] = 1
    power = q_map(x, 1024, np.array([50.0, 200.0]))
    assert power.argmax(axis=1).tolist() == [3000, 3000]


def test_the_report_says_what_was_found(event) -> None:
    text = Reader(page(event)).text
    assert abs(event.judged.trigger.gps - MERGER) < 0.15
    assert f"GPS {event.judged.trigger.gps:.3f}" in text
    assert event.model.checksum in text
    assert f"above every one of {event.background.n_slides:,} time slides" in text
    assert "this is a test, not an alert" in text
    assert str(event.judged.far) in text


def test_where_slides_are_as_loud_it_is_no_detection(event) -> None:
    louder = dataclasses.replace(event.background, loudest=event.judged.trigger.statistic + 1)
    assert "it is no detection" in page(dataclasses.replace(event, background=louder))
    assert "above every" not in page(dataclasses.replace(event, background=louder))


def test_without_slides_it_says_why(event) -> None:
    judged = dataclasses.replace(event.judged, far=None, p=None)
    text = Reader(page(dataclasses.replace(event, background=None, judged=judged, why="it is too short"))).text
    assert "not known: it is too short" in text
    assert "no time slides to compare" in text


def test_the_file_needs_nothing_and_runs_nothing(event) -> None:
    notice = {"superevent_id": "<script>alert(1)</script>", "event": {"skymap": "A" * 5000, "time": "<b>now</b>"}}
    content = page(event, notice, sky="<svg></svg>", probability="<i>all</i>")
    reader = Reader(content)
    assert not {"script", "iframe", "link", "object", "b", "i"} & {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("#", "data:")), (tag, key, value)
    assert not re.search(r"url\((?!#)", content)
    assert "<script>alert(1)</script>" in reader.text
    assert "5,000 characters of base64" in reader.text
    assert "default-src 'none'" in content
    assert len(content) < 2_000_000


def test_the_event_that_was_asked_for_or_none() -> None:
    strain = inputs.strain_with(12.4, 20.4, seconds=32)
    model = inputs.template_model(time_offset=-0.1)
    assert abs(find(model, strain, inputs.START + 20.4).judged.trigger.gps - inputs.START - 20.4) < 0.15
    with pytest.raises(SearchError, match="no trigger above 0 within 1 s of GPS 1000000016"):
        find(model, strain, inputs.START + 16)


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.template_model(time_offset=-0.1).save(tmp_path / "model.pt")
    write_npz(inputs.strain_with(16.4, seconds=32), tmp_path / "event.npz")
    (tmp_path / "notice.json").write_text(json.dumps({"superevent_id": "S110101a", "event": None}))
    out = tmp_path / "report.html"
    given = [str(tmp_path / "event.npz"), "--checkpoint", str(tmp_path / "model.pt"), "-o", str(out)]
    assert main([*given, "--notice", str(tmp_path / "notice.json")]) == 0
    assert "statistic" in capsys.readouterr().out
    assert "S110101a" in out.read_text()
    (tmp_path / "notice.json").write_text("[1]")
    with pytest.raises(SearchError, match="a JSON object is expected"):
        main([*given, "--notice", str(tmp_path / "notice.json")])
