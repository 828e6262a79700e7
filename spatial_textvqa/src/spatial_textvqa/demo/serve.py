"""The demo's service: this machine's alone, or with a token anyone's."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.serving import address_of, listen

from shared import serving
from spatial_textvqa.ask import Asker
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.demo.app import create_app
from spatial_textvqa.demo.scenes import flippable_scenes

__all__ = ["VARIABLE", "address_of", "listen", "serve_until_stopped", "service", "token_for"]

SCENES = 24
VARIABLE = "SPATIAL_TEXTVQA_DEMO_TOKEN"


def token_for(host: str, file: Path | None = None) -> str:
    """`shared.serving.token_for`; the variable is SPATIAL_TEXTVQA_DEMO_TOKEN."""
    return serving.token_for(host, VARIABLE, file, option="--token_file")


@contextlib.contextmanager
def service(bound: socket.socket, asker: Asker, scenes: Sequence[Sample], token: str = "") -> Iterator[None]:
    """The service in a thread, for as long as the block takes.

    Args:
        bound: of `listen`; stays open. On loopback without a token only requests that know this machine by one of its
            own names are answered.
        asker: the network that answers.
        scenes: that can be shown without an upload.
        token: of `token_for`.
    """
    app = create_app(asker, scenes, serving.trusted_hosts(bound, token), token)
    with serving.served(app, bound, "demo"):
        yield


def serve_until_stopped(
    checkpoint: Path, host: str, port: int, ocr_appearance: str | None = None, token_file: Path | None = None
) -> int:
    """The command: says the address, and serves until Ctrl-C.

    Raises:
        UserError: no checkpoint, no such address, or one that others reach without a token.
    """
    token = token_for(host, token_file)
    asker = Asker.load(checkpoint)
    scenes = flippable_scenes(SCENES, asker.model.config.feature_width, asker.appearance(ocr_appearance))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with listen(host, port) as bound, service(bound, asker, scenes, token):
        print(f"demo at {address_of(bound)} (Ctrl-C ends it)", flush=True)
        if token:
            print("note: a browser asks for a name and a password: any name, and the token", flush=True)
        stop.wait()
    return 0
