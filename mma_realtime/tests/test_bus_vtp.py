"""VTP: framing under any cut, XML that means harm, brokers that fail, and the Comet broker for real."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.alerts.made_up import CREATED, PLACE, superevent
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.voevent import ivorn_of, voevent_of
from mma_realtime.bus import vtp
from mma_realtime.bus.base import Refused
from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import BusError

OURS = "ivo://test.mma/subscriber"
TWISTD = Path(sys.executable).with_name("twistd")


def voevent(name: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<voe:VOEvent xmlns:voe="http://www.ivoa.net/xml/VOEvent/v2.0" version="2.0" role="test" '
        f'ivorn="ivo://test.mma/notices#{name}"><Who><AuthorIVORN>ivo://test.mma</AuthorIVORN>'
        "<Date>2020-01-01T00:00:00</Date></Who></voe:VOEvent>"
    ).encode()


def ack(ivorn: str) -> bytes:
    return vtp.transport("ack", "ivo://test.mma/broker", ivorn)


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_any_cut_of_the_stream_gives_the_same_messages(messages: list[bytes], data: st.DataObject) -> None:
    stream, framer, found = b"".join(map(vtp.frame, messages)), vtp.Framer(), list[bytes]()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += framer.feed(stream[start:end])
    assert found == messages


@given(st.lists(st.binary(max_size=2000), max_size=20))
def test_noise_is_cut_or_refused_and_never_held(chunks: list[bytes]) -> None:
    framer = vtp.Framer(limit=500)
    for chunk in chunks:
        with contextlib.suppress(vtp.WireError):
            assert all(len(message) <= 500 for message in framer.feed(chunk))
        assert len(framer._held) < 504


@settings(max_examples=300)
@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: f"<a>{text}</a>".encode()))
def test_any_bytes_parse_or_are_refused(message: bytes) -> None:
    with contextlib.suppress(vtp.WireError):
        assert vtp.parse(message).tag


def test_a_gigabyte_is_refused_before_it_is_read() -> None:
    framer = vtp.Framer()
    tracemalloc.start()
    with pytest.raises(vtp.WireError, match="1000000000 bytes was announced, over the limit of 1048576: refused"):
        framer.feed((10**9).to_bytes(4, "big") + b"<")
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    with pytest.raises(vtp.WireError, match="over the limit"):
        vtp.frame(bytes(vtp.MAX_BYTES + 1))


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HARM = {
    "entities": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>',
    "a file": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>',
    "a DTD elsewhere": '<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><a/>',
    "a document type": "<!DOCTYPE a><a/>",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("harm", HARM)
def test_xml_that_means_harm_is_refused(harm: str, encoding: str) -> None:
    with pytest.raises(vtp.WireError, match="document type or entities: refused"):
        vtp.parse(HARM[harm].encode(encoding))


def test_xml_too_deep_and_no_xml_are_refused() -> None:
    with pytest.raises(vtp.WireError, match="64 elements within"):
        vtp.parse(b"<a>" * 100_000)
    for text in (b"", b"<a>", b"<a/><b/>", b"<a>&nothing;</a>", b"\x00", b'<?xml version="1.0" encoding="no"?><a/>'):
        with pytest.raises(vtp.WireError, match="no XML"):
            vtp.parse(text)
    root = vtp.parse(voevent("a"))
    assert (root.tag, root.findtext("Who/AuthorIVORN")) == (
        "{http://www.ivoa.net/xml/VOEvent/v2.0}VOEvent",
        "ivo://test.mma",
    )


def test_a_transport_message_says_what_it_was_given() -> None:
    root = vtp.parse(vtp.transport("nak", "ivo://a&b", "ivo://c<d", 'no "good"'))
    assert (root.tag, root.get("role")) == (f"{{{vtp.TRANSPORT}}}Transport", "nak")
    assert [root.findtext(name) for name in ("Origin", "Response", "Meta/Result")] == [
        "ivo://c<d",
        "ivo://a&b",
        'no "good"',
    ]


class Broker:
    """Serves one connection after another, each by the next of some scripts."""

    def __init__(self, *scripts: Callable[[socket.socket], None]) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.served = 0
        self.thread = threading.Thread(target=self.serve, args=(scripts,), daemon=True)
        self.thread.start()

    def serve(self, scripts: tuple[Callable[[socket.socket], None], ...]) -> None:
        for script in scripts:
            connection, _ = self.server.accept()
            with connection:
                connection.settimeout(20)
                script(connection)
            self.served += 1
        self.server.close()


def received(connection: socket.socket) -> bytes:
    framer = vtp.Framer()
    while True:
        data = connection.recv(7)  # a few bytes at a time
        if not data:
            return b""
        if messages := framer.feed(data):
            return messages[0]


def answer(message: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        received(connection)
        connection.sendall(message)

    return script


def test_an_author_tries_again_until_there_is_an_answer() -> None:
    whole = vtp.frame(ack("ivo://test.mma/notices#a"))
    broker = Broker(
        lambda connection: None, answer(b""), answer(whole[:20]), answer((10**9).to_bytes(4, "big")), answer(whole)
    )
    assert vtp.submit(voevent("a"), "127.0.0.1", broker.port) == vtp.Receipt(
        "ivo://test.mma/notices#a", duplicate=False
    )
    broker.thread.join()
    assert broker.served == 5


def test_a_nak_of_what_the_broker_has_is_a_delivery_and_any_other_is_not() -> None:
    seen, bad = (
        vtp.frame(vtp.transport("nak", "ivo://test.mma/broker", "ivo://x", f"Event rejected: {why}"))
        for why in ("Previously seen by this broker", "Duplicate key-sequence")
    )
    broker = Broker(answer(seen), answer(bad))
    assert vtp.submit(voevent("a"), "127.0.0.1", broker.port).duplicate
    with pytest.raises(Refused, match=r"refused ivo://test.mma/notices#a: Event rejected: Duplicate key-sequence"):
        vtp.submit(voevent("a"), "127.0.0.1", broker.port)


def test_an_author_says_when_nobody_answers_and_sends_no_nonsense() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(BusError, match=r"took no VOEvent within 0\.3 s \(.*\): see that it runs"),
    ):
        vtp.submit(voevent("a"), "127.0.0.1", silent.getsockname()[1], timeout=0.3)
    for document in (b"<a/>", b"nothing", ack("ivo://x")):
        with pytest.raises(vtp.WireError):
            vtp.submit(document, "127.0.0.1", 1)


@contextlib.contextmanager
def running(subscriber: vtp.Subscriber) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=subscriber.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_subscriber_answers_acknowledges_and_comes_back(tmp_path: Path) -> None:
    answers: list[tuple[str | None, str | None]] = []

    def tell(*messages: bytes) -> Callable[[socket.socket], None]:
        def script(connection: socket.socket) -> None:
            for message in messages:
                connection.sendall(vtp.frame(message))
                root = vtp.parse(received(connection))
                answers.append((root.get("role"), root.findtext("Origin")))

        return script

    broker = Broker(
        tell(
            vtp.transport("iamalive", "ivo://test.mma/broker"), vtp.transport("authenticate", "ivo://test.mma/broker")
        ),
        lambda connection: connection.sendall((10**9).to_bytes(4, "big")),
        lambda connection: connection.sendall(vtp.frame(b"<nonsense/>") + vtp.frame(b"<!DOCTYPE a><a/>")),
        tell(voevent("a"), voevent("b")),
    )
    with SqliteLog(tmp_path / "bus.db") as bus:
        subscriber = vtp.onto_bus(bus, "127.0.0.1", broker.port, OURS)
        with running(subscriber):
            broker.thread.join(60)
        assert answers == [
            ("iamalive", "ivo://test.mma/broker"), ("authenticate", "ivo://test.mma/broker"),
            ("ack", "ivo://test.mma/notices#a"), ("ack", "ivo://test.mma/notices#b"),
        ]  # fmt: skip
        found = bus.fetch("external.notices", "group")
        assert [(record.key, record.value) for record in found] == [
            (f"ivo://test.mma/notices#{name}", voevent(name)) for name in "ab"
        ]
        dead = bus.fetch("external.notices.dead", "group")
        assert [record.value for record in dead] == [b"<nonsense/>", b"<!DOCTYPE a><a/>"]
        assert "is no VOEvent" in dead[0].headers["reason"]
        assert "document type" in dead[1].headers["reason"]


def test_a_silent_broker_is_left_even_if_it_drips_bytes() -> None:
    left: list[OSError] = []

    def drip(connection: socket.socket) -> None:
        connection.sendall((1000).to_bytes(4, "big"))
        try:
            for _ in range(200):  # 10 s, if nobody leaves
                connection.sendall(b"<")
                threading.Event().wait(0.05)
        except OSError as error:
            left.append(error)

    broker = Broker(drip)
    subscriber = vtp.Subscriber("127.0.0.1", broker.port, OURS, lambda ivorn, message: None, alive=0.3)
    with running(subscriber):
        broker.thread.join(30)
    assert left


def test_what_could_not_be_kept_is_not_acknowledged() -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        connection.sendall(vtp.frame(voevent("a")))
        seen.append(received(connection))

    def handle(ivorn: str, message: bytes) -> None:
        raise BusError("no space left")

    broker = Broker(script)
    with pytest.raises(BusError, match="no space left"):
        vtp.Subscriber("127.0.0.1", broker.port, OURS, handle).run(threading.Event())
    broker.thread.join(20)
    assert seen == [b""]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


@pytest.mark.slow
@pytest.mark.skipif(
    not TWISTD.exists() or not shutil.which("twistd", path=TWISTD.parent), reason="Comet is not installed"
)
def test_comet_takes_our_events_and_sends_them_to_our_subscriber(tmp_path: Path) -> None:
    pytest.importorskip("comet", reason="Comet is not installed (extra `test`)")
    receive, broadcast = free_ports(2)
    first_of = superevent(masses=(36.0, 29.0))
    located = first_of.located(PLACE)
    events = [first_of, located, located.retracted()]
    ours = [
        voevent_of(event, Origin.SIMULATED, CREATED, before)
        for event, before in zip(events, [None, *events[:-1]], strict=True)
    ]
    command = [
        TWISTD, "--nodaemon", "--pidfile", tmp_path / "pid", "comet", "--local-ivo", "ivo://test.comet/broker",
        "--receive", "--receive-port", receive, "--broadcast", "--broadcast-port", broadcast,
        "--author-whitelist", "127.0.0.0/8", "--subscriber-whitelist", "127.0.0.0/8",
        "--broadcast-test-interval", 0, "--eventdb", tmp_path,
    ]  # fmt: skip
    comet = subprocess.Popen(
        list(map(str, command)), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        with SqliteLog(tmp_path / "bus.db") as bus:
            assert comet.stdout is not None
            subscriber = vtp.onto_bus(bus, "127.0.0.1", broadcast, OURS)
            with running(subscriber):
                for line in comet.stdout:  # until our subscription is there: Comet repeats nothing
                    if "New subscriber" in line:
                        break
                first = vtp.submit(voevent("a"), "127.0.0.1", receive, timeout=30)
                again = vtp.submit(voevent("a"), "127.0.0.1", receive, timeout=30)
                with pytest.raises(Refused, match=r"refused ivo://test.mma/notices#bad"):
                    vtp.submit(
                        voevent("bad").replace(b"<Who>", b"<Whom>").replace(b"</Who>", b"</Whom>"), "127.0.0.1", receive
                    )
                for packet in ours:
                    assert not vtp.submit(packet, "127.0.0.1", receive, timeout=30).duplicate
                found = [bus.fetch("external.notices", "group", 1, timeout=30)[0] for _ in range(1 + len(ours))]
        assert (first.duplicate, again.duplicate) == (False, True)
        assert [record.value for record in found] == [voevent("a"), *ours]
        assert [record.key for record in found] == ["ivo://test.mma/notices#a", *map(ivorn_of, events)]
    finally:
        comet.kill()
        comet.wait()
