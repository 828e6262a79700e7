"""The collection of kernels; starts the interpreter's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from diggan.kernels.checks import CHECKS
from shared.kernels.build import kernel_modules, listed


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "KERNEL_BACKEND")}
    options = {**clean, "OMP_NUM_THREADS": "1", **env}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=options, check=False)


def test_triton_kernels_in_the_interpreter() -> None:
    tests = Path(__file__).with_name("kernels_interpreted.py")
    done = run("-m", "pytest", "-p", "no:randomly", "-p", "no:xdist", str(tests), KERNEL_BACKEND="interpret")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


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
    done = run("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def test_every_folder_is_checked_and_compiled() -> None:
    folders = {module.split(".")[-2] for module in kernel_modules("diggan")}
    assert folders == {check.kernel for check in CHECKS} == {
        "fused_diffaugment", "grad_gap", "grouped_spectral_norm",
    }  # fmt: skip
    assert all(listed(module) for module in kernel_modules("diggan"))
