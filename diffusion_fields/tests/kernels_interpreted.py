"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: see `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_fields.kernels import chamfer_allpairs, fourier_linear, reference, split_kv_cross_attention
from diffusion_fields.kernels.chamfer import triton as chamfer_triton
from diffusion_fields.kernels.checks import CHECKS
from diffusion_fields.kernels.split_kv import triton as split_triton
from shared.kernels.harness import TOLERANCE, Check, compare
from shared.kernels.harness import draw as operands
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def golden(file: str, key: str) -> Tensor:
    return torch.from_numpy(np.load(GOLDEN / f"{file}.npz", allow_pickle=False)[key])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_against_the_definition(check: Check, dtype: torch.dtype) -> None:
    """Values and every gradient; distances of 16-bit clouds are as exact as of 32."""
    for shape in check.small:
        errors = compare(check, operands(check, shape, "cpu", dtype))
        allowed = TOLERANCE[torch.float32 if check.kernel == "chamfer" else dtype]
        assert max(errors.values()) <= allowed, errors


@pytest.mark.parametrize(
    ("coords", "key"), [("coords2", "four2_nf4"), ("coords3", "four3_nf4"), ("coords3", "four3_nf6")]
)
def test_golden_features(coords: str, key: str, launches: list[str]) -> None:
    """The identity for a layer gives the features themselves."""
    x, expected = golden("embeddings", coords), golden("embeddings", key)
    p = expected.shape[1]
    torch.testing.assert_close(fourier_linear(x, torch.eye(p), torch.zeros(p)), expected, rtol=0, atol=1e-6)
    assert launches == ["linear_kernel"]


@pytest.mark.parametrize("freq_scale", [1.0, np.pi])
def test_bands_of_high_frequency(freq_scale: float) -> None:
    """Against the definition in float32, whose angles (up to 1e4) are the same numbers."""
    x = 3 * normal(70, 2)
    W, b = normal(20, 2 * 21, seed=1), normal(20, seed=2)
    got, exact = fourier_linear(x, W, b, freq_scale), reference.fourier_linear(x, W, b, freq_scale)
    assert (3 * x.abs().max() * freq_scale * 512) > 5e3
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-5)


def test_quarters_of_a_turn() -> None:
    """Where sine and cosine change places and signs."""
    x = (torch.arange(-40, 41) * (np.pi / 4))[:, None]
    exact = reference.fourier_linear(x.double(), torch.eye(3).double(), torch.zeros(3).double())
    got = fourier_linear(x, torch.eye(3), torch.zeros(3))
    torch.testing.assert_close(got.double()[:, 1:], exact[:, 1:], rtol=0, atol=2e-7)


def test_fourier_layer_of_strided_operands() -> None:
    """Points as images have them, channels first; a slice of a weight; the gradients' own strides."""
    x, W, b = normal(2, 3, 9).mT, normal(16, 2 * 27, seed=1)[:, ::2], normal(32, seed=2)[::2]
    assert not x.is_contiguous()
    ours, exact = ([v.detach().clone().requires_grad_() for v in (x, W, b)] for _ in range(2))
    dy = normal(16, 18, seed=3).mT
    got, expected = fourier_linear(*ours), reference.fourier_linear(*exact)
    assert got.shape == (18, 16)
    torch.testing.assert_close(fourier_linear(x, W, b), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    for mine, true in zip(torch.autograd.grad(got, ours, dy), torch.autograd.grad(expected, exact, dy)):
        torch.testing.assert_close(mine, true, rtol=1e-5, atol=1e-4)


def test_gradients_over_several_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusion_fields.kernels.fourier import triton

    monkeypatch.setattr(triton, "PROGRAMS", 2)
    x, W, b = normal(197, 1), normal(5, 5, seed=1), normal(5, seed=2)
    ours, exact = ([v.detach().clone().requires_grad_() for v in (x, W, b)] for _ in range(2))
    dy = normal(197, 5, seed=3)
    mine = torch.autograd.grad(fourier_linear(*ours), ours, dy)
    for a, e in zip(mine, torch.autograd.grad(reference.fourier_linear(*exact), exact, dy)):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-4)


def test_dx_is_computed_only_where_it_is_wanted(launches: list[str]) -> None:
    x, W, b = normal(3, 1), normal(2, 3).requires_grad_(), normal(2)
    fourier_linear(x, W, b).sum().backward()
    assert launches == ["linear_kernel", "weight_kernel"]
    fourier_linear(x.requires_grad_(), W, b).sum().backward()
    assert launches[2:] == ["linear_kernel", "weight_kernel", "point_kernel"]


