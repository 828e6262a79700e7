"""The collection of kernels; starts the interpreter's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from autofocusformer.kernels.checks import CHECKS
from autofocusformer.kernels.cluster_attention.check import CHECK as ATTENTION
from autofocusformer.kernels.point_merge.check import CHECK as MERGE
from shared.kernels.build import kernel_modules, listed
from shared.kernels.harness import draw
from shared.kernels.interpreted import assert_passes, run_python


@pytest.mark.slow
def test_triton_kernels_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("kernels_interpreted.py"))


def test_the_checks_need_nothing_but_pytorch() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = None\n"
        "from autofocusformer.kernels.checks import CHECKS\n"
        "from shared.kernels.harness import compare, draw\n"
        "import torch\n"
        "for c in CHECKS: assert max(compare(c, draw(c, c.small[0], 'cpu', torch.float32)).values()) < 1e-4, c.name\n"
        "bad = {'lightning', 'pytorch_lightning', 'wandb', 'rich'} & set(sys.modules)\n"
        "print('done', bad)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def test_every_folder_is_checked_and_compiled() -> None:
    folders = {module.split(".")[-2] for module in kernel_modules("autofocusformer")}
    assert folders == {check.kernel for check in CHECKS} == {
        "cluster_attention", "nearest_clusters", "point_merge", "point_ops",
    }  # fmt: skip
    assert all(listed(module) for module in kernel_modules("autofocusformer"))


@pytest.mark.parametrize("check", [ATTENTION, MERGE], ids=lambda check: check.name)
def test_operators_are_registered_and_compile(check: object) -> None:
    """On the CPU: opcheck, and a graph without breaks gives the same numbers."""
    given = list(draw(check, check.small[0], "cpu", torch.float32))  # type: ignore[arg-type, attr-defined]
    given = [x.requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given]
    operator = getattr(torch.ops.autofocusformer, check.name).default  # type: ignore[attr-defined]
    assert set(torch.library.opcheck(operator, given).values()) == {"SUCCESS"}

    def loss(*x: object) -> torch.Tensor:
        return check.function(*x)[0].square().mean()  # type: ignore[attr-defined, no-any-return]

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(*given)
    torch.testing.assert_close(compiled, loss(*given))
    leaves = [x for x in given if isinstance(x, torch.Tensor) and x.is_floating_point()]
    for a, b in zip(torch.autograd.grad(compiled, leaves), torch.autograd.grad(loss(*given), leaves)):
        torch.testing.assert_close(a, b)
