"""The points exported are the network's own, each image's as it is alone."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from autofocusformer.backbone import VARIANTS, AutoFocusFormer, Pyramid
from autofocusformer.tokens import export_tokens, save_tokens
from shared.errors import UserError


def test_the_points_of_each_stage_are_the_networks() -> None:
    torch.manual_seed(0)
    model, images = Pyramid(VARIANTS["nano"]).train(), torch.randn(2, 3, 64, 96)
    exported = export_tokens(model, images)
    assert model.training
    levels = model.eval().stages(images)
    assert [[len(t.positions) for t in tokens] for tokens in exported] == [[384, 96, 24, 6]] * 2
    for tokens in exported:
        for earlier, later in itertools.pairwise(tokens):
            before, after = ({tuple(p) for p in t.positions.tolist()} for t in (earlier, later))
            assert after < before
            assert {tuple(p) for p in earlier.positions[earlier.reserved].tolist()} <= after
    for i, level in enumerate(levels):
        assert np.array_equal(exported[1][i].positions, level.positions[1])
        assert np.array_equal(exported[1][i].features, level.features[1].detach())
        assert exported[1][i].pixels.min() >= 1.5
    assert np.isnan(exported[0][3].importance).all()
    assert not exported[0][3].prior.any()
    first = exported[0][0]
    assert np.array_equal(first.prior, (first.positions % 2 == 0).all(1))
    assert np.array_equal(first.reserved, (first.positions % 4 == 0).all(1))
    assert ((first.importance > 0) & (first.importance < 1)).all()


def test_under_autocast_all_arrays_are_of_numpys_types() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        tokens = export_tokens(AutoFocusFormer(VARIANTS["nano"], 10), torch.randn(1, 3, 32, 32))[0]
    assert all(t.features.dtype == np.float32 and t.positions.dtype == np.int64 for t in tokens)


def test_a_file_holds_what_was_exported(tmp_path: Path) -> None:
    model = AutoFocusFormer(replace(VARIANTS["nano"], rate=0.2), 10)
    tokens = export_tokens(model, torch.randn(1, 3, 64, 64))[0]
    save_tokens(tmp_path / "tokens.npz", tokens, features=False)
    with np.load(tmp_path / "tokens.npz") as saved:
        assert saved["canvas"].tolist() == [16, 16]
        assert np.array_equal(saved["res4_positions"], tokens[2].positions)
        assert np.array_equal(saved["res2_importance"], tokens[0].importance)
        assert not any(name.endswith("features") for name in saved.files)
    with pytest.raises(UserError, match="is no folder: make it first"):
        save_tokens(tmp_path / "none" / "tokens.npz", tokens)
    with pytest.raises(UserError, match=r"cannot be written .*: choose another place"):
        save_tokens("/proc/tokens.npz", tokens)
