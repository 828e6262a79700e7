"""The status service: this machine's alone, or with a token anyone's (section 13)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from shared.serving import address_of

from mma_realtime.status.app import Looker, create_app
from mma_realtime.status.watch import Watch
from shared import serving

__all__ = ["PORT", "VARIABLE", "address_of", "listen", "service", "token_for"]

PORT = 8017
VARIABLE = "MMA_REALTIME_STATUS_TOKEN"


def listen(host: str = "127.0.0.1", port: int = PORT) -> socket.socket:
    """`shared.serving.listen` at the status service's own port."""
    return serving.listen(host, port)


def token_for(host: str, file: Path | None = None) -> str:
    """`shared.serving.token_for`; the variable is MMA_REALTIME_STATUS_TOKEN."""
    return serving.token_for(host, VARIABLE, file, option="--token-file")


@contextlib.contextmanager
def service(bound: socket.socket, watch: Watch, token: str = "") -> Iterator[Looker]:
    """The service in a thread, for as long as the block takes.

    Args:
        bound: of `listen`; stays open.
        watch: what it shows.
        token: of `token_for`.
    """
    looker = Looker(watch)
    try:
        with serving.served(create_app(looker, token, serving.trusted_hosts(bound, token)), bound, "status http"):
            yield looker
    finally:
        looker.stop()
