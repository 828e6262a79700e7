"""The status service: what it knows, what it shows, whom it lets in; without a browser."""

from __future__ import annotations

import asyncio
import base64
import http.client
import importlib.util
import json
import socket
import time
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest
from fastapi.routing import APIRoute
from mma_realtime.alerts.notice import headers_of
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.outbox import relay
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import Superevent
from mma_realtime.bus.base import NOTICES
from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import StatusError
from mma_realtime.sky.fits import read_fits
from mma_realtime.sky.skymap import SkyMap
from mma_realtime.status import serve
from mma_realtime.status.app import Looker, create_app, event_stream
from mma_realtime.status.beats import LATE, LOST, STAGES, Beat, Heart
from mma_realtime.status.sky_picture import sky_picture
from mma_realtime.status.watch import Watch
from shared.errors import UserError

spec = importlib.util.spec_from_file_location("status_inputs", Path(__file__).with_name("status_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
candidate, spot, system, tell, wait_for = (
    inputs.candidate, inputs.spot, inputs.system, inputs.tell, inputs.wait_for,
)  # fmt: skip
TOKEN = "a-token-of-25-characters!"


class Answer(NamedTuple):
    status: int
    headers: Message
    text: str


def ask(port: int, path: str, method: str = "GET", authorization: str = "", host: str = "") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": authorization, "Host": host}
    connection.request(method, path, headers={name: value for name, value in headers.items() if value})
    response = connection.getresponse()
    stream = response.headers.get_content_type() == "text/event-stream"
    answer = Answer(response.status, response.headers, "" if stream else response.read().decode())
    connection.close()
    return answer


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Store, SqliteLog]]:
    store, bus = system(tmp_path)
    yield store, bus
    store.close()
    bus.close()


@pytest.fixture
def looker(running: tuple[Store, SqliteLog]) -> Iterator[Looker]:
    store, bus = running
    looking = Looker(Watch(store.path, bus), every=0.02)
    yield looking
    looking.stop()


Get = Callable[..., Answer]


@pytest.fixture
def get(running: tuple[Store, SqliteLog]) -> Iterator[Get]:
    store, bus = running
    with serve.listen(port=0) as bound, serve.service(bound, Watch(store.path, bus)):
        yield lambda path, method="GET": ask(bound.getsockname()[1], path, method)


def test_what_store_and_bus_say(running: tuple[Store, SqliteLog]) -> None:
    store, bus = running
    status = Watch(store.path, bus).look()
    assert (status["role"], status["origin"]) == ("test", "simulated")
    assert [stage["name"] for stage in status["stages"]] == ["stream", "relay", "localiser", "cross-match"]
    assert {stage["health"] for stage in status["stages"]} == {"ok"}
    assert status["stages"][0]["lag"] == 0.4
    assert [(a["version"], a["alert_type"]) for a in status["alerts"]] == [(2, "INITIAL"), (1, "PRELIMINARY")]
    assert status["alerts_per_version"] == {"1": 1, "2": 1}
    (trigger,) = status["triggers"]
    assert trigger["far_text"] == "< 1 per 37.3 d"
    assert trigger["statistic"] == 12.5
    assert status["superevent"] | {"utc": ""} == {
        "id": "S170817a", "version": 2, "utc": "", "ra": 197.4, "dec": -23.4, "radius": pytest.approx(18.9),
    }  # fmt: skip
    steps = {row["step"]: row for row in status["latency"]}
    assert steps["search"]["p50"] == 0.05
    assert steps["search"]["n"] == 3
    assert steps["notice on the bus"]["n"] == 2
    assert steps["sky map"]["n"] == 1
    assert status["gaps"] == 3
    assert len(status["scores"]) == 480


def test_nothing_is_written_or_committed(running: tuple[Store, SqliteLog], tmp_path: Path) -> None:
    store, bus = running
    ends = {topic: bus.end(topic) for topic in bus.topics()}
    watch = Watch(store.path, bus)
    watch.look()
    assert {topic: bus.end(topic) for topic in bus.topics()} == ends
    assert bus.positions(NOTICES) == {}
    assert bus.positions(STAGES) == {}
    Watch(tmp_path / "none.sqlite", bus).look()
    assert not (tmp_path / "none.sqlite").exists()


