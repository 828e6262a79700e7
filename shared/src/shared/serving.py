"""Pages that a command serves: where it listens, who may ask, and the server in a thread.

By default this machine alone; beyond it only with a token. Papers that serve bring uvicorn among their own extras.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hmac
import ipaddress
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import UserError

SHORTEST_TOKEN = 16  # characters
WAITING = 128  # connections that may wait to be taken


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound and listens, so that of two services that start together one is told.

    Args:
        host: a name or an address of this machine.
        port: 0: any that is free.

    Raises:
        UserError: the port is in use or not ours to take, or there is no such address here.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: a port lies between 0 (any that is free) and 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
    except socket.gaierror:
        raise UserError(f"--host {host} is no address: 127.0.0.1 is this machine's own") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(WAITING)
        return bound
    except OSError as error:
        bound.close()
        why = {
            errno.EADDRINUSE: f"port {port} of {host} is in use: give another --port, or 0 for any that is free",
            errno.EACCES: f"port {port} may not be taken by this user: give a --port above 1023",
            errno.EADDRNOTAVAIL: f"this machine has no address {host}: 127.0.0.1 is its own",
        }.get(error.errno or 0, f"cannot listen at {host}:{port}: {error.strerror}")
        raise UserError(why) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(bound: socket.socket) -> str:
    """As a browser takes it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def trusted_hosts(bound: socket.socket, token: str = "") -> tuple[str, ...]:
    """The names that a browser may know the service by, for Starlette's TrustedHostMiddleware.

    On loopback without a token this machine's own alone: a page of another site whose name was pointed here gets no
    answer. Where a token guards the service, any name, as a proxy may bring its own.
    """
    if token or not is_loopback(bound.getsockname()[0]):
        return ("*",)
    return ("127.0.0.1", "localhost", "[::1]", "::1")  # with and without brackets: Starlette's releases differ


def token_for(host: str, variable: str, file: Path | None = None, *, option: str) -> str:
    """The token that requests have to bring; empty where the service is this machine's alone and none is given.

    Args:
        host: to listen at.
        variable: of the environment, that holds it where no file does.
        file: that holds it, readable by its owner alone.
        option: of the command that gives the file, for messages.

    Raises:
        UserError: the address is reached from elsewhere and there is none; a token that is short or that others may
            read.
    """
    token = _read(file) if file else os.environ.get(variable, "").strip()
    if not token and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines: set {variable}, or give {option} with a token of "
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


def brings(authorization: str, token: str) -> bool:
    """Whether the header `Authorization` brings the token; takes as long whatever of it is right.

    As a bearer's, or as the password of basic authentication, which is what browsers ask for.
    """
    kind, _, given = authorization.partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            given = ""
    elif kind.lower() != "bearer":
        given = ""
    return hmac.compare_digest(given.encode(), token.encode())


@contextlib.contextmanager
def served(app: Any, bound: socket.socket, name: str) -> Iterator[None]:
    """An ASGI application in a thread, for as long as the block takes.

    Args:
        app: the application.
        bound: of `listen`; stays open.
        name: of the thread.

    Raises:
        UserError: uvicorn is not installed.
    """
    try:
        import uvicorn  # an extra of the papers that serve
    except ImportError:
        raise UserError("pages are served by uvicorn, which is not installed: pip install uvicorn") from None

    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=2,
        proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound.dup()]}, name=name, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
