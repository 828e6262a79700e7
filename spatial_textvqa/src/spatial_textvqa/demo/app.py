"""The demo's service: one page, and what it asks for. Nothing that comes from outside is written to a file or run.

A picture is a scene of `scenes`, or an upload: then its bytes are read in memory, its name is never looked at, and what
is shown again is the pixels alone, made anew. Uploads are kept under random names, the last `KEPT` of them.
"""

from __future__ import annotations

import functools
import io
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.errors import UserError
from shared.serving import brings

from spatial_textvqa import explain
from spatial_textvqa.ask import Answer, Asker, Candidate
from spatial_textvqa.custom import MOST_CHARACTERS, picture_of
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.metrics import flip_question
from spatial_textvqa.ocr_files import Size, parsed_objects, parsed_ocr
from spatial_textvqa.picture import Picture, as_data, opened_image, parsed_json
from spatial_textvqa.scene_picture import backdrop as scene_backdrop

try:
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse, Response
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException, MultiPartParser
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError:
    raise UserError("the demo needs fastapi: pip install 'papers-spatial-textvqa[demo]'") from None

HERE = Path(__file__).parent
FILES = (
    ("/", "page.html", "text/html"),
    ("/page.css", "page.css", "text/css"),
    ("/page.js", "page.js", "text/javascript"),
)
MEGABYTE = 2**20
MOST_IMAGE, MOST_TEXT, MOST_JSON = (
    8 * MEGABYTE,
    MEGABYTE,
    64 * 2**10,
)  # bytes of an image, of an OCR file, of a question
MOST_UPLOAD = MOST_IMAGE + 2 * MOST_TEXT + MOST_JSON
KEPT = 24
log = logging.getLogger(__name__)
NAMES = {"image": "the picture", "ocr": "the OCR file", "objects": "the objects file"}  # for messages: not the user's
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Shown:
    """A picture on the page: what lies below its boxes, a question to begin with, and notes about it."""

    picture: Picture
    backdrop: str
    question: str
    notes: Sequence[str]


class Shelf:
    """The pictures that can be asked about: the scenes always, and the last uploads."""

    def __init__(self, scenes: dict[str, Shown]) -> None:
        self.scenes = scenes
        self._uploads: OrderedDict[str, Shown] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, shown: Shown) -> str:
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._uploads[name] = shown
            while len(self._uploads) > KEPT:
                self._uploads.popitem(last=False)
        return name

    def get(self, name: str) -> Shown:
        """Raises:
        UserError: there is none of this name, or no longer.
        """
        with self._lock:
            shown = self.scenes.get(name) or self._uploads.get(name)
        if shown is None:
            raise UserError("this picture is no longer here: show a scene, or upload it again")
        return shown


class InMemory(MultiPartParser):
    """Keeps every part in memory: Starlette's own puts parts above 1 MB into temporary files."""

    spool_max_size = MOST_UPLOAD