def bytes_read() -> int:
    """What this process has read of files so far."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def test_a_look_reads_no_map_of_the_outbox(tmp_path: Path) -> None:
    """Twenty superevents of two versions, a map of 1 MB in each notice: 40 MB, of which five wait."""
    if not Path("/proc/self/io").exists():
        pytest.skip("no /proc/self/io here: what a look reads cannot be counted")
    with Store(tmp_path / "store.sqlite") as store, SqliteLog(tmp_path / "bus.sqlite") as bus:
        for number in range(20):
            first = tell(store, Superevent.opened(candidate(number % 10), number), number)
            located = tell(store, first.located(spot(sigma=3.0)))
            with store.transaction() as write:
                for version in (first, located):
                    headers = headers_of(version, Origin.SIMULATED)
                    write.send("gw.notices.unified", version.id, bytes(1_000_000), headers)
        numbers = [row.number for row in store.waiting(1000)]
        store.mark(numbers[:-5])
        watch = Watch(store.path, bus)
        before = bytes_read()
        status = watch.look()
        took = bytes_read() - before
    assert status["outbox"]["waiting"] == 5
    steps = {row["step"]: row for row in status["latency"]}
    assert (steps["notice on the bus"]["n"], steps["sky map"]["n"]) == (75, 20)
    assert took < store.path.stat().st_size / 10


def test_waiting_notices_are_counted_and_a_duplicate_is_shown_once(running: tuple[Store, SqliteLog]) -> None:
    store, bus = running
    watch = Watch(store.path, bus)
    second = tell(store, Superevent.opened(candidate(3), 1), 1)
    assert watch.look()["outbox"]["waiting"] == 1
    (row,) = store.waiting()
    bus.append(row.topic, row.key, row.value, row.headers)  # a relay that died between sending and marking
    relay(store, bus)
    status = watch.look()
    assert status["outbox"]["waiting"] == 0
    assert status["duplicates_dropped"] == 1
    assert [a["superevent_id"] for a in status["alerts"]].count(second.id) == 1


@pytest.mark.parametrize(("silent", "health"), [(0.0, "ok"), (LATE + 1, "late"), (LOST + 1, "lost")])
def test_a_silent_stage_is_shown(running: tuple[Store, SqliteLog], silent: float, health: str) -> None:
    store, bus = running
    clock = Clock()
    watch = Watch(store.path, bus, clock)
    clock.ahead = silent
    assert {stage["health"] for stage in watch.look()["stages"]} == {health}


def test_a_stage_that_died_and_comes_back(running: tuple[Store, SqliteLog]) -> None:
    store, bus = running
    watch = Watch(store.path, bus)

    def relay_stage() -> dict:  # type: ignore[type-arg]
        return next(stage for stage in watch.look()["stages"] if stage["name"] == "relay")

    Heart(bus, "relay").beat("died", "ended with status -9; starts again in 0.5 s", now=True)
    assert relay_stage()["health"] == "down"
    assert "-9" in relay_stage()["note"]
    Heart(bus, "relay", restarts=1).beat(now=True)
    assert (relay_stage()["health"], relay_stage()["restarts"]) == ("ok", 1)


def test_what_is_no_beat_stops_nothing(running: tuple[Store, SqliteLog]) -> None:
    store, bus = running
    for content in (b"\xff", b"[]", b"{}", b'{"stage": "x", "state": "odd", "time": 0, "pid": 1}'):
        bus.append(STAGES, "x", content, {})
        with pytest.raises(StatusError, match="no stage's beat"):
            Beat.from_bytes(content)
    bus.append(NOTICES, "x", b"{}", {"superevent_id": "x"})
    assert len(Watch(store.path, bus).look()["stages"]) == 4


def test_retention_is_passed_over(running: tuple[Store, SqliteLog]) -> None:
    store, bus = running
    watch = Watch(store.path, bus)
    bus.delete_before(STAGES, time.time() + 1)
    bus.delete_before(NOTICES, time.time() + 1)
    Heart(bus, "relay").beat(now=True)
    assert [stage["name"] for stage in watch.look()["stages"]] == ["relay"]


def test_every_route_is_a_get(looker: Looker, get: Get) -> None:
    app = create_app(looker)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert {route.path for route in routes} == {
        "/", "/page.css", "/page.js", "/icon.svg", "/status", "/metrics", "/events", "/map/{name}/{version}.svg",
    }  # fmt: skip
    assert len(routes) == len(app.routes)
    assert all(route.methods == {"GET"} for route in routes)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert get("/status", method).status == 405


def test_headers_keep_scripts_of_others_out(get: Get) -> None:
    for path in ("/", "/status", "/metrics", "/page.js", "/nothing"):
        policy = get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    page = get("/").text
    assert "http://" not in page
    assert "https://" not in page
    assert "innerHTML" not in get("/page.js").text


def test_json_and_metrics(get: Get) -> None:
    assert json.loads(get("/status").text)["role"] == "test"
    text = get("/metrics").text
    for line in (
        "mma_queue_depth 0.0", 'mma_stage_lag_seconds{stage="stream"} 0.4', 'mma_alerts_total{version="2"} 1.0',
        'mma_latency_seconds{quantile="0.5",step="search"} 0.05', "mma_gaps_total 3.0", "mma_real_time_factor 1.0",
        'mma_stage_up{stage="relay"} 1.0', "mma_duplicates_dropped_total 0.0",
    ):  # fmt: skip
        assert line in text.splitlines()


def test_a_map_is_a_picture(get: Get) -> None:
    answer = get("/map/S170817a/2.svg")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert 'class="p50"' in answer.text
    assert len(answer.text) < 60_000
    for path in ("/map/S170817a/1.svg", "/map/S170817a/9.svg", "/map/S170817b/1.svg", "/map/..%2f/1.svg"):
        assert get(path).status == 404


def test_the_picture_shows_where_the_map_is() -> None:
    """RA 180 deg is in the middle and grows to the left; the north is above."""
    east = sky_picture(read_fits(spot(ra=200, dec=30, sigma=5).fits), "a <b>")
    x, y = (float(east.split(f'{key}="')[-1].split('"')[0]) for key in ("cx", "cy"))
    assert x < 360
    assert y < 180
    assert "a &lt;b&gt;" in east
    path = east.split('class="p50" fill-rule="evenodd" d="M')[1].split('"')[0].replace("Z", "").split("L")
    points = [tuple(map(float, point.split())) for point in path]
    middle = sum(a for a, _ in points) / len(points), sum(b for _, b in points) / len(points)
    assert middle == (pytest.approx(x, abs=4), pytest.approx(y, abs=4))
    assert sky_picture(SkyMap.isotropic(), "all")


def _events(looker: Looker, after: int, enough: int) -> list[str]:
    async def gather() -> list[str]:
        out = []
        async for text in event_stream(looker, after):
            out.append(text)
            if len(out) == enough:
                break
        return out

    return asyncio.run(gather())


def test_who_comes_back_gets_the_alerts_that_it_missed(looker: Looker, running: tuple[Store, SqliteLog]) -> None:
    everything = _events(looker, -1, 4)
    assert everything[0] == "retry: 1000\n\n"
    assert [text.split("\n")[:2] for text in everything[1:3]] == [["event: alert", "id: 0"], ["event: alert", "id: 1"]]
    assert json.loads(everything[3].split("data: ")[1])["role"] == "test"
    missed = _events(looker, 0, 3)
    assert missed[1].startswith("event: alert\nid: 1\n")
    assert missed[2].startswith("event: status\n")
    assert _events(looker, 1, 2)[1].startswith("event: status\n")


def test_who_was_away_for_long_gets_all_that_the_bus_has(
    running: tuple[Store, SqliteLog],
) -> None:
    """More than the page shows: 60 versions, one of them sent twice."""
    store, bus = running
    (row, *_) = bus.fetch(NOTICES, "test", 1)
    for version in (*range(3, 61), 30):
        bus.append(NOTICES, row.key, b"{}", row.headers | {"version": str(version)})
    looker = Looker(Watch(store.path, bus), every=0.05)
    try:
        texts = _events(looker, 0, 61)
        assert [text.split("\n")[1] for text in texts[1:60]] == [f"id: {offset}" for offset in range(1, 60)]
        assert texts[60].startswith("event: status\n")
    finally:
        looker.stop()


def test_events_end_when_the_service_stops(looker: Looker) -> None:
    looker.stop()
    assert _events(looker, -1, 10**9) == ["retry: 1000\n\n"]


def test_a_token_is_asked_for(running: tuple[Store, SqliteLog]) -> None:
    store, bus = running
    basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
    wrong = (
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        "Basic ?",
        "Basic " + base64.b64encode(b"\xff").decode(),
        f"Other {TOKEN}",
    )
    with serve.listen(port=0) as bound, serve.service(bound, Watch(store.path, bus), TOKEN):
        port = bound.getsockname()[1]
        for good in (f"Bearer {TOKEN}", f"Basic {basic}"):
            assert ask(port, "/status", authorization=good).status == 200
        for path in ("/", "/status", "/events", "/metrics", "/page.js", "/map/S170817a/2.svg", "/nothing"):
            for bad in wrong:
                answer = ask(port, path, authorization=bad)
                assert answer.status == 401, (path, bad)
                assert answer.headers["www-authenticate"].startswith("Basic")
                assert "content-security-policy" in answer.headers


def test_only_this_machine_needs_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(serve.VARIABLE, raising=False)
    assert [serve.token_for(host) for host in ("127.0.0.1", "::1", "localhost")] == ["", "", ""]
    for host in ("0.0.0.0", "192.0.2.1", "example.org", "::"):
        with pytest.raises(UserError, match="can be reached from other machines"):
            serve.token_for(host)
    monkeypatch.setenv(serve.VARIABLE, TOKEN)
    assert serve.token_for("0.0.0.0") == TOKEN
    monkeypatch.setenv(serve.VARIABLE, "short")
    with pytest.raises(UserError, match="at least 16"):
        serve.token_for("0.0.0.0")
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        serve.token_for("0.0.0.0", file)
    file.chmod(0o600)
    assert serve.token_for("0.0.0.0", file) == TOKEN
    file.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        serve.token_for("0.0.0.0", file)
    with pytest.raises(UserError, match="cannot be read"):
        serve.token_for("0.0.0.0", tmp_path / "none")


def test_a_foreign_name_for_this_machine_gets_no_answer_without_a_token(running: tuple[Store, SqliteLog]) -> None:
    store, bus = running
    watch = Watch(store.path, bus)
    with serve.listen(port=0) as bound:
        port = bound.getsockname()[1]
        with serve.service(bound, watch):
            for name in ("127.0.0.1", f"localhost:{port}", f"[::1]:{port}"):
                assert ask(port, "/status", host=name).status == 200
            assert ask(port, "/status", host="attacker.example").status == 400
        with serve.service(bound, watch, TOKEN):
            assert ask(port, "/status", authorization=f"Bearer {TOKEN}", host="proxy.example").status == 200


def test_the_service_answers_on_its_socket_and_lets_go_of_it(running: tuple[Store, SqliteLog]) -> None:
    store, bus = running
    with serve.listen(port=0) as bound:
        port = bound.getsockname()[1]
        with serve.service(bound, Watch(store.path, bus)), socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            client.settimeout(10)
            got = b""
            while b"event: status" not in got:
                got += client.recv(65536)
            assert b"200 OK" in got
    with serve.listen(port=port):
        pass


def test_a_damaged_store_is_told_and_the_rest_goes_on(looker: Looker, running: tuple[Store, SqliteLog]) -> None:
    store, _ = running
    store.close()
    store.path.write_bytes(b"no database" * 1000)
    wait_for(lambda: looker.status["trouble"])
    assert "store of alerts" in looker.status["trouble"]
    assert looker.status["stages"]
