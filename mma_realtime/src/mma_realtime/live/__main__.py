"""The whole system in one command: python -m mma_realtime.live, then open the address that it prints.

Simulated noise with signals is searched as if it came now; what is found is told on the bus, gets a sky map, and is
compared with other messengers' events. `--replay FOLDER` takes recorded strain. The folder of its state holds all that
was done: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from shared.errors import one_line_errors

from mma_realtime.errors import StatusError
from mma_realtime.live import inline, supervise
from mma_realtime.live.stages import STAGES_IN_ORDER
from mma_realtime.live.system import Settings, System, alone, prepare
from mma_realtime.search.arguments import finite
from mma_realtime.status import serve
from mma_realtime.status.__main__ import add_arguments


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mma_realtime.live", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--replay", type=Path, nargs="+", default=[], help="recorded strain: files, folders of them")
    parser.add_argument("--seed", type=int, default=0, help="of simulated strain")
    parser.add_argument("--speed", type=finite, default=1.0, help="times real time; 0: as fast as it goes")
    parser.add_argument("--hop", type=finite, default=1.0, help="s of strain that come at once: 1, 0.5 or 0.25")
    parser.add_argument(
        "--for", type=finite, dest="seconds", help="end after so many s; default: with the strain, or Ctrl-C"
    )
    parser.add_argument("--processes", action="store_true", help="a process for each stage, started again when it dies")
    parser.add_argument("--checkpoint", type=Path, help="search model; default: the one that the cpu tier left")
    parser.add_argument(
        "--survey_schemas", type=Path, help="folder of N.avsc: schemas of survey packets in a registry's wire format"
    )
    parser.add_argument("--state", type=Path, default=Path("live_state"), help="folder; default ./live_state")
    add_arguments(parser)
    parser.add_argument("--stage", choices=(*STAGES_IN_ORDER, "status"), help=argparse.SUPPRESS)
    parser.add_argument("--restarts", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    stop = threading.Event()
    if args.stage:
        return supervise.child(args.stage, System.load(args.state), args.restarts, args.fd, args.token_file, stop)
    if args.seconds is not None and args.seconds <= 0:
        raise StatusError(f"--for {args.seconds:g}: give how many seconds above 0")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = Settings(
        tuple(str(path.absolute()) for path in args.replay), args.seed, args.hop, args.speed,
        str(args.checkpoint.absolute()) if args.checkpoint else "",
        survey_schemas=str(args.survey_schemas.absolute()) if args.survey_schemas else "",
    )  # fmt: skip
    token = serve.token_for(args.host, args.token_file)
    console = Console(highlight=False)
    with alone(args.state), serve.listen(args.host, args.port) as bound:
        system = prepare(args.state, settings)
        console.print(f"{system.feed.origin.value} strain; everything is a test", soft_wrap=True)
        console.print(f"status at {serve.address_of(bound)}", soft_wrap=True)
        if args.processes:
            told = supervise.run(system, bound, args.token_file, stop, args.seconds)
        else:
            told = inline.run(system, bound, token, stop, args.seconds)
        console.print(told, soft_wrap=True)
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
