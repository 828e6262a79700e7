"""The service itself: a page, its JSON, server-sent events and metrics. Every route is a GET; nothing can be changed.

Server-sent events carry two things: `status`, the whole state, of which only the newest matters; and `alert`, of which
none may be missed, so its id is the offset of its record on the bus, and a client that comes back with Last-Event-ID
gets what it has not seen: from the bus, where that is more than the page shows. Retention of the bus is the limit.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from shared.serving import brings

from mma_realtime.errors import BusError, SkyMapError, StatusError
from mma_realtime.gw.units import Seconds
from mma_realtime.sky.fits import read_fits
from mma_realtime.status.sky_picture import sky_picture
from mma_realtime.status.watch import Watch

try:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response, StreamingResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError:
    raise StatusError("the status service needs fastapi: pip install 'papers-mma-realtime[status]'") from None

from mma_realtime.status.metrics import CONTENT_TYPE, exposition

HERE = Path(__file__).parent
FILES = (
    ("/", "page.html", "text/html"), ("/page.css", "page.css", "text/css"), ("/page.js", "page.js", "text/javascript"),
    ("/icon.svg", "icon.svg", "image/svg+xml"),
)  # fmt: skip
EVERY: Seconds = 0.5  # between two looks at store and bus
TICK: Seconds = 0.1  # between two looks of an event stream
QUIET: Seconds = 15.0  # after which a comment keeps a connection open
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
NAME = re.compile(r"S\d{6}[a-z]{1,8}")
log = logging.getLogger(__name__)


class Looker:
    """Looks at store and bus in a thread of its own; what it saw last is `status`.

    Args:
        watch: what it looks with.
        every: s between looks.
    """

    def __init__(self, watch: Watch, every: Seconds = EVERY) -> None:
        self.watch, self.every = watch, every
        self.number = 0
        self.stopping = threading.Event()
        self.status: dict[str, Any] = {"trouble": ""} | watch.look()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.stopping.wait(self.every):
            try:
                self.status = {"trouble": ""} | self.watch.look()
            except (BusError, StatusError) as error:
                log.warning("%s", error)
                self.status = self.status | {"trouble": str(error), "now": time.time()}
            self.number += 1

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join()


def create_app(looker: Looker, token: str = "", hosts: Sequence[str] = ("127.0.0.1", "localhost")) -> FastAPI:
    """The application.

    Args:
        looker: what it shows.
        token: if set, every request has to bring it: as a bearer's, or as the password of basic authentication, which
            is what browsers ask for.
        hosts: names that a browser may know this service by; `*`: any.
    """
    app = FastAPI(title="mma_realtime status", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.middleware("http")
    async def guarded(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        if token and not brings(request.headers.get("authorization", ""), token):
            response: Response = JSONResponse({"error": "a token is needed"}, 401)
            response.headers["WWW-Authenticate"] = 'Basic realm="mma_realtime", charset="UTF-8"'
        else:
            response = await follow(request)
        response.headers.update(HEADERS)
        return response

    for path, name, kind in FILES:
        content = (HERE / name).read_bytes()
        app.add_api_route(path, functools.partial(_file, content, kind), methods=["GET"], response_model=None)

    @app.get("/status")
    async def status() -> JSONResponse:
        return JSONResponse(looker.status)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(looker.status), media_type=CONTENT_TYPE)

    @app.get("/events")
    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(event_stream(looker, _offset(request)), media_type="text/event-stream")

    @app.get("/map/{name}/{version}.svg")
    def sky_map(name: str, version: int) -> Response:
        content = looker.watch.sky_map(name, version) if NAME.fullmatch(name) else None
        if content is None:
            return JSONResponse({"error": "there is no such map"}, 404)
        try:
            picture = _picture(content, f"Sky map of {name}, version {version}: 50 and 90 % regions")
        except SkyMapError as error:
            return JSONResponse({"error": str(error)}, 404)
        return Response(picture, media_type="image/svg+xml")

    return app


async def event_stream(looker: Looker, after: int) -> AsyncIterator[str]:
    """The text of the events, until the service stops.

    Args:
        looker: what is told.
        after: offset of the last alert that the client has seen; -1: it has seen none.
    """
    yield "retry: 1000\n\n"
    number, last = -1, time.monotonic()
    while not looker.stopping.is_set():
        if number != looker.number:
            number, status = looker.number, looker.status
            for alert in await _alerts(looker, status["alerts"][::-1], after):
                if alert["offset"] > after:
                    after = alert["offset"]
                    yield f"event: alert\nid: {after}\ndata: {json.dumps(alert)}\n\n"
            yield f"event: status\ndata: {json.dumps(status)}\n\n"
            last = time.monotonic()
        elif time.monotonic() - last > QUIET:
            yield ": still here\n\n"
            last = time.monotonic()
        await asyncio.sleep(TICK)


async def _alerts(looker: Looker, shown: list[dict[str, Any]], after: int) -> list[dict[str, Any]]:
    """Alerts from the one after `after` on: those shown, oldest first, or more where they begin later."""
    if after < 0 or not shown or shown[0]["offset"] <= after + 1:
        return shown
    try:
        return [alert.as_dict() for alert in await asyncio.to_thread(looker.watch.told_after, after)]
    except BusError as error:
        log.warning("alerts after %d are not read, and not told until they are: %s", after, error)
        return []


async def _file(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind)


@functools.lru_cache(maxsize=8)
def _picture(content: bytes, title: str) -> str:
    return sky_picture(read_fits(content), title)


def _offset(request: Request) -> int:
    """Where a client that comes back was; a header that is no number is as none."""
    text = request.headers.get("last-event-id", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else -1
