"""`python -m diffusion_fields.dry_run`: costs of configurations, without data, and one training step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusion_fields.models import build, cost
from shared.errors import UserError

from diffusion_fields import dry_run

SIZE = {
    "num_freq": 2,
    "d_model": 16,
    "num_latents": 4,
    "d_latents": 8,
    "num_blocks": 1,
    "self_per_block": 1,
    "heads": 2,
}
TINY: dict[str, Any] = {
    "model": {"size": SIZE, "warmup": 0, "lr": 0.01},
    "data": {"dataset": "voxels", "batch_size": 8, "num_context": 12, "num_query": 20},
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def config(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path


def test_the_sizes_of_the_paper_are_counted_in_a_moment(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run.main(["--no-step"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines[1:5]}
    assert list(rows) == ["celebahq64", "cifar10", "shapenet", "sphere_mnist"]
    assert rows["celebahq64"][1:3] == ["4,096", "4,096"]
    assert float(rows["celebahq64"][5]) == pytest.approx(3 * float(rows["celebahq64"][4]), rel=0.02)
    assert all(each[-1] == "-" for each in rows.values())
    size = {"num_freq": 6, "d_model": 512, "num_latents": 128, "d_latents": 256, "num_blocks": 6, "self_per_block": 2}
    with torch.device("meta"):
        small = cost(build("perceiver", coord_dim=3, signal_dim=1, heads=4, **size), 2048, 2048)
    assert rows["sphere_mnist"][3] == f"{small.parameters:,}"
    assert float(rows["sphere_mnist"][4]) == pytest.approx(small.forward_flops / 1e12, rel=0.01)
    whole = small.state_bytes + 64 * small.activation_bytes
    assert float(rows["sphere_mnist"][8]) == pytest.approx(whole / 2**30, abs=0.06)


def test_one_step_is_taken_without_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nets, before = [], []

    def kept(*of: Any) -> Any:
        nets.append(build_net(*of))
        before.append({name: value.clone() for name, value in nets[0].state_dict().items()})
        return nets[0]

    build_net = dry_run.build
    monkeypatch.setattr(dry_run, "build", kept)
    assert dry_run.main(["--config", str(config(tmp_path))]) == 0
    told = capsys.readouterr().out.splitlines()[1].split()
    assert told[:4] == ["tiny", "12", "20", f"{nets[0].num_parameters():,}"]
    assert 0 <= float(told[-1]) < 10
    assert (nets[0].coord_dim, nets[0].signal_dim) == (3, 1)
    moved = [name for name, value in nets[0].state_dict().items() if not torch.equal(value, before[0][name])]
    assert {"latents", "head.weight", "tok.ctx_x.linear.weight"} <= set(moved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"sise": {}}}, "tiny.yaml: got an unexpected keyword argument 'sise'"),
        ({"model": {"size": {}}}, "network 'perceiver'"),
        ({"model": {"network": "transformer"}}, "counted of a perceiver, this is a transformer"),
        ({"data": {"dataset": "mesh_grf", "num_query": 4}}, "a dry run needs data.num_query, and one of"),
        ({"data": {"dataset": "voxels"}}, "a dry run needs data.num_query"),
    ],
)
def test_what_cannot_be_counted(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dry_run.main(["--config", str(config(tmp_path, **changes))])
    (tmp_path / "tier.yaml").write_text("paper: diffusion_fields\n")
    with pytest.raises(UserError, match="has no model and data"):
        dry_run.main(["--config", str(tmp_path / "tier.yaml")])
