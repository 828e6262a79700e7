"""Look into a bus, and read it again: python -m mma_realtime.bus tail|replay|stats|forward|collect.

`tail` shows a topic's last records, and with `--follow` the new ones. `replay` prints a topic from an offset or a time
on, a JSON object a line; with `--group` it prints nothing and has that group read from there again (stop its readers
first, start them after). `stats` shows what is there, and how far each group has come. `forward` sends a log's topics
on to a Kafka cluster, `collect` takes a cluster's into a log, until it is interrupted; the members of a group share the
partitions of what they collect.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from shared.errors import one_line_errors

from mma_realtime.bus.base import Record
from mma_realtime.bus.forward import keep_forwarding
from mma_realtime.bus.kafka import KafkaBus
from mma_realtime.bus.kafka_config import read_config
from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import BusError


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.bus", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    tail = commands.add_parser("tail", help="the last records of a topic")
    tail.add_argument("-n", type=int, default=10, help="so many (default 10)")
    tail.add_argument("--follow", action="store_true", help="and then new ones, until interrupted")
    replay = commands.add_parser("replay", help="a topic from an offset or a time on")
    replay.add_argument("--from", dest="start", required=True, help="offset, or UTC as 2026-01-31T12:00:00")
    replay.add_argument("--group", help="have this group read from there again, instead of printing")
    stats = commands.add_parser("stats", help="topics, records, groups and how far they are")
    onward = commands.add_parser("forward", help="a log's topics on to a Kafka cluster")
    onward.add_argument("topics", nargs="+", help="as gw.notices gw.notices.unified gw.voevents")
    onward.add_argument("--db", type=Path, required=True, help="file of a SQLite log, as live_state/bus.sqlite")
    onward.add_argument("--kafka", type=Path, required=True, help="configuration of a Kafka cluster, in YAML")
    onward.add_argument("--once", action="store_true", help="end when nothing waits")
    inward = commands.add_parser("collect", help="topics of a Kafka cluster into a log")
    inward.add_argument("topics", nargs="+", help="as survey.alerts")
    inward.add_argument("--kafka", type=Path, required=True, help="configuration of a Kafka cluster, in YAML")
    inward.add_argument("--db", type=Path, required=True, help="file of a SQLite log, as live_state/bus.sqlite")
    inward.add_argument("--group", required=True, help="its members share the topics; one member gets them whole")
    for command in (tail, replay):
        command.add_argument("topic")
    for command in (tail, replay, stats):
        where = command.add_mutually_exclusive_group(required=True)
        where.add_argument("--db", type=Path, help="file of a SQLite log")
        where.add_argument("--kafka", type=Path, help="configuration of a Kafka cluster, in YAML")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    if args.command == "forward":
        send_on(args.db, args.kafka, args.topics, args.once)
        return 0
    if args.command == "collect":
        collect(args.kafka, args.db, args.topics, args.group)
        return 0
    with contextlib.closing(opened(args.db, args.kafka)) as bus:
        if args.command == "stats":
            Console().print(stats_table(bus))
        elif args.command == "tail":
            tail(bus, args.topic, args.n, args.follow)
        elif args.group:
            rewind(bus, args.topic, args.group, args.start)
        else:
            for record in records_from(bus, args.topic, args.start):
                print(json.dumps(as_dict(record)))
    return 0


def opened(db: Path | None, kafka: Path | None) -> SqliteLog | KafkaBus:
    """The bus that was asked for. A log is looked into, never made: BusError where the file is not there."""
    if db is None:
        assert kafka is not None
        return KafkaBus(read_config(kafka))
    if not db.is_file():
        raise BusError(f"{db} is not there: --db wants the file of a log")
    return SqliteLog(db)


def send_on(db: Path, kafka: Path, topics: Sequence[str], once: bool) -> None:
    with contextlib.closing(opened(db, None)) as log, contextlib.closing(opened(None, kafka)) as cluster:
        wait = threading.Event().wait if once else until_told()
        done = keep_forwarding(log, cluster, topics, wait, None if once else 0.05)
    Console().print(f"{done} records of {', '.join(topics)} sent on", soft_wrap=True)


def collect(kafka: Path, db: Path, topics: Sequence[str], group: str) -> None:
    member = KafkaBus(read_config(kafka), shared=True)
    with contextlib.closing(member), contextlib.closing(opened(db, None)) as log:
        done = keep_forwarding(member, log, topics, until_told(), group=group)
    Console().print(f"{done} records of {', '.join(topics)} collected", soft_wrap=True)


def until_told() -> Callable[[float], bool]:
    """Waits so many seconds; True, and at once, after Ctrl-C or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop.wait


