"""An exported search gives the search's scores to a program that knows nothing of this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mma_realtime.errors import SearchError
from mma_realtime.models import build
from mma_realtime.search.model_file import Recipe, SearchModel

from mma_realtime import export

torch.set_num_threads(1)
READER = """
import json, sys, torch
told = {"recipe.json": ""}
program = torch.export.load(sys.argv[1], extra_files=told).module()
torch.save((program(torch.load(sys.argv[2])), json.loads(told["recipe.json"])), sys.argv[3])
assert not any(name.startswith("mma_realtime") for name in sys.modules)
"""


def search(combine: str, members: int = 2) -> SearchModel:
    torch.manual_seed(5)
    size = {"input_length": 1024, "channels": 1}
    recipe = Recipe("deepfilter_shallow", size, combine=combine)  # type: ignore[arg-type]
    return SearchModel(recipe, [build("deepfilter_shallow", **size) for _ in range(members)])


@pytest.mark.parametrize("combine", ["mean", "min"])
def test_another_program_gets_the_same_scores(combine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = search(combine)
    model.save(tmp_path / "model.pt")
    out, windows = tmp_path / "search.pt2", torch.randn(7, 1, 1024)
    assert export.main(["--checkpoint", str(tmp_path / "model.pt"), "--out", str(out)]) == 0
    assert "2 networks, windows [batch, 1, 1024] at 1024 Hz; scores differ by at most" in capsys.readouterr().out
    torch.save(windows, tmp_path / "windows.pt")
    command = [sys.executable, "-c", READER, str(out), str(tmp_path / "windows.pt"), str(tmp_path / "scores.pt")]
    subprocess.run(command, check=True, timeout=250)
    scores, told = torch.load(tmp_path / "scores.pt")
    with torch.no_grad():
        each = torch.stack([member.statistic(windows) for member in model.members])
    torch.testing.assert_close(scores, each.mean(0) if combine == "mean" else each.amin(0), rtol=0, atol=1e-5)
    assert told["search_sha256"] == model.checksum
    assert (told["sample_rate"], told["band"], told["single_threshold"]) == (1024, [20.0, 400.0], None)


def test_networks_that_differ_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search("mean").save(tmp_path / "model.pt")
    other = export.exported(search("min"))
    monkeypatch.setattr(export, "exported", lambda model: other)
    with pytest.raises(SearchError, match=r"differ by \S+ from the search: nothing was written"):
        export.main(["--checkpoint", str(tmp_path / "model.pt"), "--out", str(tmp_path / "search.pt2")])
    assert not (tmp_path / "search.pt2").exists()


def test_a_recipe_is_json(tmp_path: Path) -> None:
    told = {export.RECIPE: ""}
    (tmp_path / "a.pt2").write_bytes(export.exported(search("mean", 1)))
    torch.export.load(tmp_path / "a.pt2", extra_files=told)
    json.loads(told[export.RECIPE], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
