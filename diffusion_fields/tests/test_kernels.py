"""The operators as they run on a CPU, against golden values; the collection of kernels; the interpreter's tests."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusion_fields.kernels import chamfer_allpairs, fourier, fourier_linear, reference, split_kv_cross_attention
from diffusion_fields.kernels.chamfer import reference as chamfer_reference
from diffusion_fields.kernels.checks import CHECKS
from diffusion_fields.kernels.fourier import linear
from diffusion_fields.kernels.fourier import reference as fourier_reference
from diffusion_fields.kernels.split_kv import worthwhile
from shared.kernels.build import kernel_modules, listed
from shared.kernels.harness import TOLERANCE, Check, compare, draw
from shared.kernels.interpreted import assert_passes, run_python
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

torch.set_num_threads(1)
GOLDEN = Path(__file__).parent / "golden"


def test_triton_kernels_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("kernels_interpreted.py"))


def test_the_checks_need_nothing_but_pytorch() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = sys.modules['scipy'] = None\n"
        "from diffusion_fields.kernels.checks import CHECKS\n"
        "from shared.kernels.harness import compare, draw\n"
        "import torch\n"
        "for c in CHECKS: assert max(compare(c, draw(c, c.small[0], 'cpu', torch.float32)).values()) < 1e-5, c.name\n"
        "bad = {'lightning', 'pytorch_lightning', 'wandb', 'rich'} & set(sys.modules)\n"
        "print('done', bad)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def test_kernels_are_kept_from_all_else_of_the_package() -> None:
    package = Path(fourier.__file__).parents[2]
    others = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    contracts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["importlinter"]
    (kept,) = [c for c in contracts["contracts"] if c.get("source_modules") == ["diffusion_fields.kernels"]]
    assert set(kept["forbidden_modules"]) == {f"diffusion_fields.{name}" for name in others - {"__init__", "kernels"}}


def test_every_folder_is_checked_and_compiled() -> None:
    folders = {module.split(".")[-2] for module in kernel_modules("diffusion_fields")}
    assert folders == {check.kernel for check in CHECKS} == {"fourier", "chamfer", "split_kv"}
    assert all(listed(module) for module in kernel_modules("diffusion_fields"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_forms_of_the_cpu_against_the_definition(check: Check, dtype: torch.dtype) -> None:
    for shape in check.small:
        errors = compare(check, draw(check, shape, "cpu", dtype))
        exact = torch.float32 if check.kernel == "chamfer" else dtype
        # Vectors (biases) are float32 in every mode, and so are their gradients.
        assert max(errors.values()) <= (1e-7 if dtype is torch.float64 else TOLERANCE[exact]), errors


def golden(file: str, key: str) -> Tensor:
    return torch.from_numpy(np.load(GOLDEN / f"{file}.npz", allow_pickle=False)[key])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("function", [fourier_linear, reference.fourier_linear])
@pytest.mark.parametrize(
    ("coords", "key", "tolerance"),
    [("coords2", "four2_nf4", 1e-5), ("coords2", "four2_nf10", 2e-4), ("coords3", "four3_nf4", 1e-5),
     ("coords3", "four3_nf6", 1e-5)],
)  # fmt: skip
def test_golden_features(function: Callable[..., Tensor], coords: str, key: str, tolerance: float) -> None:
    x, expected = golden("embeddings", coords), golden("embeddings", key)
    p = expected.shape[1]
    torch.testing.assert_close(function(x, torch.eye(p), torch.zeros(p)), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "function",
    [chamfer_allpairs, reference.chamfer_allpairs, chamfer_reference.by_trees, chamfer_reference.by_products],
)
def test_golden_chamfer(function: Callable[..., Tensor]) -> None:
    got = function(golden("metrics", "clouds_gen"), golden("metrics", "clouds_real"))
    torch.testing.assert_close(got, golden("metrics", "chamfer"), rtol=0, atol=1e-8)


def test_gradcheck_of_the_definitions() -> None:
    layer = tuple(v.requires_grad_() for v in (normal(3, 2), normal(4, 10), normal(4)))
    clouds = tuple(v.requires_grad_() for v in (normal(2, 4, 3), normal(1, 5, 3)))
    heads = tuple(v.requires_grad_() for v in (normal(1, 2, 2, 3), normal(1, 2, 4, 3), normal(1, 2, 4, 3)))
    assert torch.autograd.gradcheck(lambda *v: reference.fourier_linear(*v, 0.7), layer)
    assert torch.autograd.gradgradcheck(lambda *v: reference.fourier_linear(*v, 0.7), layer)
    assert torch.autograd.gradcheck(reference.chamfer_allpairs, clouds)
    assert torch.autograd.gradcheck(reference.split_kv_cross_attention, heads)
    assert torch.autograd.gradcheck(split_kv_cross_attention, heads)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("layer", [(7, 3, 2, 5), (4, 1, 0, 2), (5, 2, 4, 1)])
def test_chunks_of_the_fourier_layer(chunk: int, layer: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The registered operator on a CPU: value and gradients, dx among them."""
    N, c, num_freq, P = layer
    monkeypatch.setattr(fourier_reference, "CHUNK", chunk)
    inputs = tuple(v.requires_grad_() for v in (normal(N, c), normal(P, c * (1 + 2 * num_freq)), normal(P)))
    torch.testing.assert_close(linear(*inputs, 0.7), reference.fourier_linear(*inputs, 0.7), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *v: linear(*v, 0.7), inputs)


