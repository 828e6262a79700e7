"""The search of one run is where the commands look for it, whether the run was made now or taken from the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mma_realtime.publish import publish
from mma_realtime.search.model_file import DEFAULT
from mma_realtime.trial import FILE


def results(root: Path, tier: str = "cpu", asked: int | None = 10) -> None:
    one = {"wall_seconds": 1, "device": "cpu", "date": "2026-01-01", "commit": "c", "versions": {}, "metrics": {}}
    search: dict[str, Any] = {} if asked is None else {"publish": asked}
    experiment = {
        "title": "net", "config": {"model": {"search": search}},
        "data": {"name": "d", "kind": "recipe", "fingerprint": "f", "detail": ""},
        "runs": [{**one, "key": f"key{seed}", "seed": seed} for seed in (10, 11)],
    }  # fmt: skip
    (root / "results" / tier).mkdir(parents=True)
    (root / "results" / tier / "results.json").write_text(json.dumps({
        "paper": "mma_realtime", "tier": tier, "created": "2026-01-01", "commit": "c", "dirty": False, "machine": "m",
        "versions": {}, "wall_seconds": 1, "experiments": {"net": experiment},
    }))  # fmt: skip
    for seed in (10, 11):
        (root / "runs" / f"key{seed}").mkdir(parents=True, exist_ok=True)
        (root / "runs" / f"key{seed}" / FILE).write_bytes(b"of seed %d" % seed)


def test_the_run_of_the_asked_seed_is_published_again_and_again(tmp_path: Path) -> None:
    results(tmp_path)
    published = tmp_path / "results" / "cpu" / FILE
    assert publish(tmp_path, "cpu")  # what searched with the file that stood there is to be measured again
    assert published.read_bytes() == b"of seed 10"
    published.unlink()  # all runs are in the store: nothing is trained, and yet it is there again
    assert publish(tmp_path, "cpu")
    assert published.read_bytes() == b"of seed 10"
    before = published.stat().st_mtime_ns
    assert not publish(tmp_path, "cpu")
    assert published.stat().st_mtime_ns == before  # the same: not written


def test_it_is_where_the_commands_look() -> None:
    root = Path(__file__).resolve().parent.parent
    assert root / "results" / "cpu" / FILE == DEFAULT


@pytest.mark.parametrize(("tier", "asked"), [("quick", 10), ("cpu", None), ("cpu", 12)])
def test_nothing_else_is_published(tier: str, asked: int | None, tmp_path: Path) -> None:
    results(tmp_path, "cpu", asked)
    publish(tmp_path, tier)
    assert not list(tmp_path.glob(f"results/*/{FILE}"))


def test_where_the_run_is_gone_what_was_published_stays(tmp_path: Path) -> None:
    results(tmp_path)
    published = tmp_path / "results" / "cpu" / FILE
    published.write_bytes(b"committed")
    (tmp_path / "runs" / "key10" / FILE).unlink()
    publish(tmp_path, "cpu")
    assert published.read_bytes() == b"committed"
