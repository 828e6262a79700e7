"""VOEvents over TCP, the VOEvent Transport Protocol (section 9): as an author who submits, and as a subscriber.

Each message is its length in 4 bytes, most significant first, and so many bytes of XML: a VOEvent, or a Transport
message with a role: iamalive, ack, nak, authenticate. Nothing from the wire is trusted: a length above the limit is
refused before anything of it is read, and XML with a document type (and so with entities) is no XML here.
"""

from __future__ import annotations

import datetime
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from mma_realtime.bus.base import DEAD, EXTERNAL, Bus, Refused
from mma_realtime.errors import BusError

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20  # of a message
CHUNK = 65536  # bytes read at a time
DEEPEST = 64  # elements within elements
ALIVE = 120.0  # s of silence after which a broker has forgotten us: two of its iamalive have not come
FIRST_PAUSE, LAST_PAUSE = 0.1, 30.0  # s between two attempts to connect
ROLES = ("observation", "prediction", "utility", "test")  # of a VOEvent
TRANSPORT = "http://www.telescope-networks.org/xml/Transport/v1.1"
SEEN = ("previously seen", "already seen", "duplicate ivorn")  # how brokers refuse what they have


class WireError(BusError, ValueError):
    """A message that is no VTP: its length, its XML, or what it says."""


def frame(message: bytes, limit: int = MAX_BYTES) -> bytes:
    """A message as it goes on the wire. WireError: longer than the limit."""
    if len(message) > limit:
        raise WireError(f"a message of {len(message)} bytes is over the limit of {limit}")
    return len(message).to_bytes(4, "big") + message


