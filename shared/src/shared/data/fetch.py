"""`make data`: fetch and verify the public data sets.

    python -m shared.data.fetch [--root DIR] [--list] [mnist fashion_mnist cifar10 ...]

What is there and sound is left alone, whatever layout it has; what is missing or damaged is downloaded, and gone on
with after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from shared.data import download, idx
from shared.data.images import CIFAR10_FOLDER, NAMES, load_images
from shared.data.root import data_root
from shared.data.sources import FILES, SOURCES, RemoteFile
from shared.errors import UserError, disk_error, one_line_errors


def fetch_dataset(
    name: str, root: Path, sources: dict[str, tuple[RemoteFile, ...]] | None = None, **options: Any
) -> str:
    """Make sure that a data set is under `root`, and return what it is (`ImageDataset.detail`).

    Args:
        name: of the data set.
        root: the data root.
        sources: where from; default the public places.
        options: `timeout`, `attempts`, `pause` of `download.fetch`.

    Raises:
        UserError: it is not there and cannot be had.
    """
    try:
        return load_images(name, root).detail
    except UserError:
        if name not in SOURCES:
            raise
    files = (sources or SOURCES)[name]
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f".{name}.lock")
        with lock:
            # Sound files that do not go together: all anew (those with the right digest stay).
            for file in [f for f in files if not _is_sound(root / f.path)] or files:
                _fetch_from_any(file, root, **options)
            if name == "cifar10":
                archive = root / files[0].path
                download.extract(archive, CIFAR10_FOLDER, root)
                archive.unlink()
    except OSError as error:
        raise disk_error(error, root) or UserError(f"cannot write {root} ({error.strerror}): set DATA_ROOT") from None
    return load_images(name, root).detail


def fetch_file(name: str, root: Path, sources: Sequence[RemoteFile] | None = None, **options: Any) -> str:
    """Make sure that the files of an entry of `FILES` are under `root`, whole, and return what they are.

    Raises:
        UserError: one is not there and cannot be had.
    """
    what, files = FILES[name]
    unknown = []
    for file in sources or files:
        path = root / file.path
        try:
            if not _is_whole(path, file):
                path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(root / f".{name}.lock"):
                    _fetch_from_any(file, root, **options)
            if not file.sha256:
                unknown.append(f"{file.name} {download.file_sha256(path)}")
        except OSError as error:
            raise (
                disk_error(error, root) or UserError(f"cannot write {root} ({error.strerror}): set DATA_ROOT")
            ) from None
    return f"{what}; not verified, no digest is known to compare with: {', '.join(unknown)}" if unknown else what


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether the file is there with the digest it has to have, or, where none is known, begins as it has to."""
    if not path.is_file():
        return False
    if file.sha256:
        return download.file_sha256(path) == file.sha256
    with path.open("rb") as content:
        return content.read(len(file.begins)) == file.begins


def _is_sound(path: Path) -> bool:
    """Whether an IDX file, which may be another compression of the same content, can be read as it is."""
    read = {"idx3": idx.read_idx_images, "idx1": idx.read_idx_labels}
    for kind, reader in read.items():
        if kind in path.name:
            for candidate in (path.with_suffix(""), path):
                if candidate.exists():
                    try:
                        reader(candidate)
                        return True
                    except UserError:
                        return False
    return False


def _fetch_from_any(file: RemoteFile, root: Path, **options: Any) -> None:
    """From the first address that serves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    screen = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=screen, transient=True, disable=not screen.is_terminal
    ) as bar:
        task = bar.add_task(file.name, total=file.size)
        for url in file.urls:
            try:
                download.fetch(
                    url,
                    root / file.path,
                    file.sha256,
                    begins=file.begins,
                    progress=lambda done, total: bar.update(task, completed=done, total=total or file.size),
                    **options,
                )
                return
            except UserError:
                if url == file.urls[-1]:
                    raise


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.data.fetch", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join((*NAMES, *FILES))} (default: all)")
    parser.add_argument("--root", type=Path, default=None, help="where to; default DATA_ROOT, else ./data")
    parser.add_argument("--list", action="store_true", help="print address, size, SHA-256 and place of every file")
    options = parser.parse_args(arguments)
    root = (options.root or data_root()).expanduser().absolute()
    if options.list:
        every = [file for files in SOURCES.values() for file in files]
        every += [file for _, files in FILES.values() for file in files]
        print("\n".join(f"{f.urls[0]}  {f.size or '-'}  {f.sha256 or '-'}  {root / f.path}" for f in every))
        return 0
    failed = False
    for name in options.names or (*SOURCES, *FILES):
        try:
            print(f"{name}: {(fetch_file if name in FILES else fetch_dataset)(name, root)}")
        except UserError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
