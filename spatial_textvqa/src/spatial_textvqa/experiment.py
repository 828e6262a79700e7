"""One experiment run, as the launcher calls it: configuration and seed in, metrics out."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from shared.data.root import data_root
from shared.errors import UserError

FILES = (("data", "vocabulary"), ("data", "wordpiece"), ("data", "word_vectors"), ("model", "text_weights"))


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash of the contents, kind, what it is) of the data that `config` trains on, and of the files it reads them by.

    Scenes are drawn by the code, which is in the run's key.

    Raises:
        UserError: a file of the configuration is missing.
    """
    digest, kind, what = _data(config["data"])
    files = {f"{section}.{key}": config.get(section, {}).get(key) for section, key in FILES}
    hashed = [f"{name}:{_file_digest(name, file)}" for name, file in files.items() if file and file != "hash"]
    return (hashlib.sha256("\0".join([digest, *hashed]).encode()).hexdigest() if hashed else digest), kind, what


def _file_digest(name: str, file: str) -> str:
    from spatial_textvqa.data.module import given

    path = Path(given(file)).resolve()
    if not path.is_file():
        without = " (or null: an encoder that begins at random)" if name == "model.text_weights" else ""
        raise UserError(f"{name} is {file}: no such file, here or in {data_root()}: put it there, or name it{without}")
    return _digest(path, path.stat().st_size, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)  # fastText's public files have several GB, and a tier asks for them run by run
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _data(data: dict[str, Any]) -> tuple[str, str, str]:
    name = data.get("dataset", "scenes")
    if name == "scenes":
        digest = hashlib.sha256(b"scenes").hexdigest()
        return digest, "synthetic", "scenes drawn from the seed: objects with text, and questions about them"
    root = Path(data["root"]) if data.get("root") else data_root()
    if name == "receipts":
        from spatial_textvqa.data import receipts

        return (
            receipts.fingerprint(root if data.get("root") else root / "sroie"),
            "real",
            "SROIE text boxes, 626 receipts",
        )
    from spatial_textvqa.data.textvqa import fingerprint

    found = [fingerprint(root / each, each) for each in name.split("+")]
    return hashlib.sha256("".join(found).encode()).hexdigest(), "real", f"{name}, features as given"


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Train and test; resumes from the run's last checkpoint."""
    from shared.cli import train_and_test

    from spatial_textvqa.data.module import TextVQAData
    from spatial_textvqa.module import SpatialTextVQA

    if set(config) - {"model", "data", "trainer"}:
        raise UserError(f"configuration: sections are model, data and trainer, found {', '.join(sorted(config))}")
    return train_and_test(
        SpatialTextVQA, TextVQAData, config, seed, run_dir, paper="spatial_textvqa", experiment=experiment, tier=tier
    )
