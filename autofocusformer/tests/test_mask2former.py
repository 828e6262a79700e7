"""Mask2Former on tokens: the authors' numbers and counts; every part takes part in the loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from autofocusformer.backbone import VARIANTS, Pyramid
from autofocusformer.heads.mask2former import PointMask2Former
from autofocusformer.heads.mask2former.deformable import PointDeformableAttention, tokens_of, weighted_rows
from autofocusformer.heads.mask2former.encoding import sine_encoding
from autofocusformer.heads.mask2former.pixel_decoder import PixelDecoder
from autofocusformer.heads.mask2former.query_decoder import QueryDecoder
from test_backbone import golden_weights
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "golden"
COUNTS = json.loads((FOLDER / "params_seg_head.json").read_text())


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(FOLDER / "seg_ops.npz") as stored:
        return {k: torch.from_numpy(stored[k]) for k in stored.files}


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("variant", ["mini", "tiny", "small", "base"])
def test_the_pixel_decoder_has_the_authors_parameters(variant: str) -> None:
    assert count(PixelDecoder(VARIANTS[variant].widths)) == COUNTS[f"pixel_decoder_{variant}"]


@pytest.mark.parametrize(
    ("name", "classes", "queries"),
    [("ade20k", 150, 100), ("cityscapes_instance", 8, 100), ("cityscapes_panoptic", 19, 100),
     ("coco_instance", 80, 100), ("250q_8cls", 8, 250)],
)  # fmt: skip
def test_the_query_decoder_has_the_authors_parameters(name: str, classes: int, queries: int) -> None:
    assert count(QueryDecoder(classes, queries)) == COUNTS[f"transformer_decoder_{name}"]


def test_a_fixed_power_is_no_parameter() -> None:
    assert count(PointDeformableAttention(32, 4)) - count(PointDeformableAttention(32, 4, power=2)) == 1


def test_sampling_of_weighted_places_is_the_authors(golden: dict[str, Tensor]) -> None:
    """`out_i = sum_m a_im sum_k w_imk v_idx(i,m,k)`."""
    w, a, v = (golden[f"ms_{k}"].requires_grad_() for k in "wav")
    out = weighted_rows(golden["ms_idx"].long().flatten(2), (a[..., None] * w).flatten(2), v)
    close(out, golden["ms_out"])
    for got, k in zip(torch.autograd.grad(out, (w, a, v), golden["ms_gout"]), "wav"):
        close(got, golden[f"ms_d{k}"])


def test_sine_encoding_is_the_authors(golden: dict[str, Tensor]) -> None:
    close(sine_encoding(golden["pe_pos"], 16), golden["pe_out"])


def test_deformable_attention_is_the_authors(golden: dict[str, Tensor]) -> None:
    attention = PointDeformableAttention(32, heads=4)
    attention.load_state_dict({k[6:]: x for k, x in golden.items() if k.startswith("def_p.")}, strict=True)
    positions, query, value, expected = (
        [golden[f"def_{name}{level}"] for level in range(3)] for name in ("pos", "query", "value", "out")
    )
    h, w = golden["def_hw"].tolist()
    tokens = tokens_of([p.long() for p in positions], (h, w))
    out = attention(torch.cat(query, 1), torch.cat(value, 1), tokens)
    close(out, torch.cat(expected, 1))
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())
    assert attention.shepard_power.grad.abs() > 0
    assert attention.sampling_offsets.weight.grad.abs().sum() > 0


def test_offsets_start_in_all_directions() -> None:
    attention = PointDeformableAttention(16, heads=8, levels=2, points=3)
    start = attention.sampling_offsets.bias.view(8, 2, 3, 2)
    close(start[0, 1], torch.tensor([[1.0, 0], [2, 0], [3, 0]]))
    close(start[1, 0], torch.tensor([[1.0, 1], [2, 2], [3, 3]]))
    close(start[4, 0], torch.tensor([[-1.0, 0], [-2, 0], [-3, 0]]))


@pytest.fixture(scope="module")
def pyramid() -> Pyramid:
    torch.manual_seed(0)
    return Pyramid(VARIANTS["nano"]).eval()


def head(classes: int = 3, queries: int = 6) -> PointMask2Former:
    torch.manual_seed(1)
    return PointMask2Former(VARIANTS["nano"].widths, classes, queries).eval()


def test_forward_of_a_small_image(pyramid: Pyramid) -> None:
    images = torch.randn(2, 3, 64, 80, generator=torch.Generator().manual_seed(2))
    predictions = head()(pyramid(images))
    assert len(predictions) == 10
    for classes, masks in predictions:
        assert classes.shape == (2, 6, 4)
        assert masks.shape == (2, 6, 16, 20)
    assert torch.isfinite(predictions[-1].masks).all()


def test_an_image_alone_and_in_a_batch() -> None:
    """Importances are spread: the images keep other points, and the other image's reach further out."""
    backbone, model = Pyramid(VARIANTS["nano"]).eval(), head()
    golden_weights(backbone, 3)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        levels = backbone(images)
        both, alone = model(levels)[-1], model(backbone(images[1:]))[-1]
    assert any((level.positions[0].amax(0) > level.positions[1].amax(0)).any() for level in levels)
    torch.testing.assert_close(both.masks[1:], alone.masks, rtol=0, atol=1e-5)
    torch.testing.assert_close(both.classes[1:], alone.classes, rtol=0, atol=1e-5)
