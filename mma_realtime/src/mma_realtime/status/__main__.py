"""Show what a live system does: python -m mma_realtime.status --state FOLDER, then open the address that it prints."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from shared.errors import one_line_errors

from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import StatusError
from mma_realtime.status import serve
from mma_realtime.status.watch import Watch

STORE, BUS = "store.sqlite", "bus.sqlite"  # in the folder of a system's state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="to listen at; other than this machine's: needs a token")
    parser.add_argument("--port", type=int, default=serve.PORT, help=f"default {serve.PORT}; 0: any that is free")
    parser.add_argument("--token-file", type=Path, help=f"file of mode 0600 with the token; else ${serve.VARIABLE}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.status", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--state", type=Path, required=True, help="folder of the system's state")
    add_arguments(parser)
    args = parser.parse_args(argv)
    token = serve.token_for(args.host, args.token_file)
    if not (args.state / BUS).is_file():
        raise StatusError(f"{args.state} holds no state of a live system: start one with python -m mma_realtime.live")
    bound = serve.listen(args.host, args.port)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with bound, SqliteLog(args.state / BUS) as bus, serve.service(bound, Watch(args.state / STORE, bus), token):
        Console().print(f"status at {serve.address_of(bound)}", soft_wrap=True, highlight=False)
        stop.wait()
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
