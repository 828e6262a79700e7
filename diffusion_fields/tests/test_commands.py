"""`sample.py` and `complete.py` as a user types them, on networks that were just trained (for a few steps)."""

from __future__ import annotations

import argparse
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
import yaml
from diffusion_fields.data import Fields
from diffusion_fields.data.surfaces import pebble
from diffusion_fields.errors import FieldError
from diffusion_fields.module import DiffusionField
from diffusion_fields.oracle import fibonacci_sphere, gaussian_posterior
from PIL import Image
from shared.cli import HouseCLI
from shared.errors import UserError

from diffusion_fields import checkpoint, complete_command, sample_command

PAPER = Path(__file__).resolve().parent.parent
SIZE = {
    "num_freq": 2,
    "d_model": 16,
    "num_latents": 6,
    "d_latents": 16,
    "num_blocks": 1,
    "self_per_block": 1,
    "heads": 2,
}
QUICK = {"size": SIZE, "warmup": 1, "sampling": {"steps": 4}}
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "circle": (QUICK, {"dataset": "circle_grf", "num_context": 12}),
    "sphere": (QUICK, {"dataset": "sphere_grf", "num_context": 20, "points": 60}),
    "digits": (
        {**QUICK, "conditional": True, "sampling": {"steps": 4, "clip": 1.0}},
        {"dataset": "digits", "num_context": [16, 32], "labels": True},
    ),
    "shapes": (QUICK, {"dataset": "sdf_shapes", "num_context": 32, "points": 200}),
    "pebble": (  # three features: three coordinates, but no place in space
        {**QUICK, "size": {**SIZE, "coord_embedding": "none"}},
        {"dataset": "mesh_grf", "num_context": 32, "options": {"features": 3, "modes": 3}},
    ),
}
Samples = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints by name, as `train.py fit` leaves them."""
    root = tmp_path_factory.mktemp("runs")
    for name, (model, data) in RUNS.items():
        config = root / f"{name}.yaml"
        trainer = {"max_epochs": 1, "logger": False, "accelerator": "cpu"}
        fields = {**data, "batch_size": 8, "steps_per_epoch": 5, "validation_fields": 8}
        config.write_text(yaml.safe_dump({"model": model, "data": fields, "trainer": trainer}))
        HouseCLI(
            DiffusionField, Fields, paper="diffusion_fields", quiet=True,
            args=["fit", "--config", str(config), "--run_dir", str(root / name)],
        )  # fmt: skip
    return {name: root / name / "final.ckpt" for name in RUNS}


@pytest.fixture
def copied(runs: dict[str, Path], tmp_path: Path) -> Path:
    """The circle's run, to be spoilt."""
    return Path(shutil.copytree(runs["circle"].parent, tmp_path / "run")) / "final.ckpt"


@pytest.fixture
def samples(runs: dict[str, Path], tmp_path: Path) -> Samples:
    """Run `sample.py` and read what it wrote."""

    def run(name: str, *options: Any) -> dict[str, np.ndarray]:
        out = tmp_path / "samples.npz"
        assert sample_command.main(["--checkpoint", str(runs[name]), "--out", str(out), *map(str, options)]) == 0
        return dict(np.load(out))

    return run


