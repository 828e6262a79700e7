"""Downloads that can be interrupted: what came so far is kept beside the destination and gone on from.

A file is given its name only once its SHA-256 is the expected one, so a destination that exists is whole.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

from shared.errors import UserError, disk_error

CHUNK = 1 << 16
Progress = Callable[[int, int | None], None]


def fetch(
    url: str,
    destination: Path,
    sha256: str,
    *,
    begins: bytes = b"",
    timeout: float = 30.0,
    attempts: int = 3,
    pause: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Download `url` to `destination`, going on from an earlier attempt; an intact destination is left alone.

    Args:
        url: an http or https address.
        destination: final path; `<destination>.part` holds what came so far.
        sha256: hexadecimal digest that the whole file must have; empty where no digest is known. Then nothing that an
            earlier attempt left is gone on from, and what comes must at least begin with `begins`.
        begins: the first bytes of the file.
        timeout: seconds without a byte after which a connection counts as lost.
        attempts: connections in a row that may bring nothing before it is given up.
        pause: seconds between two such connections.
        progress: called with the bytes there and the bytes expected, if known.

    Raises:
        UserError: not reachable, refused by the server, lost, other content than expected, disk full.
    """
    destination = Path(destination)
    part = destination.with_name(destination.name + ".part")
    try:
        if sha256 and destination.exists() and file_sha256(destination) == sha256:
            return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        if not sha256:
            part.unlink(missing_ok=True)
            _complete(url, part, destination, sha256, timeout, attempts, pause, progress)
            with part.open("rb") as file:
                head = file.read(len(begins))
            if head != begins:
                part.unlink()
                raise UserError(
                    f"{url} does not give the expected file: it begins with {head!r} instead of {begins!r}; the "
                    f"download was thrown away, get {destination.name} elsewhere and put it at {destination}"
                )
            part.replace(destination)
            return destination
        resumed = part.exists() and part.stat().st_size > 0
        _complete(url, part, destination, sha256, timeout, attempts, pause, progress)
        found = file_sha256(part)
        if found != sha256 and resumed:  # What an earlier attempt left may be of another file: once from the start.
            part.unlink()
            _complete(url, part, destination, sha256, timeout, attempts, pause, progress)
            found = file_sha256(part)
        if found != sha256:
            part.unlink()
            raise UserError(
                f"{url} does not give the expected file: SHA-256 {found} instead of {sha256}; the download was thrown "
                f"away, get {destination.name} elsewhere and put it at {destination}, then run this again"
            )
        part.replace(destination)
    except OSError as error:
        raise (
            disk_error(error, destination)
            or UserError(f"cannot write {error.filename or destination} ({error.strerror}): check its permissions")
        ) from None
    return destination


def _complete(
    url: str,
    part: Path,
    destination: Path,
    sha256: str,
    timeout: float,
    attempts: int,
    pause: float,
    progress: Progress | None,
) -> None:
    """Connections until the server has no more to give."""
    digest = f" (SHA-256 {sha256})" if sha256 else ""
    by_hand = f"get {destination.name} on another machine{digest} and put it at {destination}, then run this again"
    fruitless = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(url, part, before, timeout, progress):
                return
            trouble = "the connection was closed early"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                raise UserError(f"{url} answers {error.code} {error.reason}: {by_hand}") from None
            trouble = f"the server answers {error.code} {error.reason}"
        except urllib.error.URLError as error:
            trouble = str(getattr(error.reason, "strerror", None) or error.reason)
        except TimeoutError:
            trouble = f"no answer for {timeout:g} seconds"
        except (http.client.HTTPException, ConnectionError) as error:  # Before the first byte of the content.
            trouble = f"the connection broke ({type(error).__name__})"
        came = (part.stat().st_size if part.exists() else 0) > before
        fruitless = 0 if came else fruitless + 1
        if fruitless >= attempts:
            kept = f"; {before} bytes are kept, run it again to go on" if before else ""
            raise UserError(f"cannot download {url} ({trouble}){kept}; without this connection, {by_hand}")
        if not came:
            time.sleep(pause)


def _receive(url: str, part: Path, start: int, timeout: float, progress: Progress | None) -> bool:
    """One connection; whether everything the server announced has come."""
    headers = {"User-Agent": "papers-data/1", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # Nothing after `start`: the file is whole, or not the one we began.
            error.close()
            return True
        raise
    with answer:
        # A server without ranges answers 200 and starts again from the first byte.
        resumes = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if answer.status == 206 and not resumes:
            raise urllib.error.URLError("the server sent another part of the file than asked for")
        start = start if resumes else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        with part.open("ab" if resumes else "wb") as file:
            while chunk := _read(answer):
                file.write(chunk)
                start += len(chunk)
                if progress:
                    progress(start, total)
    return total is None or start >= total


def _read(answer: http.client.HTTPResponse) -> bytes:
    """What has come, without waiting for more: after a lost connection it is in the file, not in a buffer."""
    try:
        return answer.read1(CHUNK)
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as error:  # Not to be taken for an error of the file written to.
        raise urllib.error.URLError(f"the connection broke: {type(error).__name__}") from None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(archive: Path, folder: str, root: Path) -> Path:
    """Take the folder `folder` out of a .tar.gz archive and put it into `root`, whole or not at all.

    Links, devices and paths that lead outside are refused (tarfile's `data` filter). Files of the same names in
    an older `root/folder` are replaced.

    Raises:
        UserError: damaged archive, unsafe member, no such folder inside, disk full.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".extract-", suffix=".tmp") as scratch:
            with gzip.open(archive) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
                members = [m for m in tar if m.name.removeprefix("./").split("/")[0] == folder]
                tar.extractall(scratch, members, filter="data")
                while plain.read(CHUNK):  # The checksum stands at the end of the stream.
                    pass
            new = Path(scratch) / folder
            if not new.is_dir():
                raise UserError(f"{archive} has no folder {folder} in it: delete it and run `make data`")
            target = root / folder
            if not target.exists():
                new.replace(target)
            else:
                for file in sorted(new.rglob("*")):
                    place = target / file.relative_to(new)
                    if file.is_dir():
                        place.mkdir(exist_ok=True)
                    else:
                        file.replace(place)
            return target
    except tarfile.FilterError as error:
        raise UserError(f"{archive} is unsafe: {error}; it was not extracted, delete it") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive} is damaged ({error}): delete it and run `make data`") from None
    except OSError as error:
        full = disk_error(error, root / folder)
        raise full or UserError(f"cannot extract {archive} to {root} ({error.strerror}): check permissions") from None
