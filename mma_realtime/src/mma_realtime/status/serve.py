"""Where the service listens, and who may ask: this machine, or with a token anyone (section 13)."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mma_realtime.errors import StatusError
from mma_realtime.status.app import Looker, create_app
from mma_realtime.status.watch import Watch

try:
    import uvicorn
except ImportError:
    raise StatusError("the status service needs uvicorn: pip install 'papers-mma-realtime[status]'") from None

PORT = 8017
VARIABLE = "MMA_REALTIME_STATUS_TOKEN"
SHORTEST_TOKEN = 16


def listen(host: str = "127.0.0.1", port: int = PORT) -> socket.socket:
    """A socket that is bound; port 0: any that is free.

    Raises:
        StatusError: the port is in use or not ours to take, or there is no such address here.
    """
    if not 0 <= port <= 65535:
        raise StatusError(f"--port {port}: a port lies between 0 (any that is free) and 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)  # now, so that of two services that start together one is told
        return bound
    except socket.gaierror:
        raise StatusError(f"--host {host} is no address: 127.0.0.1 is this machine's own") from None
    except OSError as error:
        why = {
            errno.EADDRINUSE: f"port {port} of {host} is in use: give another --port, or 0 for any that is free",
            errno.EACCES: f"port {port} may not be taken by this user: give a --port above 1023",
            errno.EADDRNOTAVAIL: f"this machine has no address {host}: 127.0.0.1 is its own",
        }.get(error.errno or 0, f"cannot listen at {host}:{port}: {error.strerror}")
        raise StatusError(why) from None


def token_for(host: str, file: Path | None = None) -> str:
    """The token that requests have to bring; empty where the service listens to this machine only and none is given.

    Args:
        host: to listen at.
        file: that holds it; else the variable MMA_REALTIME_STATUS_TOKEN does.

    Raises:
        StatusError: the address is reached from elsewhere and there is none; a token that is short or that others may
            read.
    """
    token = _read(file) if file else os.environ.get(VARIABLE, "").strip()
    if not token and not _loopback(host):
        raise StatusError(
            f"--host {host} can be reached from other machines: set {VARIABLE}, or give --token-file with a token of "
            f"at least {SHORTEST_TOKEN} characters (and put TLS in front of it)"
        )
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise StatusError(f"the token has to be at least {SHORTEST_TOKEN} characters of ASCII")
    return token


def _read(file: Path) -> str:
    try:
        with file.open() as handle:
            mode = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
            if mode & 0o077:
                raise StatusError(f"{file} may be read by others (mode {mode:04o}): chmod 600 {file}")
            token = handle.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StatusError(f"{file} cannot be read ({error}): give a file that holds the token") from None
    if not token:
        raise StatusError(f"{file} is empty: it has to hold the token")
    return token


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(bound: socket.socket) -> str:
    """As a browser takes it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextlib.contextmanager
def service(bound: socket.socket, watch: Watch, token: str = "") -> Iterator[Looker]:
    """The service in a thread, for as long as the block takes.

    Args:
        bound: of `listen`; stays open.
        watch: what it shows.
        token: of `token_for`.
    """
    looker = Looker(watch)
    config = uvicorn.Config(
        create_app(looker, token), log_config=None, access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=2, proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound.dup()]}, name="status http", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield looker
    finally:
        looker.stop()
        server.should_exit = True
        thread.join()