def test_golden_chamfer(launches: list[str]) -> None:
    """Float32 of float64 clouds: 1e-6 of the largest."""
    generated, real = golden("metrics", "clouds_gen").float(), golden("metrics", "clouds_real").float()
    got, exact = chamfer_allpairs(generated, real), golden("metrics", "chamfer")
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-6)
    assert launches == ["nearest_kernel"]


@pytest.mark.parametrize("d", [1, 2, 3])
def test_chamfer_in_several_launches(d: int, monkeypatch: pytest.MonkeyPatch, launches: list[str]) -> None:
    """Pairs that do not divide; clouds that are slices; scratch memory of two pairs."""
    G, R = normal(2, 70, 2 * d)[:, ::2, ::2], normal(3, d, 17, seed=1).mT
    monkeypatch.setattr(chamfer_triton, "SCRATCH", 4 * 17)
    torch.testing.assert_close(chamfer_allpairs(G, R), reference.chamfer_allpairs(G, R), rtol=1e-5, atol=0)
    assert launches == ["nearest_kernel"] * 2


def test_chamfer_near_contact() -> None:
    """Far from the origin: |a|^2 + |b|^2 - 2ab would give nothing but rounding."""
    R = normal(1, 40, 3) + 100
    G = R.flip(1) + 1e-3
    exact = reference.chamfer_allpairs(G.double(), R.double())
    assert exact < 1e-5
    torch.testing.assert_close(chamfer_allpairs(G, R).double(), exact, rtol=1e-5, atol=0)
    assert chamfer_allpairs(R, R).tolist() == [[0.0]]


def test_chamfer_of_clouds_that_are_not_finite() -> None:
    G, R = normal(2, 5, 3), normal(2, 4, 3)
    G[0, 1, 2], R[1, 0, 0] = torch.nan, torch.inf
    assert chamfer_allpairs(G, R).isfinite().tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-3), (torch.float16, 1e-3)])
