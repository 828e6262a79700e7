"""The collection of kernels; starts the interpreter's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shared.kernels.build import kernel_modules, listed
from shared.kernels.interpreted import assert_passes, run_python
from spatial_textvqa.kernels.checks import CHECKS
from spatial_textvqa.kernels.relation_attention import Layout, reference, relation_attention, subset_bits


@pytest.mark.timeout(900)  # about a minute of one core
def test_triton_kernels_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("kernels_interpreted.py"))


def test_the_checks_need_nothing_but_pytorch() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = None\n"
        "from spatial_textvqa.kernels.checks import CHECKS\n"
        "from shared.kernels.harness import compare, draw\n"
        "import torch\n"
        "for c in CHECKS: assert max(compare(c, draw(c, c.small[0], 'cpu', torch.float32)).values()) < 1e-4, c.name\n"
        "bad = {'lightning', 'pytorch_lightning', 'wandb', 'rich', 'transformers'} & set(sys.modules)\n"
        "print('done', bad)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def test_every_folder_is_checked_and_compiled() -> None:
    folders = {module.split(".")[-2] for module in kernel_modules("spatial_textvqa")}
    assert folders == {check.kernel for check in CHECKS} == {"relation_attention", "relations"}
    assert all(listed(module) for module in kernel_modules("spatial_textvqa"))


def test_the_graph_s_kernel_rounds_every_product_as_the_definition_does() -> None:
    """A fused multiply-add rounds once, not twice: dx dx + dy dy, and areas, would differ in the last bit."""
    code = (
        "from shared.kernels.build import binary\n"
        "from spatial_textvqa.kernels.relations.triton import AOT\n"
        "for build in AOT:\n"
        "    ptx = binary(build, 90).asm['ptx']\n"
        "    print('mul.rn.f64' in ptx, 'fma' in ptx)"
    )
    done = run_python("-c", code)
    assert done.stdout.splitlines() == ["True False"] * 3, done.stdout + done.stderr


def test_the_definition_by_finite_differences() -> None:
    """In float64, with the bias table: rows that see nothing among them."""
    layout, draw = Layout(2, 3, 2), torch.Generator().manual_seed(0)
    leaves = [torch.randn(1, 2, 7, 3, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    beta = torch.randn(2, 13, generator=draw, dtype=torch.float64, requires_grad=True)
    graph = torch.randint(0, 13, (1, 3, 3), generator=draw).to(torch.uint8)
    valid = torch.tensor([[True, False, True, True, False, True, True]])

    def function(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return relation_attention(q, k, v, graph, valid, layout, subset_bits(5)[4:6], beta)

    assert torch.autograd.gradcheck(function, (*leaves, beta))
    seen = reference.allowed(graph, valid, layout, subset_bits(5)[4:6])
    assert not seen[:, :, :2].any()
    assert not function(*leaves, beta)[:, :, :2].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_that_see_nothing_are_zero_in_16_bits(dtype: torch.dtype) -> None:
    layout, draw = Layout(2, 3, 2), torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 7, 3, generator=draw).to(dtype) for _ in range(3))
    graph, valid = torch.zeros(1, 3, 3, dtype=torch.uint8), torch.ones(1, 7, dtype=torch.bool)
    out = relation_attention(q, k, v, graph, valid, layout, subset_bits(3)[4:6])
    assert out.isfinite().all()
    assert not out[:, :, :2].any()
    exact = relation_attention(q.double(), k.double(), v.double(), graph, valid, layout, subset_bits(3)[4:6])
    torch.testing.assert_close(out.double(), exact, rtol=3e-2, atol=3e-2)