def spoilt(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    state = torch.load(path, weights_only=True)
    torch.save(change(state), path)


# ---- a run ----


def test_a_run_is_loaded_with_its_averaged_weights(copied: Path) -> None:
    trained = checkpoint.load(copied)
    assert trained.domain == "circle"
    assert trained.data.context_range == (12, 12)
    state = torch.load(copied, weights_only=True)["state_dict"]
    for name, value in trained.net.state_dict().items():
        assert torch.equal(value, state[f"average.module.{name}"])
    assert any(not torch.equal(value, state[f"net.{name}"]) for name, value in trained.net.state_dict().items())
    assert not any(module.training for module in trained.net.modules())


def drop_weight(state: dict[str, Any]) -> dict[str, Any]:
    del state["state_dict"]["net.latents"]
    return state


def other(part: str, name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, part: {**state[part], name: value}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_weight, r"is no checkpoint of the configuration beside it \(Missing key\(s\) .*latents"),
        (
            other("trained", "prediction", "eps"),
            "final.ckpt: the checkpoint was trained with prediction 'eps', this configuration has 'v'",
        ),
        (other("trained", "num_context", [4, 4]), r"was trained with num_context \[4, 4\], this .* \[12, 12\]"),
        (other("Fields", "data", "0" * 64), "was trained on other data than circle_grf is here"),
        (lambda state: {"state_dict": state["state_dict"]}, "does not say how it was trained"),
        (lambda state: state["state_dict"]["net.head.weight"], "holds no state_dict: it is not a checkpoint"),
        (lambda state: [state], "holds no state_dict"),
        (lambda state: {"weights": state["state_dict"]}, "holds no state_dict"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_something_else(copied: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    spoilt(copied, change)
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load(copied)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_checkpoints(copied: Path, tmp_path: Path) -> None:
    whole = copied.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        copied.write_bytes(content)
        with pytest.raises(UserError, match=r"final.ckpt is damaged or no checkpoint \(\w+\): train again") as caught:
            checkpoint.load(copied)
        assert "\n" not in str(caught.value)
    torch.save(Path("code"), copied)  # an object: never unpickled
    with pytest.raises(UserError, match=r"damaged or no checkpoint \(UnpicklingError\)"):
        checkpoint.load(copied)
    copied.write_bytes(whole)
    config = copied.parent / "config.yaml"
    text = config.read_text()
    for old, new, message in (
        ("d_model: 16", "d_model: 20", "was trained with size"),
        ("lr: ", "rate: ", "config.yaml: got an unexpected keyword argument 'rate'"),
        ("dataset: circle_grf", "dataset: circle", "unknown data set 'circle'.*did you mean circle_grf"),
    ):
        assert old in text
        config.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=message):
            checkpoint.load(copied)
    config.unlink()
    with pytest.raises(UserError, match=r"config.yaml is missing: name the checkpoint in the folder of a run"):
        checkpoint.load(copied)
    with pytest.raises(UserError, match=r"no.ckpt is missing: name the checkpoint"):
        checkpoint.load(tmp_path / "no.ckpt")


# ---- sample.py ----


@pytest.mark.parametrize(("name", "points"), [("circle", 48), ("sphere", 60), ("digits", 64), ("shapes", 32**3)])
def test_with_nothing_said_the_trained_points_are_sampled(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str, points: int
) -> None:
    assert sample_command.main(["--checkpoint", str(runs[name]), "--num", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    size = {"circle": 12, "sphere": 20, "digits": 32, "shapes": 32}[name]
    assert said[1] == f"2 samples at {points:,} points, context of {size} (random), ddim with 4 steps, seed 0"
    assert [Path(line).name for line in said[2:]] == ["samples.png", "samples.npz"]
    written = np.load(runs[name].parent / "samples.npz")
    assert written["signal"].shape == (2, points, 1)
    assert np.isfinite(written["signal"]).all()
    if name == "digits":
        assert np.allclose(written["values"], (written["signal"].clip(-1, 1) + 1) / 2, atol=1e-5)
    picture = np.asarray(Image.open(runs[name].parent / "samples.png").convert("RGB"))
    assert min(picture.shape[:2]) > 150
    assert picture.std() > 10


def test_a_seed_is_one_field_and_chunks_change_nothing(samples: Samples) -> None:
    usual = samples("sphere", "--sphere", 50, "--seed", 3)
    assert usual["coords"] == pytest.approx(fibonacci_sphere(50), abs=1e-6)
    assert np.array_equal(usual["signal"], samples("sphere", "--sphere", 50, "--seed", 3)["signal"])
    assert usual["signal"] == pytest.approx(
        samples("sphere", "--sphere", 50, "--seed", 3, "--chunk", 7)["signal"], abs=1e-5
    )
    assert not np.allclose(usual["signal"], samples("sphere", "--sphere", 50, "--seed", 4)["signal"])
    for other_way in (
        ("--steps", 9),
        ("--method", "ddpm", "--steps", 9),
        ("--eta", 1),
        ("--clip", 0.1),
        ("--context", "farthest_point"),
    ):
        found = samples("sphere", "--sphere", 50, "--seed", 3, *other_way)["signal"]
        assert np.isfinite(found).all()
        assert not np.allclose(usual["signal"], found), other_way
    assert np.abs(samples("sphere", "--sphere", 50, "--clip", 0.1)["signal"]).max() <= 0.1 + 1e-5


def test_one_field_looked_at_anywhere(samples: Samples, tmp_path: Path) -> None:
    """With the context on the trained points and noise by coordinate, a value does not depend on the other queries."""
    few = fibonacci_sphere(40)[[3, 5, 30]].astype(np.float32)
    np.save(tmp_path / "few.npy", few)
    fixed = ("--context", "grid", "--noise", "hash", "--seed", 5)
    whole, part = samples("sphere", "--sphere", 40, *fixed), samples("sphere", "--coords", tmp_path / "few.npy", *fixed)
    assert part["signal"].shape == (4, 3, 1)
    assert part["signal"] == pytest.approx(whole["signal"][:, [3, 5, 30]], abs=1e-5)
    again = samples("sphere", "--coords", tmp_path / "few.npy", *fixed[:-1], 6)
    assert not np.allclose(part["signal"], again["signal"])


def test_grids_of_any_resolution_cover_the_same_domain(samples: Samples) -> None:
    digits = samples("digits", "--resolution", 16, "--num", 2)["coords"]
    assert digits.shape == (256, 2)
    assert (digits[0] == [-15 / 16, -15 / 16]).all()
    assert digits[1, 0] > digits[0, 0]  # x first: along the columns
    circle = samples("circle", "--resolution", 100)["coords"]
    assert np.allclose(np.linalg.norm(circle, axis=1), 1)
    assert np.allclose(circle[25], [0, 1], atol=1e-6)
    assert samples("shapes", "--resolution", 5, "--num", 1)["coords"].shape == (125, 3)
    sphere = samples("sphere", "--resolution", 24, "--num", 1)["coords"]
    assert np.allclose(np.linalg.norm(sphere, axis=1), 1, atol=1e-6)
    assert 850 < len(sphere) < 950  # pixels of an ellipse in 24 x 48


def test_observed_pairs_are_kept(samples: Samples, tmp_path: Path) -> None:
    coords, signal = fibonacci_sphere(60)[:5].astype(np.float32), np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    np.savez(tmp_path / "seen.npz", coords=coords, signal=signal)
    found = samples("sphere", "--observed", tmp_path / "seen.npz", "--num", 3)["signal"]
    assert np.allclose(found[:, :5], signal)
    assert samples("sphere", "--observed", tmp_path / "seen.npz", "--sphere", 30)["signal"].shape == (4, 30, 1)


def test_classes_and_guidance(samples: Samples) -> None:
    one, two = (samples("digits", "--label", label)["signal"] for label in (1, 2))
    assert not np.allclose(one, two)
    assert samples("digits", "--label", 1, "--guidance", 0)["signal"] == pytest.approx(one, abs=1e-5)
    assert not np.allclose(samples("digits", "--label", 1, "--guidance", 5)["signal"], one)


def test_pictures_and_meshes(runs: dict[str, Path], tmp_path: Path) -> None:
    def run(name: str, *options: Any) -> None:
        assert sample_command.main(["--checkpoint", str(runs[name]), *map(str, options)]) == 0

    run("sphere", "--globe", "--num", 1, "--out", tmp_path / "globe.png", tmp_path / "globe.npz")
    assert Image.open(tmp_path / "globe.png").size[0] > 400
    half = np.load(tmp_path / "globe.npz")["coords"]
    assert np.abs(half.mean(0)).max() < 0.05  # both sides
    run("sphere", "--sphere", 30, "--num", 2, "--out", tmp_path / "points.ply")
    for number in range(2):
        points = trimesh.load(tmp_path / f"points-{number}.ply")
        assert points.vertices == pytest.approx(fibonacci_sphere(30), abs=1e-5)
        assert len(np.unique(points.colors, axis=0)) > 5
    run("shapes", "--resolution", 8, "--num", 1, "--out", tmp_path / "body.ply")
    assert len(trimesh.load(tmp_path / "body.ply").faces) > 10
    trimesh.creation.icosphere(2).export(tmp_path / "ball.obj")
    run("sphere", "--mesh", tmp_path / "ball.obj", "--num", 1, "--out", tmp_path / "painted.ply", tmp_path / "mesh.npz")
    painted = trimesh.load(tmp_path / "painted.ply", process=False)
    assert len(painted.faces) == 320
    assert len(np.unique(painted.visual.vertex_colors, axis=0)) > 20
    assert np.load(tmp_path / "mesh.npz")["signal"].shape == (1, 162, 1)


def test_a_mesh_of_the_users_own_by_its_intrinsic_coordinates(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trained pebble, moved: the same coordinates, so the same fields; on its own faces."""
    vertices, faces = pebble()
    turn = trimesh.transformations.rotation_matrix(1.0, [1, 2, 3])[:3, :3]
    path, out = tmp_path / "moved.ply", [tmp_path / name for name in ("field.npz", "field.ply", "field.png")]
    trimesh.Trimesh(5 * vertices @ turn.T + 3, faces, process=False).export(path)
    given = ["--checkpoint", str(runs["pebble"]), "--num", "1", "--out"]
    assert sample_command.main([*given, *map(str, out), "--mesh", str(path)]) == 0
    moved = dict(np.load(out[0]))
    assert sample_command.main([*given, str(out[0])]) == 0
    trained = dict(np.load(out[0]))
    assert moved["coords"] == pytest.approx(trained["coords"], abs=1e-4)
    assert moved["signal"] == pytest.approx(trained["signal"], abs=1e-3)
    painted = trimesh.load(out[1], process=False)
    assert painted.vertices == pytest.approx(5 * vertices @ turn.T + 3, abs=1e-4)
    assert np.array_equal(painted.faces, faces)
    assert len(np.unique(painted.visual.vertex_colors, axis=0)) > 20
    assert np.asarray(Image.open(out[2]).convert("RGB")).std() > 10
    trimesh.util.concatenate([trimesh.creation.box(), trimesh.creation.box().apply_translation([9, 9, 9])]).export(path)
    with pytest.raises(FieldError, match=r"moved.ply: the mesh has 2 separate pieces"):
        sample_command.main([*given, str(out[0]), "--mesh", str(path)])
    trimesh.creation.torus(1, 0.4).export(tmp_path / "torus.stl")  # which repeats the vertices of every triangle
    assert sample_command.main([*given, str(out[1]), "--mesh", str(tmp_path / "torus.stl")]) == 0
    capsys.readouterr()
    assert sample_command.main(given[:-1]) == 0  # the trained points: no picture
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()[2:]] == ["samples.npz"]


def test_coordinates_without_a_place_in_space_make_no_ply(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    found = sample_command.Queries(torch.zeros(40, 5), None)
    monkeypatch.setattr(sample_command, "queries", lambda *_: found)
    with pytest.raises(FieldError, match=r"5 coordinates are no place in space: a .ply needs --mesh; or write .npz"):
        sample_command.main(["--checkpoint", str(runs["circle"]), "--out", "a.ply"])


def test_a_field_without_a_surface_is_said(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "body.ply"
    trained = checkpoint.load(runs["shapes"])
    found = sample_command.queries(argparse_of(resolution=4), trained)
    assert sample_command.save_ply(out, found, torch.ones(2, 64, 1), True) == []
    assert capsys.readouterr().out.count("no surface: the field lies in 1..1") == 2
    with pytest.raises(FieldError, match="no surface"):
        sample_command.save_ply(out, found, torch.ones(1, 64, 1), True)


def argparse_of(**options: Any) -> Any:
    names = dict.fromkeys(("coords", "mesh", "sphere", "resolution"))
    return argparse.Namespace(**{**names, "globe": False, **options})


def test_coordinates_where_nothing_was_trained_are_warned_of(
    samples: Samples, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "far.npy", np.linspace(-1.5, 1, 2 * 40).reshape(40, 2))
    samples("digits", "--coords", tmp_path / "far.npy")
    assert re.search(
        r"warning: .*far.npy: 8 of 40 coordinates lie outside \[-1, 1\]\^2, where nothing was trained",
        capsys.readouterr().err,
    )
    np.save(tmp_path / "off.npy", np.concatenate([fibonacci_sphere(30), 2 * fibonacci_sphere(3)]))
    samples("sphere", "--coords", tmp_path / "off.npy")
    assert "3 of 33 coordinates lie off the unit sphere" in capsys.readouterr().err
    samples("sphere", "--sphere", 33)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("circle", ["--num-context", "20"], "--num-context is a context of 20, .* was trained with 12: .* choose that"),
        ("digits", ["--num-context", "40"], "context of 40, the network was trained with 16 to 32"),
        ("circle", ["--sphere", "30"], "--sphere: these fields live on the circle"),
        ("sphere", ["--sphere", "0"], "--sphere is 0: it has to be at least 1"),
        ("digits", ["--globe"], "--globe: these fields live on the plane"),
        ("circle", ["--resolution", "0"], "--resolution is 0"),
        ("sphere", ["--sphere", "5"], "5 coordinates hold no context of 20, .*: add --context grid"),
        ("circle", ["--num", "0"], "--num is 0: it has to be at least 1"),
        ("circle", ["--chunk", "-1"], "--chunk is -1"),
        ("circle", ["--num-context", "0"], "--num-context is 0"),
        ("circle", ["--eta", "1.5"], "--eta is 1.5: it lies between 0 and 1"),
        ("circle", ["--clip", "much"], "--clip is 'much': it is a positive number or none"),
        ("circle", ["--clip", "-1"], "clip is -1; it is positive"),
        ("circle", ["--steps", "5000"], "5000 sampling steps of a schedule with 1000"),
        ("circle", ["--method", "flow"], "a network trained with prediction 'flow'"),
        ("circle", ["--label", "1"], "--label: this network was trained without classes"),
        ("digits", ["--label", "10"], "--label is 10: the classes are 0 to 9"),
        ("digits", ["--guidance", "1"], "--guidance needs --label"),
        ("circle", ["--out", "a.txt"], r"--out a.txt: the ending says the format, one of .png .npz .ply"),
        ("sphere", ["--globe", "--out", "a.ply"], "--globe makes pictures"),
        ("circle", ["--coords", "no.npy"], "no.npy is missing"),
        ("circle", ["--mesh", "no.obj"], "no.obj is missing"),
        ("circle", ["--device", "gpu"], "--device is 'gpu': there is no such device here; choose cpu"),
        ("circle", ["--device", "cuda:99"], "--device is 'cuda:99': there is no such device here"),
        ("circle", ["--device", "meta"], "--device is 'meta': there is no such device here"),
        ("pebble", ["--resolution", "8"], "there is no grid over these coordinates"),
        ("pebble", ["--out", "a.png"], "have no picture: write an .npz"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled(runs: dict[str, Path], name: str, options: list[str], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        sample_command.main(["--checkpoint", str(runs[name]), *options])


def test_a_context_of_another_size_if_it_is_asked_for(samples: Samples) -> None:
    assert samples("circle", "--num-context", 20, "--allow-context-mismatch")["signal"].shape == (4, 48, 1)
    assert samples("digits", "--num-context", 20)["signal"].shape == (4, 64, 1)  # within the range of training


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"coords": np.zeros((4, 3))}, r"coordinates of shape \(4, 3\), expected is \(N, 2\)"),
        ({"coords": np.zeros((0, 2))}, "no coordinates, at least one"),
        ({"coords": np.full((4, 2), np.nan)}, "coordinates that are NaN or infinite"),
        ({"coords": np.zeros((2, 4, 2))}, r"coordinates of shape \(2, 4, 2\), expected is \(N, 2\)"),
        ({"points": np.zeros((4, 2))}, "has no coords: it needs coords; it has points"),
        ({"coords": np.array(["a", "b"])}, "coords holds <U1, numbers are expected"),
        ({"coords": np.array([[1, None]], dtype=object)}, r"cannot be read \(ValueError\): save .* without objects"),
    ],
)  # fmt: skip
def test_files_of_coordinates(runs: dict[str, Path], tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "coords.npz"
    np.savez(path, **arrays)
    with pytest.raises(FieldError, match=message):
        sample_command.main(["--checkpoint", str(runs["circle"]), "--coords", str(path)])


def test_damaged_files_and_unequal_pairs(runs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "seen.npz"
    np.savez(path, coords=np.zeros((300, 2)), signal=np.zeros((300, 1)))
    whole = path.read_bytes()
    given = ["--checkpoint", str(runs["circle"]), "--observed", str(path)]
    for content in (b"", b"text", whole[:-30], whole[:100]):
        path.write_bytes(content)
        with pytest.raises(FieldError, match=r"seen.npz (is damaged|cannot be read)"):
            sample_command.main(given)
    np.savez(path, coords=np.zeros((3, 2)), signal=np.zeros((4, 1)))
    with pytest.raises(
        FieldError, match=r"coords of shape \(3, 2\) and signal of \(4, 1\); expected are \(N, 2\) and \(N, 1\)"
    ):
        sample_command.main(given)
    np.savez(path, coords=[[1.0, 0], [0, 1]], signal=[[1.0], [np.nan]])
    with pytest.raises(FieldError, match="observed: a value is not a finite number"):
        sample_command.main(given)
    np.savez(path, coords=[[1.0, 0], [0, 1]], signal=[[1.0], [2]])
    with pytest.raises(FieldError, match="--context grid and --observed"):
        sample_command.main([*given, "--context", "grid"])
    (tmp_path / "bad.obj").write_text("nonsense")
    with pytest.raises(FieldError, match=r"bad.obj is damaged or no mesh"):
        sample_command.main([*given[:2], "--mesh", str(tmp_path / "bad.obj")])


# ---- complete.py ----


@pytest.mark.parametrize(
    ("name", "fraction", "observed"),
    [("circle", 0.1, 5), ("sphere", 0.2, 12), ("digits", 0.25, 16), ("shapes", 0.05, 10)],
)
def test_a_test_field_is_completed(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], name: str, fraction: float, observed: int
) -> None:
    given = ["--checkpoint", str(runs[name]), "--observe-fraction", str(fraction), "--num", "5", "--resample", "2"]
    assert complete_command.main(given) == 0
    said = capsys.readouterr().out
    assert f"5 completions from {observed} of " in said
    found = dict(np.load(runs[name].parent / "completion.npz"))
    index, draws, truth = found["observed_index"], found["signal"], found["truth"]
    assert len(index) == observed
    assert np.allclose(draws[:, index], truth[index], atol=1e-6)
    assert np.array_equal(found["observed"], truth[index])
    rest = np.setdiff1d(np.arange(len(truth)), index)
    assert draws[:, rest].std(0).min() > 0
    error = np.sqrt(((draws.mean(0) - truth)[rest] ** 2).mean())
    assert f"RMSE of the mean to the truth {error:34.4f}" in said
    assert ("exact posterior" in said) == (name in ("circle", "sphere"))
    assert Image.open(runs[name].parent / "completion.png").size[0] > 500


def test_scores_of_exact_completions_are_those_of_the_posterior(runs: dict[str, Path]) -> None:
    trained = checkpoint.load(runs["sphere"])
    options = argparse_of(observed=None, observe_fraction=0.2, field=3, seed=1)
    task = complete_command.task_of(options, trained)
    law = trained.fields.truth
    assert law is not None
    assert task.truth is not None
    K = law.covariance(task.coords.double().numpy())
    mean, covariance = gaussian_posterior(K, task.index.numpy(), task.values[:, 0].double().numpy())
    values, vectors = np.linalg.eigh(covariance)
    normal = np.random.default_rng(0).normal(size=(4000, len(values)))
    exact = torch.from_numpy(mean + normal * np.sqrt(values.clip(0)) @ vectors.T)[..., None]
    found = complete_command.scores(task, exact, trained)
    assert found["RMSE of the mean to the exact posterior mean"] < 0.03
    assert found["z of completions: mean (0 if calibrated)"] == pytest.approx(0, abs=0.02)
    assert found["z of completions: standard deviation (1 if calibrated)"] == pytest.approx(1, abs=0.03)
    assert found["share of completions within the exact 90 % interval"] == pytest.approx(0.9, abs=0.01)
    best = found["RMSE of the exact posterior mean to the truth"]
    assert found["RMSE of the mean to the truth"] == pytest.approx(best, abs=0.03)
    assert 0.3 < found["z of the truth: standard deviation"] < 2
    wide = complete_command.scores(task, exact.mean(0) + 2 * (exact - exact.mean(0)), trained)
    assert wide["z of completions: standard deviation (1 if calibrated)"] == pytest.approx(2, abs=0.05)
    everything = task.coords, torch.arange(50), task.truth[:50], task.truth, None
    known = complete_command.scores(complete_command.Task(*everything), exact, trained)
    assert known["RMSE of the exact posterior mean to the truth"] < 1e-3
    assert "z of completions: mean (0 if calibrated)" not in known  # 50 pairs of 35 modes: nothing is left open


def test_the_users_own_pairs(runs: dict[str, Path], tmp_path: Path) -> None:
    """On points of the grid and beside them."""
    grid = checkpoint.load(runs["circle"]).points.numpy()
    beside = np.array([[np.cos(0.03), np.sin(0.03)]], np.float32)
    path, out = tmp_path / "seen.npz", tmp_path / "done.npz"
    for points, total in ((grid[[4, 9]], 48), (np.concatenate([grid[[4]], beside]), 49)):
        np.savez(path, coords=points, signal=[[0.5], [-0.5]])
        given = ["--observed", str(path), "--num", "3", "--out", str(out), str(tmp_path / "done.png")]
        assert complete_command.main(["--checkpoint", str(runs["circle"]), *given]) == 0
        found = dict(np.load(out))
        assert found["signal"].shape == (3, total, 1)
        assert "truth" not in found
        assert np.array_equal(found["coords"][found["observed_index"]], points)
        assert np.allclose(found["signal"][:, found["observed_index"], 0], [0.5, -0.5])
    beside_digits = np.array([[0.3, 0.31], [-0.9, 0.2]], np.float32)
    np.savez(path, coords=beside_digits, signal=[[0.5], [-0.5]])
    given = ["--observed", str(path), "--num", "2", "--out", str(tmp_path / "digit.png"), "--label", "3"]
    assert complete_command.main(["--checkpoint", str(runs["digits"]), *given]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--observe-fraction", "0"], "--observe-fraction 0 of 48 points is 0: observe one at least"),
        (["--observe-fraction", "1"], "of 48 points is 48: .* leave one open"),
        (
            ["--observe-fraction", "0.5"],
            "24 observed pairs ask for a context of 24, .* trained with 12: .*observe fewer",
        ),
        (["--observe-fraction", "0.5", "--num-context", "12"], "a context of 12 cannot hold 24 observed pairs"),
        (["--observe-fraction", "0.1", "--field", "-1"], "--field is -1"),
        (["--observe-fraction", "0.1", "--resample", "0"], "--resample 0: at least"),
        (["--observe-fraction", "0.1", "--out", "a.ply"], "completions are written as .png and .npz"),
        (["--observed", "no.npz"], "no.npz is missing"),
    ],
)
def test_what_cannot_be_completed(runs: dict[str, Path], options: list[str], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        complete_command.main(["--checkpoint", str(runs["circle"]), *options])


def test_a_field_of_fewer_points_than_the_context_of_training(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = checkpoint.load(runs["circle"]).points[:8]
    task = complete_command.Task(grid, torch.tensor([1, 4]), torch.tensor([[0.5], [-0.5]]), None, None)
    monkeypatch.setattr(complete_command, "task_of", lambda *_: task)
    given = ["--checkpoint", str(runs["circle"]), "--observe-fraction", "0.2", "--out", str(tmp_path / "a.npz")]
    with pytest.raises(FieldError, match=r"a field of 8 points holds a context of 8, .* with 12: .*more points"):
        complete_command.main(given)
    with pytest.raises(FieldError, match="--num-context is 12: the field has 8 points, at most so many"):
        complete_command.main([*given, "--num-context", "12"])
    assert complete_command.main([*given, "--allow-context-mismatch"]) == 0
    assert "context of 8 (random)" in capsys.readouterr().out


def test_more_pairs_than_the_context_of_training_if_it_is_asked_for(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "many.npz"
    given = ["--observe-fraction", "0.5", "--allow-context-mismatch", "--num", "2", "--out", str(out)]
    assert complete_command.main(["--checkpoint", str(runs["circle"]), *given]) == 0
    assert len(np.load(out)["observed_index"]) == 24
    with pytest.raises(FieldError, match="501 validation fields asked for: digits has 500 test fields"):
        complete_command.main(["--checkpoint", str(runs["digits"]), "--observe-fraction", "0.1", "--field", "500"])


@pytest.mark.parametrize(("script", "options"), [("sample.py", []), ("complete.py", ["--observe-fraction", "0.1"])])
def test_the_scripts_say_their_errors_in_one_line(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, script: str, options: list[str]
) -> None:
    copied.write_bytes(b"no")
    monkeypatch.setattr(sys, "argv", [script, "--checkpoint", str(copied), *options])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(PAPER / script), run_name="__main__")
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert said.out == ""
    assert said.err.startswith(f"error: {copied} is damaged or no checkpoint")
    assert len(said.err.splitlines()) == 1