@pytest.mark.parametrize("d", [1, 2, 3, 7])
@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_chamfer_in_pieces(d: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chamfer_reference, "BUDGET", budget)
    G, R = normal(3, 7, d), normal(4, 6, d, seed=1) + 50
    exact = reference.chamfer_allpairs(G, R)
    for form in (chamfer_reference.by_products, chamfer_reference.by_trees):
        torch.testing.assert_close(form(G, R), exact, rtol=1e-9, atol=0)


def test_trees_are_for_large_clouds_of_few_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    used = list[str]()
    for name in ("by_trees", "by_products"):
        form = getattr(chamfer_reference, name)
        monkeypatch.setattr(chamfer_reference, name, lambda G, R, form=form, name=name: used.append(name) or form(G, R))
    monkeypatch.setattr(chamfer_reference, "WORTHWHILE", 20)
    for G, R in ((normal(1, 4, 3), normal(1, 5, 3)), (normal(1, 4, 3), normal(1, 4, 3)), (normal(1, 9, 4),) * 2):
        torch.testing.assert_close(chamfer_allpairs(G, R), reference.chamfer_allpairs(G, R), rtol=1e-9, atol=1e-15)
    assert used == ["by_trees", "by_products", "by_products"]


def test_chamfer_near_contact_and_of_clouds_that_are_not_finite() -> None:
    R = normal(1, 40, 3, dtype=torch.float32) + 100
    exact = reference.chamfer_allpairs((R.flip(1) + 1e-3).double(), R.double())
    torch.testing.assert_close(chamfer_allpairs(R.flip(1) + 1e-3, R).double(), exact, rtol=1e-5, atol=0)
    far = normal(1, 40, 3) + 1e4
    exact = reference.chamfer_allpairs(far.flip(1) + 1e-3, far)
    torch.testing.assert_close(chamfer_allpairs(far.flip(1) + 1e-3, far), exact, rtol=1e-5, atol=0)
    G = torch.cat([R, R])
    G[0, 3, 1] = torch.nan
    assert chamfer_allpairs(G, R).isfinite().tolist() == [[False], [True]]
    assert chamfer_allpairs(R, R).item() <= 1e-12