def place_of(text: str) -> tuple[int | None, float | None]:
    """An offset or a time (s since 1970) as typed."""
    if text.isdecimal():
        return int(text), None
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise BusError(f"--from {text!r}: an offset, or UTC as 2026-01-31T12:00:00") from None
    return None, (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()


def records_from(bus: SqliteLog | KafkaBus, topic: str, start: str) -> Iterator[Record]:
    """A topic's records from a place to the end, read by a group of our own that commits nothing."""
    group = f"replay-{uuid.uuid4().hex}"
    offset, time = place_of(start)
    bus.seek(group, topic, offset, time=time)
    while found := bus.fetch(topic, group, timeout=0.0 if isinstance(bus, SqliteLog) else 3.0):
        yield from found


def rewind(bus: SqliteLog | KafkaBus, topic: str, group: str, start: str) -> None:
    offset, time = place_of(start)
    if isinstance(bus, SqliteLog) and group not in (known := bus.positions(topic)):
        told = f"those that have are {', '.join(known)}" if known else "none has"
        raise BusError(f"--group {group}: no such group has read {topic}: {told}")
    if offset is None:
        assert time is not None
        for offset in [bus.at(topic, time)] if isinstance(bus, SqliteLog) else bus.at(topic, time):
            bus.commit(group, topic, offset)
            print(f"{group} reads {topic} from {offset} on")
    else:
        bus.commit(group, topic, offset)
        print(f"{group} reads {topic} from {offset} on")


def tail(bus: SqliteLog | KafkaBus, topic: str, count: int, follow: bool) -> None:
    group = f"tail-{uuid.uuid4().hex}"
    for first, end in bus.bounds(topic):
        bus.seek(group, topic, max(first, end - count))
    while (found := bus.fetch(topic, group, timeout=1.0 if follow or isinstance(bus, KafkaBus) else 0.0)) or follow:
        for record in found:
            print(line(record), flush=True)


def line(record: Record) -> str:
    """A record in one line: place, time, key, and the beginning of its value if that is text."""
    time = datetime.datetime.fromtimestamp(record.time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    text = record.value[:80].decode(errors="replace")
    shown = text.replace("\n", " ") if text.replace("\n", " ").isprintable() else "(binary)"
    return f"{record.offset:>8} {time} {record.key} {len(record.value)} bytes: {shown}"


def as_dict(record: Record) -> dict[str, object]:
    """A record for JSON; the value as text, or in hexadecimal where it is none."""
    try:
        value = {"value": record.value.decode()}
    except UnicodeDecodeError:
        value = {"value_hex": record.value.hex()}
    return {"topic": record.topic, "offset": record.offset, "time": record.time, "key": record.key,
            "headers": record.headers, **value}  # fmt: skip


def stats_table(bus: SqliteLog | KafkaBus) -> Table:
    table = Table("topic", "first", "next", "records", "groups, records behind")
    for topic in bus.topics():
        groups = bus.positions(topic) if isinstance(bus, SqliteLog) else {}
        for first, end in bus.bounds(topic):
            behind = ", ".join(f"{group} {end - max(place, first)}" for group, place in groups.items())
            table.add_row(topic, str(first), str(end), str(end - first), behind or "–")
    return table


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
