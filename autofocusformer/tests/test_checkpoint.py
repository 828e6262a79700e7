"""Files as they are released load strictly, for every variant; what does not fit is listed, what could run is not."""

import argparse
import contextlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from autofocusformer.backbone import VARIANTS, AutoFocusFormer, Pyramid
from autofocusformer.checkpoint import load_checkpoint, load_weights, read_checkpoint, weights_of
from shared.errors import UserError

GOLDEN = Path(__file__).parent / "golden"


def published_shapes(name: str) -> dict[str, list[int]]:
    """Every name and shape of a released variant, written down from Mini's list and the variant's widths and depths.

    Not from our own network, which has to fit it.
    """
    mini, config = VARIANTS["mini"], VARIANTS[name]
    listed = json.loads((GOLDEN / "state_dict_mini.json").read_text())
    shapes: dict[str, list[int]] = {}
    for key, shape in listed.items():
        parts = key.split(".")
        stage = int(parts[1]) if parts[0] == "layers" else (0 if parts[0] == "patch_embed" else 3)
        old, new = mini.widths[stage], config.widths[stage]
        if "blocks" in parts:
            if parts[3] != "0":
                continue
            sizes = {old: new, 2 * old: 2 * new, mini.heads[stage]: config.heads[stage], 5: 5}
            if "kv" in parts:
                resized = [2 * new, new][: len(shape)]
            elif "fc1" in parts:
                resized = [int(new * config.mlp_ratio), new][: len(shape)]
            elif "fc2" in parts:
                resized = [new, int(new * config.mlp_ratio)][: len(shape)]
            elif "pos_embed" in parts:
                resized = [config.heads[stage], 5][: len(shape)]
            else:
                resized = [sizes[side] for side in shape]
            for block in range(config.depths[stage]):
                shapes[".".join(["layers", str(stage), "blocks", str(block), *parts[4:]])] = resized
        elif "downsample" in parts and "weight_net" not in parts:
            after = config.widths[stage + 1]
            sizes = [4 * new] if "norm" in parts else [after, 4 * new]
            shapes[key] = sizes[: len(shape)]
        elif "prob_net" in parts:
            shapes[key] = [1, new][: len(shape)]
        elif parts[0] == "patch_embed":
            channels = {3: 3, old // 2: new // 2, old: new}
            shapes[key] = [channels[side] if i < 2 else side for i, side in enumerate(shape)]
        else:
            shapes[key] = [new if side == old else side for side in shape]
    if config.layer_scale:
        for stage in range(4):
            for block in range(config.depths[stage]):
                for gamma in ("gamma1", "gamma2"):
                    shapes[f"layers.{stage}.blocks.{block}.{gamma}"] = [config.widths[stage]]
    return shapes


def fabricated(name: str, first: int) -> dict[str, torch.Tensor]:
    """A number of its own for each entry, repeated: such a file is small, whatever the variant."""
    shapes = published_shapes(name)
    numbers = (torch.tensor(float(first + i)) if shapes[key] else torch.tensor(first) for i, key in enumerate(shapes))
    return {key: number.expand(shape) for (key, shape), number in zip(shapes.items(), numbers)}


def empty_model(name: str) -> AutoFocusFormer:
    with torch.device("meta"):
        model = AutoFocusFormer(VARIANTS[name], 1000)
    return model.to_empty(device="cpu")


def test_the_list_of_mini_is_the_released_one() -> None:
    assert published_shapes("mini") == json.loads((GOLDEN / "state_dict_mini.json").read_text())
    parameters = json.loads((GOLDEN / "params.json").read_text())
    for name in ("mini", "tiny", "small", "base"):
        assert len(published_shapes(name)) == parameters[name]["state_dict_entries"], name


@pytest.mark.parametrize("name", ["mini", "tiny", "small", "base"])
def test_a_released_file_loads_strictly_with_all_that_lies_beside_its_weights(name: str, tmp_path: Path) -> None:
    weights, average = fabricated(name, 1), fabricated(name, 2000)
    state = np.random.RandomState(3).get_state()
    beside = {
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 3,
        "max_accuracy": np.float64(78.2),
        "numpy_rng": state,
    }
    path = tmp_path / "released.pth"
    torch.save({"model": weights, "model_ema": average, **beside}, path)
    model = empty_model(name)
    found = load_checkpoint(model, path)
    assert found.keys() == beside.keys()
    assert np.array_equal(found["numpy_rng"][1], state[1])
    own = model.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[key], value) for key, value in weights.items())
    load_checkpoint(model, path, average=True)
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in average.items())