class Largest(TorchDispatchMode):
    """Entries of the largest result that is not a view."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        old, new = ([x for x in tree_leaves(v) if isinstance(x, Tensor)] for v in ((args, kwargs), out))
        held = {x.untyped_storage().data_ptr() for x in old}
        self.entries = max([self.entries, *(x.numel() for x in new if x.untyped_storage().data_ptr() not in held)])
        return out


def test_working_memory() -> None:
    """No matrix of distances of large clouds; no features of all points."""
    G = normal(2, 1100, 3)
    for form in (chamfer_reference.by_products, chamfer_reference.by_trees):
        with Largest() as largest:
            form(G, G)
        assert largest.entries <= chamfer_reference.BUDGET < 1100 * 1100 / 9
    for points in (128, 512):  # small clouds: in float64 a third of the bytes of one pair's distances in float32
        with Largest() as largest:
            chamfer_reference.by_products(*(normal(2, points, 3, seed=seed) for seed in (0, 1)))
        assert 3 * 8 * largest.entries <= 4 * points**2
    x, W, b = normal(20_000, 3), normal(4, 63), normal(4)
    with Largest() as largest:
        fourier_reference.by_chunks(x, W, b, 1.0)
        fourier_reference.gradients_by_chunks(x, W, normal(20_000, 4), 1.0, True)
    assert largest.entries <= max(63 * fourier_reference.CHUNK, 4 * 20_000) < x.numel() * 21 / 9


def test_large_point_sets_keep_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fourier, "MOST_FEATURES", 9 * 20_000 - 1)
    x, W, b = normal(20_000, 1, dtype=torch.float32), *(v.float().requires_grad_() for v in (normal(2, 9), normal(2)))
    held = list[int]()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
        y = fourier_linear(x, W, b)
    assert sum(held) <= x.numel() + W.numel()
    grads = torch.autograd.grad(y.square().mean(), (W, b))
    exact = torch.autograd.grad(reference.fourier_linear(x, W, b).square().mean(), (W, b))
    torch.testing.assert_close(grads, exact, rtol=1e-4, atol=1e-5)


def test_attention_is_split_where_queries_do_not_fill_a_gpu() -> None:
    keys = torch.empty(1, 8, 65536, 64, device="meta")
    assert worthwhile(torch.empty(1, 8, 64, 64, device="meta"), keys)
    assert not worthwhile(torch.empty(1, 8, 64, 64, device="meta"), keys[:, :, :2000])
    assert not worthwhile(torch.empty(32, 8, 64, 64, device="meta"), keys)


def test_points_of_any_batch_shape() -> None:
    W, b = normal(5, 9), normal(5)
    x = normal(2, 4, 3)
    assert fourier_linear(x, W, b).shape == (8, 5)
    torch.testing.assert_close(fourier_linear(x, W, b)[6], fourier_linear(x[1, 2], W, b)[0], rtol=1e-12, atol=1e-12)
    assert fourier_linear(x[:0], W, b).shape == (0, 5)


def test_arithmetic_of_the_product() -> None:
    x, W, b = (v.float() for v in (normal(6, 3), normal(5, 9), normal(5)))
    exact = fourier_linear(x, W, b)
    half = fourier_linear(x, W, b, precision="bf16")
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=2e-2, atol=4e-2)
    assert not torch.equal(half.float(), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fourier_linear(x, W, b), half)
        assert torch.equal(fourier_linear(x, W, b, precision="fp32"), exact)


CLOUDS = torch.ones(2, 3, 3)
HEADS = torch.ones(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: fourier_linear(torch.ones(2, 0), torch.ones(2, 3), torch.ones(2)), r"x has shape \(2, 0\)"),
        (lambda: fourier_linear(torch.ones(2, 3), torch.ones(2, 6), torch.ones(2)), r"W has shape \(2, 6\).*c = 3"),
        (lambda: fourier_linear(torch.ones(2, 3), torch.ones(2, 8), torch.ones(2)), r"W has shape \(2, 8\)"),
        (lambda: fourier_linear(torch.ones(2, 3), torch.ones(2, 0), torch.ones(2)), r"W has shape \(2, 0\)"),
        (lambda: fourier_linear(torch.ones(2, 3), torch.ones(9), torch.ones(2)), r"W has shape \(9,\)"),
        (lambda: fourier_linear(torch.ones(2, 3), torch.ones(2, 9), torch.ones(3)), r"b has shape \(3,\)"),
        (lambda: fourier_linear(torch.ones(2, 1).long(), torch.ones(2, 3), torch.ones(2)), "x is torch.int64"),
        (lambda: fourier_linear(torch.ones(2, 1), torch.ones(2, 3), torch.ones(2), torch.inf), "freq_scale is inf"),
        (
            lambda: fourier_linear(torch.ones(2, 1), torch.ones(2, 3), torch.ones(2), precision="int8"),  # type: ignore[arg-type]
            "precision is 'int8': bf16 or fp32",
        ),
        (lambda: fourier_linear(torch.ones(2, 1), torch.ones(2, 3), torch.ones(2, device="meta")), "b is on meta"),
        (lambda: chamfer_allpairs(CLOUDS[0], CLOUDS), r"G has shape \(3, 3\)"),
        (lambda: chamfer_allpairs(CLOUDS, CLOUDS[:, :, :2]), r"R \(2, 3, 2\)"),
        (lambda: chamfer_allpairs(CLOUDS[:, :0], CLOUDS), "at least one point"),
        (lambda: chamfer_allpairs(CLOUDS, CLOUDS.double()), "R is torch.float64, G is torch.float32"),
        (lambda: chamfer_allpairs(CLOUDS, CLOUDS.long()), "R is torch.int64: real numbers"),
        (lambda: chamfer_allpairs(CLOUDS, CLOUDS.clone().requires_grad_()), "no gradient"),
        (lambda: split_kv_cross_attention(HEADS[0], HEADS, HEADS), r"q has shape \(2, 3, 4\)"),
        (lambda: split_kv_cross_attention(HEADS, HEADS, HEADS[:, :, :2]), r"v \(1, 2, 2, 4\)"),
        (lambda: split_kv_cross_attention(HEADS[..., :2], HEADS, HEADS), r"q has shape \(1, 2, 3, 2\)"),
        (lambda: split_kv_cross_attention(HEADS, HEADS[:, :, :0], HEADS[:, :, :0]), "no key to attend to"),
        (lambda: split_kv_cross_attention(HEADS, HEADS.double(), HEADS), "k is torch.float64"),
    ],
)
def test_bad_operands_are_refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