@pytest.mark.parametrize("parts", [1, 3, 4])
def test_any_number_of_spans(parts: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against SDPA: a last span that is not full, whole blocks past the end. 1e-2 values keep bfloat16 below 2e-3."""
    q, k, v = (normal(1, 2, n, 16, seed=n).to(dtype) for n in (18, 197, 197))
    v = v * 0.25
    monkeypatch.setattr(split_triton, "spans", lambda programs, blocks: parts)
    exact = scaled_dot_product_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(split_kv_cross_attention(q, k, v).double(), exact, rtol=0, atol=tolerance)


def test_spans_without_keys() -> None:
    """Two of four spans lie past the end: they weigh nothing."""
    q, k, v = (normal(1, 1, n, 16, seed=n) for n in (3, 50, 50))
    o, top, total = torch.empty(4, 3, 16), torch.empty(4, 3), torch.empty(4, 3)
    strides = [s for x in (q, k, v) for s in x.stride()[:3]]
    split_triton.span_kernel[(1, 1, 4)](
        q, k, v, o, top, total, 1, 3, 50, 16, 32, split_triton.LOG2E / 4, *strides,
        PRECISION="ieee", BLOCK_L=16, BLOCK_N=32, BLOCK_D=16,
    )  # fmt: skip
    assert top[2:].isneginf().all()
    assert (total[2:] == 0).all()
    out = torch.empty(1, 1, 3, 16)
    split_triton.join_kernel[(1, 1)](o, top, total, out, 3, 16, 4, BLOCK_L=16, BLOCK_D=16)
    torch.testing.assert_close(out, scaled_dot_product_attention(q, k, v), rtol=0, atol=1e-5)


def test_logits_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of +-1e4: one key holds all the weight, in a span of its own or not; equal logits; all far below 0."""
    monkeypatch.setattr(split_triton, "spans", lambda programs, blocks: 3)
    q, k, v = (normal(1, 1, n, 16, seed=n) for n in (4, 90, 90))
    for logits in (q * 4e3, -q.abs() * 1e4, q * 0):
        got, exact = split_kv_cross_attention(logits, k, v), scaled_dot_product_attention(logits, k, v)
        assert got.isfinite().all()
        torch.testing.assert_close(got, exact, rtol=0, atol=2e-4)
    down = k.abs()
    got = split_kv_cross_attention(-q.abs() * 1e4, down, v)
    torch.testing.assert_close(got, scaled_dot_product_attention(-q.abs() * 1e4, down, v), rtol=0, atol=2e-4)


def test_attention_of_strided_operands(launches: list[str]) -> None:
    """Heads as a projection leaves them, [B, N, H, h]; entries that lie apart."""
    q, k, v = (normal(2, n, 3, 16, seed=n).transpose(1, 2) for n in (4, 60, 60))
    apart = normal(2, 3, 60, 32)[..., ::2]
    for values in (v, apart):
        exact = scaled_dot_product_attention(q, k, values)
        torch.testing.assert_close(split_kv_cross_attention(q, k, values), exact, rtol=0, atol=1e-5)
    assert launches == ["span_kernel", "join_kernel"] * 2


def test_what_is_left_to_pytorch(launches: list[str]) -> None:
    """float64, nothing, many coordinates, wide heads, attention that wants a gradient."""
    assert fourier_linear(normal(3, 1).double(), normal(2, 3).double(), normal(2).double()).dtype is torch.float64
    assert fourier_linear(normal(0, 1), normal(2, 3), normal(2)).shape == (0, 2)
    assert fourier_linear(normal(4, 1), normal(0, 3), normal(0)).shape == (4, 0)
    assert fourier_linear(normal(4, 9), normal(2, 9), normal(2)).shape == (4, 2)
    assert chamfer_allpairs(normal(2, 3, 4), normal(1, 5, 4)).shape == (2, 1)
    assert chamfer_allpairs(normal(2, 3, 2).double(), normal(1, 5, 2).double()).dtype is torch.float64
    assert chamfer_allpairs(normal(0, 3, 3), normal(2, 3, 3)).shape == (0, 2)
    q, k, v = normal(1, 1, 2, 4), normal(1, 1, 3, 4), normal(1, 1, 3, 4)
    assert split_kv_cross_attention(q.double(), k.double(), v.double()).dtype is torch.float64
    assert split_kv_cross_attention(q[:, :, :0], k, v).shape == (1, 1, 0, 4)
    assert split_kv_cross_attention(*(normal(1, 1, n, 200) for n in (2, 3, 3))).shape == (1, 1, 2, 200)
    assert split_kv_cross_attention(q.requires_grad_(), k, v).requires_grad
    assert launches == []
    with torch.no_grad():
        split_kv_cross_attention(q, k, v)
    assert launches == ["span_kernel", "join_kernel"]


def test_arithmetic_is_that_of_the_weight_of_autocast_or_of_the_argument(launches: list[str]) -> None:
    x, W, b = normal(3, 1), normal(2, 3), normal(2)
    assert fourier_linear(x, W, b).dtype is torch.float32
    assert fourier_linear(x, W, b, precision="bf16").dtype is torch.bfloat16
    assert fourier_linear(x.bfloat16(), W.bfloat16(), b, precision="fp32").dtype is torch.float32
    q, k, v = normal(1, 1, 2, 4), normal(1, 1, 3, 4), normal(1, 1, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert fourier_linear(x, W, b).dtype is torch.bfloat16
        assert split_kv_cross_attention(q, k, v).dtype is torch.bfloat16
    assert len(launches) == 6


def test_two_calls_agree_bit_for_bit() -> None:
    for check in CHECKS:
        values = operands(check, check.small[0], "cpu", torch.float32)
        for a, b in zip(check.function(*values), check.function(*values)):
            assert torch.equal(a, b)


def test_opcheck() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    ops = torch.ops.diffusion_fields
    layer = [v.requires_grad_() for v in (normal(5, 2), normal(3, 6), normal(3))]
    half = [normal(5, 2).requires_grad_(), normal(3, 6).bfloat16().requires_grad_(), normal(3).requires_grad_()]
    plain = [v.detach() for v in layer]
    for operator, args in (
        (ops.fourier_linear, (*layer, 0.5)),
        (ops.fourier_linear, (*half, 0.5)),
        (ops.fourier_linear_backward, (plain[0], plain[1], normal(5, 3), 0.5, True)),
        (ops.fourier_linear_backward, (plain[0], plain[1], normal(5, 3), 0.5, False)),
        (ops.chamfer_allpairs, (normal(2, 5, 3), normal(3, 4, 3))),
        (ops.split_kv_cross_attention, tuple(normal(1, 2, n, 4) for n in (2, 9, 9))),
    ):
        assert set(torch.library.opcheck(operator.default, args).values()) == {"SUCCESS"}


def test_compile_fullgraph() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False
    x, W, b = normal(2, 6, 3), normal(4, 9, seed=1), normal(4, seed=2)

    def chain(x: Tensor, W: Tensor) -> Tensor:
        y = fourier_linear(x, W, b).view(1, 2, 6, 4)
        with torch.no_grad():
            more = split_kv_cross_attention(y.detach(), y.detach(), y.detach()).sum() + chamfer_allpairs(x, x).sum()
        return y.sum() + more

    compiled = torch.compile(chain, fullgraph=True, backend="aot_eager")
    ours, exact = W.clone().requires_grad_(), W.clone().requires_grad_()
    got, expected = compiled(x, ours), chain(x, exact)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, ours), torch.autograd.grad(expected, exact))