def create_app(
    asker: Asker, scenes: Sequence[Sample], hosts: Sequence[str] = ("127.0.0.1", "localhost"), token: str = ""
) -> FastAPI:
    """The application.

    Args:
        asker: the network that answers.
        scenes: that can be shown without an upload.
        hosts: names that a browser may know this service by; `*`: any.
        token: if set, every request has to bring it: as a bearer's, or as the password of basic authentication, which
            is what browsers ask for.
    """
    app = FastAPI(title="spatial_textvqa demo", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    shelf = Shelf({f"scene-{i}": _shown_scene(asker, scene) for i, scene in enumerate(scenes)})
    one_at_a_time = threading.Lock()  # torch takes all cores for one question

    @app.middleware("http")
    async def guarded(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        if token and not brings(request.headers.get("authorization", ""), token):
            response = _error("a token is needed", 401)
            response.headers["WWW-Authenticate"] = 'Basic realm="spatial_textvqa", charset="UTF-8"'
        else:
            try:
                response = _refused(request) or await follow(request)
            except Exception:  # an error of the program: its user gets an answer of the usual form, its owner the trace
                log.exception("%s %s", request.method, request.url.path)
                response = _error("the demo failed at this request: where it was started it says why", 500)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(UserError)
    async def told(request: Request, error: UserError) -> Response:
        return _error(str(error), 422)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return _error(str(error.detail), error.status_code)

    for path, name, kind in FILES:
        content = (HERE / name).read_bytes()
        app.add_api_route(path, functools.partial(_file, content, kind), methods=["GET"], response_model=None)

    @app.get("/api/start")
    def start() -> JSONResponse:
        read = asker.encoder.encoding
        known = list(read.question_words[2:]) if read.question != "bert" else []
        return JSONResponse({
            "scenes": len(shelf.scenes), "layers": asker.model.config.layers, "context": asker.model.config.contexts(),
            "words": known, "most_characters": MOST_CHARACTERS,
        })  # fmt: skip

    @app.get("/api/scene/{number}")
    def scene(number: int) -> JSONResponse:
        name = f"scene-{number}"
        return JSONResponse(_told(name, shelf.get(name)))

    @app.post("/api/upload")
    async def upload(request: Request) -> JSONResponse:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise UserError("expected an upload as multipart/form-data")
        try:
            form = await InMemory(request.headers, request.stream(), max_files=3, max_fields=0).parse()
        except MultiPartException as error:
            raise HTTPException(400, error.message) from None
        try:
            given = {key: await _part(form.get(key), key) for key in NAMES}
        finally:
            await form.close()

        def read() -> Shown:
            with one_at_a_time:
                return _uploaded(asker, given)

        shown = await run_in_threadpool(read)
        return JSONResponse(_told(shelf.put(shown), shown))

    @app.post("/api/ask")
    async def ask(request: Request) -> JSONResponse:
        said = await _json(request)
        shown = shelf.get(_text(said, "picture"))
        question = _text(said, "question")

        def answer() -> dict[str, Any]:
            with one_at_a_time:
                return _answered(asker.ask(replace(shown.picture, name="the picture"), question), shown)

        return JSONResponse(await run_in_threadpool(answer))

    @app.post("/api/flip")
    async def flip(request: Request) -> JSONResponse:
        flipped = flip_question(_text(await _json(request), "question")[:MOST_CHARACTERS])
        if flipped is None:
            raise UserError("the question has no spatial word to flip, such as left, right, above or below")
        return JSONResponse({"question": flipped})

    return app


# What comes in ---------------------------------------------------------------------------------------------------


def _refused(request: Request) -> Response | None:
    """An answer to a request that is not even read: from another site's page, or too large."""
    if request.method != "POST":
        return None
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return _error("requests from another site's page are refused", 403)
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return _error("a request has to tell its length", 411)
    most = MOST_UPLOAD if request.url.path == "/api/upload" else MOST_JSON
    if int(length) > most:
        return _error(f"{int(length) / MEGABYTE:.1f} MB are too much: at most {most / MEGABYTE:.1f} MB are taken", 413)
    return None


async def _json(request: Request) -> dict[str, Any]:
    try:
        said = parsed_json((await request.body()).decode(), "the request")
    except UnicodeDecodeError:
        said = None
    if not isinstance(said, dict):
        raise UserError("expected a json object")
    return said


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    if not isinstance(value, str):
        raise UserError(f"expected a text as {key}")
    return value


async def _part(value: Any, key: str) -> bytes | None:
    """The bytes of an uploaded file; None where none was chosen."""
    if not isinstance(value, UploadFile):
        return None
    most = MOST_IMAGE if key == "image" else MOST_TEXT
    content = await value.read(most + 1)
    if len(content) > most:
        raise HTTPException(413, f"{NAMES[key]} is larger than {most / MEGABYTE:g} MB, which is the most that is taken")
    return content or None


def _uploaded(asker: Asker, given: dict[str, bytes | None]) -> Shown:
    """Raises:
    UserError: no OCR file, or a file that is not what it should be.
    """
    if given["ocr"] is None:
        raise UserError("choose an OCR file: json or TSV; none is bundled to read the picture")
    size: Size | None = None
    data = ""
    if given["image"] is not None:
        with opened_image(io.BytesIO(given["image"]), NAMES["image"]) as image:
            size = image.size
            data = as_data(image, NAMES["image"])
    picture = parsed_ocr(_decoded(given["ocr"], "ocr"), NAMES["ocr"], size)
    if given["objects"] is not None:
        content = parsed_json(_decoded(given["objects"], "objects"), NAMES["objects"])
        things = parsed_objects(content, NAMES["objects"], (picture.width, picture.height))
        picture = replace(picture, objects=things)
    picture, notes = asker.fitted(picture)
    return Shown(picture, explain.embedded(data, picture) if data else "", "", notes)


def _decoded(content: bytes, key: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{NAMES[key]}: expected UTF-8 text") from None


def _shown_scene(asker: Asker, sample: Sample) -> Shown:
    picture, notes = asker.fitted(picture_of(sample))
    return Shown(picture, scene_backdrop(picture), sample.question, notes)


# What goes out ---------------------------------------------------------------------------------------------------


def _told(name: str, shown: Shown) -> dict[str, Any]:
    drawn = explain.svg(shown.picture, explain.Drawn("", ""), shown.backdrop)
    return {"picture": name, "svg": drawn, "question": shown.question, "notes": list(shown.notes)}


def _answered(answer: Answer, shown: Shown) -> dict[str, Any]:
    looked = [
        {"text": explain.sentence(edge, shown.picture), "weight": edge.weight, "layer": edge.layer + 1,
         "head": edge.head + 1} for edge in answer.edges
    ]  # fmt: skip
    return {
        "question": answer.question, "answer": answer.text, "words": [_candidate(word) for word in answer.words],
        "candidates": [[_candidate(c) for c in step] for step in answer.candidates], "edges": looked,
        "notes": [*shown.notes, *answer.notes], "svg": answer.svg(shown.picture, shown.backdrop),
    }  # fmt: skip


def _candidate(word: Candidate) -> dict[str, Any]:
    return {"word": word.word, "source": word.source, "index": word.index, "score": word.score}


def _error(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status)


async def _file(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind)