def test_a_file_written_beside_an_older_numpy_is_read(tmp_path: Path) -> None:
    state = np.random.RandomState(3).get_state()
    torch.save({"model": {}, "rng": state, "best": np.float64(78.2)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    found = read_checkpoint(tmp_path / "old.pth")
    assert np.array_equal(found["rng"][1], state[1])
    assert found["best"] == 78.2


def test_a_pyramid_takes_the_backbone_of_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier, pyramid = AutoFocusFormer(VARIANTS["nano"], 10), Pyramid(VARIANTS["nano"])
    torch.save({"model": classifier.state_dict()}, tmp_path / "c.pth")
    load_checkpoint(pyramid, tmp_path / "c.pth", backbone_only=True)
    assert torch.equal(pyramid.layers[2].prob_net.weight, classifier.layers[2].prob_net.weight)
    images = torch.randn(1, 3, 64, 64)
    pyramid.eval(), classifier.eval()
    with torch.no_grad():
        assert torch.equal(pyramid.stages(images)[3].features, classifier.stages(images)[3].features)
    with pytest.raises(UserError, match=r"8 missing \(norm0.bias.*4 not in the network \(head.bias"):
        load_checkpoint(pyramid, tmp_path / "c.pth")


def test_what_does_not_fit_is_listed() -> None:
    model = AutoFocusFormer(VARIANTS["nano"], 10)
    weights = dict(model.state_dict())
    del weights["layers.0.prob_net.bias"]
    weights["layers.9.extra"] = torch.zeros(1)
    weights["head.weight"] = torch.zeros(1000, 64)
    before, before_all = model.head.weight.clone(), model.state_dict()
    with pytest.raises(UserError) as raised:
        load_weights(model, weights, "w.pth")
    assert str(raised.value) == (
        "w.pth does not fit this network: 1 missing (layers.0.prob_net.bias); 1 not in the network (layers.9.extra); "
        "1 of another shape (head.weight [1000, 64] instead of [10, 64]); see that variant and classes are its own"
    )
    assert torch.equal(model.head.weight, before)
    count = len(before_all)
    with pytest.raises(UserError, match=rf": {count} missing \(head.bias, .*[^,] and {count - 8} more\); see"):
        load_weights(model, {})


def test_weights_lie_under_model_or_are_the_file() -> None:
    weight = {"a": torch.zeros(1)}
    assert weights_of({"model": weight}) == weight
    assert weights_of(weight) == weight
    with pytest.raises(UserError, match=r"no weights under 'model_ema' \(it has: epoch, model\)"):
        weights_of({"model": weight, "epoch": 1}, average=True)
    with pytest.raises(UserError, match=r"no weights under 'model' \(it has: nothing\)"):
        weights_of({})


def test_names_of_a_wrapped_network_are_read_without_its_prefix(caplog: pytest.LogCaptureFixture) -> None:
    weights = {"head.bias": torch.zeros(1), "norm.bias": torch.ones(1)}
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    with caplog.at_level(logging.WARNING, "autofocusformer.checkpoint"):
        assert weights_of({"model": weights}) == weights
        assert not caplog.records
        assert weights_of({"model": wrapped}, path="w.pth") == weights
        assert weights_of({"model_ema": wrapped}, average=True) == weights
    assert caplog.records[0].message.startswith("w.pth: all names begin with 'module.'")
    assert weights_of({"model": wrapped | {"other": torch.zeros(1)}}).keys() == {*wrapped, "other"}  # not a wrapper's


def test_what_could_run_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"model": {}, "config": argparse.Namespace(rate=0.25)}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"holds a argparse.Namespace, which is not loaded because it could run code"):
        read_checkpoint(tmp_path / "bad.pth")


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("404 not found")
    torch.save({"model": {"a": torch.zeros(1000)}}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    torch.save([1, 2], tmp_path / "list.pth")
    for name, says in (
        ("none.pth", "no such checkpoint"),
        ("text.pth", "is not a checkpoint of PyTorch's, or it is damaged"),
        ("cut.pth", "is not a checkpoint of PyTorch's, or it is damaged"),
        ("list.pth", "holds a list"),
    ):
        with pytest.raises(UserError, match=says) as raised:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("old_format", [False, True])
def test_any_damage_is_one_line(tmp_path: Path, old_format: bool) -> None:
    whole, hurt = tmp_path / "whole.pth", tmp_path / "hurt.pth"
    torch.save({"model": {"a": torch.zeros(40)}}, whole, _use_new_zipfile_serialization=not old_format)
    content, draw = whole.read_bytes(), np.random.default_rng(0)
    refused = 0
    for number in range(120):
        damaged = bytearray(content)
        if number % 2:
            damaged = damaged[: draw.integers(1, len(content))]
        else:
            for place in draw.integers(0, len(content), 4):
                damaged[place] = draw.integers(256)
        hurt.write_bytes(damaged)
        with contextlib.suppress(UserError):  # any other error fails the test
            read_checkpoint(hurt)
            continue
        refused += 1
    assert refused > 60


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.pth").write_bytes(b"x")
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(UserError, match="may not be read: change its permissions"):
        read_checkpoint(tmp_path / "a.pth")
