"""Where the demo listens, and who may ask: this machine, or with a token anyone."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.errors import UserError

from spatial_textvqa.ask import Asker
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.demo.app import create_app
from spatial_textvqa.demo.scenes import flippable_scenes

try:
    import uvicorn
except ImportError:
    raise UserError("the demo needs uvicorn: pip install 'papers-spatial-textvqa[demo]'") from None

SCENES = 24
VARIABLE = "SPATIAL_TEXTVQA_DEMO_TOKEN"
SHORTEST_TOKEN = 16


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound; port 0: any that is free.

    Raises:
        UserError: the port is in use or not ours to take, or there is no such address here.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: a port lies between 0 (any that is free) and 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(64)
        return bound
    except socket.gaierror:
        raise UserError(f"--host {host} is no address: 127.0.0.1 is this machine's own") from None
    except OSError as error:
        why = {
            errno.EADDRINUSE: f"port {port} of {host} is in use: give another --port, or 0 for any that is free",
            errno.EACCES: f"port {port} may not be taken by this user: give a --port above 1023",
            errno.EADDRNOTAVAIL: f"this machine has no address {host}: 127.0.0.1 is its own",
        }.get(error.errno or 0, f"cannot listen at {host}:{port}: {error.strerror}")
        raise UserError(why) from None


def token_for(host: str, file: Path | None = None) -> str:
    """The token that requests have to bring; empty where the demo listens to this machine only and none is given.

    Args:
        host: to listen at.
        file: that holds it; else the variable SPATIAL_TEXTVQA_DEMO_TOKEN does.

    Raises:
        UserError: the address is reached from elsewhere and there is none; a token that is short or that others may
            read.
    """
    token = _read(file) if file else os.environ.get(VARIABLE, "").strip()
    if not token and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines: set {VARIABLE}, or give --token_file with a token of "
            f"at least {SHORTEST_TOKEN} characters (and put TLS in front of it)"
        )
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise UserError(f"the token has to be at least {SHORTEST_TOKEN} characters of ASCII")
    return token


def _read(file: Path) -> str:
    try:
        with file.open() as handle:
            mode = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
            if mode & 0o077:
                raise UserError(f"{file} may be read by others (mode {mode:04o}): chmod 600 {file}")
            token = handle.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}): give a file that holds the token") from None
    if not token:
        raise UserError(f"{file} is empty: it has to hold the token")
    return token


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(bound: socket.socket) -> str:
    """As a browser takes it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextlib.contextmanager
def service(
    bound: socket.socket, asker: Asker, scenes: Sequence[Sample], loopback: bool = True, token: str = ""
) -> Iterator[None]:
    """The service in a thread, for as long as the block takes.

    Args:
        bound: of `listen`; stays open.
        loopback: only requests that know this machine by one of its own names are answered: a page of another site
            that has had its name pointed here is not.
        token: of `token_for`.
    """
    # The middleware that compares takes the name up to the first colon.
    hosts = ("127.0.0.1", "localhost", "[") if loopback else ("*",)
    config = uvicorn.Config(
        create_app(asker, scenes, hosts, token), log_config=None, access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=2, proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound.dup()]}, name="demo", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()


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
    with listen(host, port) as bound, service(bound, asker, scenes, is_loopback(host), token):
        print(f"demo at {address_of(bound)} (Ctrl-C ends it)", flush=True)
        if token:
            print("note: a browser asks for a name and a password: any name, and the token", flush=True)
        stop.wait()
    return 0