class Framer:
    """Cuts a stream of bytes into messages; holds at most one message and one chunk.

    Args:
        limit: bytes of the longest message that is taken.
    """

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self.limit = limit
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. WireError: a length over the limit; the stream cannot be read on."""
        self._held += data
        done: list[bytes] = []
        while len(self._held) >= 4:
            length = int.from_bytes(self._held[:4], "big")
            if length > self.limit:
                self._held.clear()
                raise WireError(f"a message of {length} bytes was announced, over the limit of {self.limit}: refused")
            if len(self._held) < 4 + length:
                break
            done.append(bytes(self._held[4 : 4 + length]))
            del self._held[: 4 + length]
        return done


def parse(message: bytes) -> Element:
    """The root of a message's XML, names as `{namespace}name`. WireError: not well formed, or with a document type."""
    builder, depth = TreeBuilder(), 0
    parser = expat.ParserCreate(namespace_separator="}")

    def name(text: str) -> str:
        return "{" + text if "}" in text else text

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise WireError(f"XML of more than {DEEPEST} elements within each other: refused")
        builder.start(name(tag), {name(key): value for key, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name(tag))

    def doctype(*_: object) -> None:
        raise WireError("XML with a document type or entities: refused")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, doctype
    try:
        parser.Parse(message, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f"no XML: {error}") from None


def transport(role: str, ours: str, theirs: str | None = None, result: str | None = None) -> bytes:
    """A Transport message: `ours` and `theirs` are ivorns (an answer names theirs, the sender's, as the origin)."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    response = "" if theirs is None else f"<Response>{escape(ours)}</Response>"
    meta = "" if result is None else f"<Meta><Result>{escape(result)}</Result></Meta>"
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\n"
        f'<trn:Transport role={quoteattr(role)} version="1.0" xmlns:trn="{TRANSPORT}">'
        f"<Origin>{escape(ours if theirs is None else theirs)}</Origin>{response}"
        f"<TimeStamp>{now}</TimeStamp>{meta}</trn:Transport>"
    ).encode()


@dataclass(frozen=True)
class Receipt:
    """A document that a broker has; `duplicate` where it had it before, as after a resend."""

    ivorn: str
    duplicate: bool


def submit(document: bytes, host: str, port: int, timeout: float = 60.0, limit: int = MAX_BYTES) -> Receipt:
    """Gives a VOEvent to a broker, trying again with back-off until it answers.

    Args:
        document: the VOEvent, as XML.
        timeout: s after which to give up.

    Raises:
        WireError: the document is none, or too long.
        Refused: the broker said nak, for another reason than having the document already.
        BusError: no answer in time; the document may be submitted again, a broker knows its ivorn.
    """
    ivorn = _voevent(parse(document))
    wire, until, pause = frame(document, limit), time.monotonic() + timeout, FIRST_PAUSE
    while True:
        try:
            answer = _exchange(wire, host, port, until - time.monotonic(), limit)
            return _receipt(answer, ivorn, f"{host}:{port}")
        except (OSError, WireError) as error:
            reason = str(error) or type(error).__name__
        if time.monotonic() + pause > until:
            raise BusError(
                f"{host}:{port} took no VOEvent within {timeout:g} s ({reason}): see that it runs, try again"
            )
        time.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE)


def _exchange(wire: bytes, host: str, port: int, timeout: float, limit: int) -> Element:
    until = time.monotonic() + timeout
    with socket.create_connection((host, port), timeout=max(timeout, 0.01)) as connection:
        connection.sendall(wire)
        framer = Framer(limit)
        while (left := until - time.monotonic()) > 0:
            connection.settimeout(left)
            data = connection.recv(CHUNK)
            if not data:
                raise ConnectionError("closed without an answer")
            if messages := framer.feed(data):
                return parse(messages[0])
    raise TimeoutError("no answer")


def _receipt(answer: Element, ivorn: str, broker: str) -> Receipt:
    role, why = answer.get("role"), answer.findtext("Meta/Result") or "no reason given"
    if role == "ack":
        return Receipt(ivorn, duplicate=False)
    if role != "nak":
        raise WireError(f"an answer of role {role}")
    if any(word in why.lower() for word in SEEN):
        return Receipt(ivorn, duplicate=True)
    raise Refused(f"{broker} refused {ivorn}: {why}")


def _voevent(root: Element) -> str:
    """The ivorn of a VOEvent. WireError where it is none."""
    if root.tag.rpartition("}")[2] != "VOEvent" or root.get("role") not in ROLES or not root.get("ivorn"):
        raise WireError(f"{root.tag.rpartition('}')[2]!r} of role {root.get('role')!r} is no VOEvent")
    return root.attrib["ivorn"]


class Subscriber:
    """Receives a broker's VOEvents, connecting again whenever the connection is lost or silent.

    A VOEvent is acknowledged after `handle` has returned, so what was acknowledged is where `handle` put it; where
    `handle` fails, the connection is given up and the error goes on to the caller of `run`.

    Args:
        ours: the ivorn by which we answer.
        handle: takes each VOEvent (ivorn, XML).
        refuse: takes what could not be read (reason, bytes).
        alive: s of silence after which to connect anew.
    """

    def __init__(
        self, host: str, port: int, ours: str, handle: Callable[[str, bytes], object],
        refuse: Callable[[str, bytes], object] = lambda reason, message: None, alive: float = ALIVE,
        limit: int = MAX_BYTES,
    ) -> None:  # fmt: skip
        self.host, self.port, self.ours, self.limit = host, port, ours, limit
        self.handle, self.refuse, self.alive = handle, refuse, alive
        self.connections = 0

    def run(self, stop: threading.Event) -> None:
        """Receives until `stop` is set."""
        pause = FIRST_PAUSE
        while not stop.is_set():
            try:
                with socket.create_connection((self.host, self.port), timeout=10.0) as connection:
                    self.connections += 1
                    if self._receive(connection, stop):
                        pause = FIRST_PAUSE
            except (OSError, WireError) as error:
                log.warning("%s:%d: %s; connecting again in %.1f s", self.host, self.port, error, pause)
            stop.wait(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _receive(self, connection: socket.socket, stop: threading.Event) -> bool:
        """Until the connection ends; whether anything came."""
        framer, heard, any_came = Framer(self.limit), time.monotonic(), False
        while not stop.is_set():
            connection.settimeout(min(0.5, self.alive))
            try:
                data = connection.recv(CHUNK)
            except TimeoutError:
                data = None
            if data == b"":
                break
            for message in framer.feed(data or b""):
                heard, any_came = time.monotonic(), True
                connection.settimeout(self.alive)
                self._take(connection, message)
            if time.monotonic() - heard > self.alive:  # of whole messages: a byte now and then is no sign of life
                log.warning("%s:%d was silent for %g s", self.host, self.port, self.alive)
                break
        return any_came

    def _take(self, connection: socket.socket, message: bytes) -> None:
        try:
            root = parse(message)
            role = root.get("role")
            if role in ("iamalive", "authenticate"):
                connection.sendall(frame(transport(role, self.ours, root.findtext("Origin") or "")))
                return
            ivorn = _voevent(root)
        except WireError as error:
            log.warning("%s:%d: %s", self.host, self.port, error)
            self.refuse(str(error), message)
            return
        self.handle(ivorn, message)
        connection.sendall(frame(transport("ack", self.ours, ivorn)))


def onto_bus(bus: Bus, host: str, port: int, ours: str, topic: str = EXTERNAL) -> Subscriber:
    """A subscriber that appends every VOEvent to a topic, keyed by its ivorn, and what is none to its dead letters.

    A broker that did not get our ack sends again: readers drop what has the ivorn of a notice that they know.
    """

    def refuse(reason: str, message: bytes) -> None:
        bus.append(topic + DEAD, "", message, {"reason": reason, "topic": topic, "from": f"{host}:{port}"})

    def handle(ivorn: str, message: bytes) -> None:
        bus.append(topic, ivorn, message, {"format": "voevent", "from": f"{host}:{port}"})

    return Subscriber(host, port, ours, handle, refuse)
