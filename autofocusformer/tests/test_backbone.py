"""Whole networks: the authors' numbers, the published parameter counts, every size, every stage global or not."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autofocusformer.backbone import VARIANTS, AutoFocusFormer, BackboneConfig, Pyramid
from autofocusformer.sampling import on_grid
from shared.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
PARAMETERS = json.loads((GOLDEN / "params.json").read_text())


def golden_weights(model: torch.nn.Module, seed: int) -> None:
    """Fills in what the golden README says: one generator, parameters in the order of their names."""
    generator = np.random.RandomState(seed)
    for name, parameter in sorted(model.named_parameters()):
        r = generator.standard_normal(tuple(parameter.shape))
        if parameter.ndim >= 2:
            r = r / np.sqrt(np.prod(parameter.shape[1:]))
        else:
            r = 1 + 0.1 * r if name.endswith("weight") else 0.1 * r
        parameter.data.copy_(torch.from_numpy(np.asarray(r, np.float32)))


def golden_numbers(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def golden_model(config: BackboneConfig, classes: int, seed: int) -> AutoFocusFormer:
    model = AutoFocusFormer(config, classes).eval()
    golden_weights(model, seed)
    return model


def assert_golden_forward(model: AutoFocusFormer, data: Any) -> torch.Tensor:
    merged: list[torch.Tensor] = []
    hooks = [s.downsample.register_forward_hook(lambda _, __, out: merged.append(out)) for s in list(model.layers)[:3]]
    images = golden_numbers(int(data["seed"]) + 1000, (1, 3, *data["res"].tolist()))
    levels = model.stages(images)
    for hook in hooks:
        hook.remove()
    merged.append(levels[-1].features)
    for i, features in enumerate(merged):
        level = levels[min(i + 1, 3)]
        w = level.canvas[1]
        row_major = sorted(level.positions[0].tolist(), key=lambda p: p[1] * w + p[0])
        assert row_major == data[f"s{i + 1}_pos_sorted"][0].tolist(), i
        for key, found in (("mean", features), ("absmean", features.abs())):
            np.testing.assert_allclose(found.mean(1).detach(), data[f"s{i + 1}_feat_{key}"], rtol=1e-4, atol=1e-4)
    logits = model(images)
    np.testing.assert_allclose(logits.detach(), data["logits"], rtol=1e-4, atol=1e-4)
    return logits


def test_nano_and_its_gradients_are_the_golden_ones() -> None:
    data = np.load(GOLDEN / "forward_nano.npz")
    seed = int(data["seed"])
    model = golden_model(VARIANTS["nano"], 10, seed)
    logits = assert_golden_forward(model, data)
    (logits * golden_numbers(seed + 2000, tuple(logits.shape))).sum().backward()
    norms = dict(zip(data["grad_names"].tolist(), data["grad_l2"].tolist()))
    found = {name: float(p.grad.double().norm()) for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == norms.keys()
    for name, norm in norms.items():
        assert found[name] == pytest.approx(norm, rel=1e-3), name


def test_mini_at_a_rate_of_one_fifth_is_the_golden_one() -> None:
    data = np.load(GOLDEN / "forward_mini224_fifth.npz")
    model = golden_model(replace(VARIANTS["mini"], rate=0.2), 1000, int(data["seed"]))
    with torch.no_grad():
        assert_golden_forward(model, data)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameters_are_the_published_number_part_by_part(name: str) -> None:
    published = PARAMETERS[name]
    with torch.device("meta"):
        model = AutoFocusFormer(VARIANTS[name], 1000)

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(model) == published["total"]
    assert [count(stage) for stage in model.layers] == published["stages"]
    parts = (model.patch_embed, model.norm, model.head)
    assert [count(part) for part in parts] == [published[part] for part in ("patch_embed", "norm", "head")]
    assert len(model.state_dict()) == published["state_dict_entries"]


def test_names_and_shapes_are_those_of_the_released_weights() -> None:
    with torch.device("meta"):
        found = {name: list(value.shape) for name, value in AutoFocusFormer(VARIANTS["mini"]).state_dict().items()}
    assert found == json.loads((GOLDEN / "state_dict_mini.json").read_text())


def test_nano_has_its_parameters() -> None:
    assert sum(p.numel() for p in AutoFocusFormer(VARIANTS["nano"], 10).parameters()) == 96_011
    names = {name for name, _ in Pyramid(VARIANTS["nano"]).named_parameters()}
    assert {f"norm{i}.weight" for i in range(4)} <= names
    assert not any(name.startswith("head") or name.startswith("norm.") for name in names)


def test_one_network_takes_every_size_and_batch_one_after_the_other() -> None:
    torch.manual_seed(0)
    model = AutoFocusFormer(VARIANTS["nano"], 10).eval()
    first = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(first)
        for height, width, batch in ((96, 96, 1), (130, 97, 3), (224, 224, 1), (256, 256, 2), (5, 3, 2), (4, 400, 1)):
            levels = model.stages(torch.randn(batch, 3, height, width))
            canvas = (-(-height // 4), -(-width // 4))
            assert all(level.canvas == canvas for level in levels)
            for level in levels:
                assert level.features.shape[:2] == level.positions.shape[:2]
                assert (level.positions >= 0).all()
                assert (level.positions[..., 0] < canvas[1]).all()
                assert (level.positions[..., 1] < canvas[0]).all()
                flat = level.positions[..., 1] * canvas[1] + level.positions[..., 0]
                assert all(len(row.unique()) == len(row) for row in flat)
        assert torch.equal(model(first), before)


@pytest.mark.parametrize("size", [(64, 64), (130, 97)])
def test_an_image_gives_the_same_alone_and_in_a_batch(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = golden_model(VARIANTS["nano"], 10, 7)
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        together, levels = model(images), model.stages(images)
        for i in range(3):
            torch.testing.assert_close(model(images[i : i + 1])[0], together[i], rtol=0, atol=1e-5)
            alone = model.stages(images[i : i + 1])
            assert all(torch.equal(a.positions[0], b.positions[i]) for a, b in zip(alone, levels))


@pytest.mark.parametrize("stages", [(0,), (1, 2), (0, 1, 2, 3)])
def test_any_stage_may_be_global(stages: tuple[int, ...]) -> None:
    nbhd = tuple(10_000 if i in stages else 24 for i in range(4))
    model = AutoFocusFormer(replace(VARIANTS["nano"], nbhd=nbhd), 10)
    logits = model(torch.randn(2, 3, 64, 64))
    logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_clusters_may_be_cut_along_any_curve_with_the_same_weights() -> None:
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    outs = {}
    for curve in ("snake", "hilbert", "peano", "scan-line"):
        torch.manual_seed(0)
        model = AutoFocusFormer(replace(VARIANTS["nano"], curve=curve), 5).eval()
        with torch.no_grad():
            outs[curve] = model(images)
    assert all(out.isfinite().all() for out in outs.values())
    assert len({tuple(out[0].tolist()) for out in outs.values()}) == len(outs)  # other clusters, other neighbourhoods
    with pytest.raises(UserError, match="curve is 'spiral': choose one of snake, hilbert"):
        replace(VARIANTS["nano"], curve="spiral")  # type: ignore[arg-type]


def test_a_canvas_smaller_than_a_cluster_is_one_cluster() -> None:
    config = replace(VARIANTS["nano"], nbhd=(3, 3, 3, 3))
    model = AutoFocusFormer(config, 10).eval()
    assert model.stages(torch.randn(1, 3, 8, 8))[0].features.shape == (1, 4, 16)
    assert config.clusters_seen(0, 4) == 1


def test_the_importance_has_a_gradient_and_by_the_merging_alone() -> None:
    model = AutoFocusFormer(VARIANTS["nano"], 10)
    model(torch.randn(1, 3, 64, 64)).sum().backward()
    for stage in list(model.layers)[:3]:
        assert float(stage.prob_net.weight.grad.norm()) > 0


@pytest.mark.parametrize("mode", ["adaptive", "grid", "random", "oracle"])
def test_every_mode_keeps_its_budget_and_has_the_same_parameters(mode: str) -> None:
    torch.manual_seed(0)
    model = Pyramid(replace(VARIANTS["nano"], sampling=mode)).eval()  # type: ignore[arg-type]
    levels = model(torch.randn(2, 3, 64, 96), oracle=torch.rand(2, 16, 24))
    assert [level.features.shape[1] for level in levels] == [384, 96, 24, 6]
    assert [level.features.shape[2] for level in levels] == [16, 32, 48, 64]
    assert [p.shape for p in model.parameters()] == [p.shape for p in Pyramid(VARIANTS["nano"]).parameters()]
    if mode == "grid":
        assert all(on_grid(level.positions, 2**i).all() for i, level in enumerate(levels))


def test_the_oracle_alone_chooses() -> None:
    model = Pyramid(replace(VARIANTS["nano"], sampling="oracle")).eval()
    oracle = torch.zeros(1, 16, 16)
    oracle[0, 5:9, 5:9] = 1
    kept = {tuple(p) for p in model(torch.randn(1, 3, 64, 64), oracle=oracle)[1].positions[0].tolist()}
    assert {(x, y) for x in range(5, 9) for y in range(5, 9)} <= kept
    with pytest.raises(UserError, match=r"importance of shape \[1, 16, 16\] .* none was given"):
        model(torch.randn(1, 3, 64, 64))
    with pytest.raises(UserError, match=r"shape \[1, 64, 64\] was given"):
        model(torch.randn(1, 3, 64, 64), oracle=torch.rand(1, 64, 64))


def test_what_more_are_reserved_than_asked_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = AutoFocusFormer(replace(VARIANTS["nano"], rate=0.2), 10).eval()
    with caplog.at_level(logging.WARNING), torch.no_grad():
        for _ in range(2):
            levels = model.stages(torch.randn(1, 3, 36, 36))
    assert [level.features.shape[1] for level in levels] == [81, 16, 4, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "stage 2, canvas 9 x 9: a rate of 0.2 would keep 3 of 16 points, fewer than the 4 reserved; keeping 4",
        "stage 3, canvas 9 x 9: a rate of 0.2 would keep 0 of 4 points, fewer than the 1 reserved; keeping 1",
    ]
    caplog.clear()
    model.resample(rate=0.1)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        for _ in range(2):
            model.stages(torch.randn(1, 3, 36, 36))
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["stage 1", "stage 2", "stage 3"]


@pytest.mark.parametrize(("size", "rate"), [((32, 32), 0.25), ((96, 96), 0.2), ((130, 97), 0.2)])
def test_a_stage_may_keep_the_reserved_points_only(size: tuple[int, int], rate: float) -> None:
    model = AutoFocusFormer(replace(VARIANTS["nano"], rate=rate), 10).eval()
    levels = model.stages(torch.randn(1, 3, *size))
    last = levels[3].positions[0]
    assert on_grid(last, 16).all()
    assert len(last) == -(-levels[0].canvas[0] // 16) * -(-levels[0].canvas[1] // 16)


def test_paths_are_dropped_more_towards_the_end() -> None:
    with torch.device("meta"):
        model = AutoFocusFormer(VARIANTS["tiny"])
    drops = [block.drop for stage in model.layers for block in stage.blocks]
    assert drops == pytest.approx(np.linspace(0, 0.2, 30).tolist())


def test_rate_and_alpha_can_be_changed_afterwards() -> None:
    model = AutoFocusFormer(VARIANTS["nano"], 10).eval()
    images = torch.randn(1, 3, 128, 128)
    assert [level.features.shape[1] for level in model.stages(images)] == [1024, 256, 64, 16]
    model.resample(rate=0.5, alpha=8.0)
    assert [level.features.shape[1] for level in model.stages(images)] == [1024, 512, 256, 128]
    with pytest.raises(UserError, match="only rate, alpha and sampling"):
        model.resample(widths=(16, 32, 48, 64))
    with pytest.raises(UserError, match="alpha is -1"):
        model.resample(alpha=-1.0)


def test_autocast_keeps_the_importance_in_fp32_and_the_logits_near() -> None:
    torch.manual_seed(0)
    model = golden_model(VARIANTS["nano"], 10, 11)
    model.resample(sampling="grid")  # the same points in both precisions
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            levels, rounded = model.stages(images), model(images)
    assert all(level.importance.dtype == torch.float32 for level in levels[:3] if level.importance is not None)
    assert all(level.positions.dtype == torch.int64 for level in levels)
    assert float((rounded.float() - exact).abs().max()) < 0.05 * float(exact.abs().max())


def test_autocast_trains_in_adaptive_mode() -> None:
    model = AutoFocusFormer(VARIANTS["nano"], 10)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(2, 3, 64, 64)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.full((2, 3, 16, 16), float("nan")), "image 0 of the batch holds NaN"),
        (torch.zeros(2, 1, 16, 16), r"the network takes \[batch, 3, height, width\], grey"),
        (torch.zeros(3, 16, 16), "the network takes"),
        (torch.zeros(0, 3, 16, 16), "hold no pixel"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "convert to float"),
    ],
)
def test_bad_images_are_one_line(images: torch.Tensor, says: str) -> None:
    with pytest.raises(UserError, match=says):
        AutoFocusFormer(VARIANTS["nano"], 10)(images)


def test_a_merging_bias_gives_the_kept_point_a_weight_from_the_start() -> None:
    for init, zero in (("zero", True), ("normal", False)):
        model = AutoFocusFormer(replace(VARIANTS["nano"], merge_bias_init=init), 10)
        biases = [stage.downsample.weight_net[0].bias for stage in list(model.layers)[:3]]
        assert all(bool((bias == 0).all()) is zero for bias in biases)


def test_grey_images_where_the_network_is_made_for_them() -> None:
    assert AutoFocusFormer(replace(VARIANTS["nano"], in_channels=1), 10)(torch.randn(1, 1, 32, 32)).shape == (1, 10)


def test_images_are_padded_with_zeros_at_the_right_and_at_the_bottom() -> None:
    torch.manual_seed(0)
    model, images = AutoFocusFormer(VARIANTS["nano"], 10).eval(), torch.randn(1, 3, 33, 46)
    padded = torch.zeros(1, 3, 36, 48)
    padded[:, :, :33, :46] = images
    with torch.no_grad():
        assert torch.equal(model(images), model(padded))


def test_two_networks_and_two_sizes_do_not_know_of_each_other() -> None:
    """No state is shared between networks or kept from call to call, in training either."""
    torch.manual_seed(0)
    first, second = AutoFocusFormer(VARIANTS["nano"], 10), AutoFocusFormer(VARIANTS["nano"], 10)
    second.load_state_dict(first.state_dict())
    images = torch.randn(2, 3, 48, 64)
    second.eval()(torch.randn(1, 3, 64, 48))
    second.resample(rate=0.5)
    second.resample(rate=0.25)
    assert torch.equal(first.train()(images), second.train()(images))
