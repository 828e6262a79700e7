"""The collection of kernels; starts the interpreter's tests."""

from __future__ import annotations

from pathlib import Path

from diggan.kernels.checks import CHECKS
from shared.kernels.build import kernel_modules, listed
from shared.kernels.interpreted import assert_passes, run_python


def test_triton_kernels_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("kernels_interpreted.py"))


def test_the_checks_need_nothing_but_pytorch() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = None\n"
        "from diggan.kernels.checks import CHECKS\n"
        "from shared.kernels.harness import compare, draw\n"
        "import torch\n"
        "for c in CHECKS: assert max(compare(c, draw(c, c.small[0], 'cpu', torch.float32)).values()) < 1e-4, c.name\n"
        "bad = {'lightning', 'pytorch_lightning', 'wandb', 'rich'} & set(sys.modules)\n"
        "print('done', bad)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def test_every_folder_is_checked_and_compiled() -> None:
    folders = {module.split(".")[-2] for module in kernel_modules("diggan")}
    assert folders == {check.kernel for check in CHECKS} == {
        "fused_diffaugment", "grad_gap", "grouped_spectral_norm",
    }  # fmt: skip
    assert all(listed(module) for module in kernel_modules("diggan"))
