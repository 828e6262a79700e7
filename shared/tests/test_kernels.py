"""The common tools of the kernels: AOT build, harness and GPU check, as far as they go without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.errors import UserError
from shared.kernels import backend, build, gpu_check
from shared.kernels.build import Compiled
from shared.kernels.harness import Check, compare, draw, relative_error
from shared.report.kernels import read_evidence

SPILLING = """
import triton, triton.language as tl
from shared.kernels.aot import Build

@triton.jit
def spills(x, y, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y + i, tl.sort(tl.load(x + i)) if BLOCK < 0 else tl.cumsum(tl.load(x + i), 0) * tl.load(x + i))

@triton.jit
def heavy(x, y, BLOCK: tl.constexpr):
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    a, b = tl.load(x + i * BLOCK + j), tl.load(x + j * BLOCK + i)
    tl.store(y + i * BLOCK + j, tl.dot(a, b))

POINTERS = {"x": "*fp32", "y": "*fp32"}
AOT = [
    Build(spills, "fits", POINTERS, {"BLOCK": 128}),
    Build(spills, "spills", POINTERS, {"BLOCK": 16384}, num_warps=1),
    Build(heavy, "too much shared memory", {"x": "*bf16", "y": "*fp32"}, {"BLOCK": 256}, num_warps=16),
]
"""


def test_problems_of_a_compiled_kernel() -> None:
    good = Compiled("k", "v", 90, registers=64, shared=227 * 1024)
    assert good.problems() == []
    assert Compiled("k", "v", 90, spilled=8).problems() == ["spills 8 bytes of registers"]
    assert "needs 170000 bytes of shared memory" in Compiled("k", "v", 80, shared=170_000).problems()[0]
    assert Compiled("k", "v", 80, error="Oops: no").problems() == ["does not compile: Oops: no"]


def test_the_report_of_cuobjdump() -> None:
    text = "Function f:\n  REG:168 STACK:24 SHARED:0 LOCAL:8 CONSTANT[0]:600 TEXTURE:0"
    assert build.parse_report(text) == (168, 32)
    with pytest.raises(ValueError, match="said something unknown: hello"):
        build.parse_report("hello")


def test_the_build_fails_on_spills_and_shared_memory(tmp_path: Path) -> None:
    folder = tmp_path / "toypaper" / "kernels" / "op"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent, folder.parents[1]):
        (place / "__init__.py").write_text("")
    (folder / "triton.py").write_text(SPILLING)
    command = [sys.executable, "-m", "shared.kernels.build", "toypaper", "--arch", "80", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr
    said = [line for line in done.stderr.splitlines() if "sm_80:" in line]
    assert said[0].startswith("spills (spills) for sm_80: spills "), done.stderr
    assert "heavy (too much shared memory) for sm_80: needs 262144 bytes of shared memory" in said[-1]
    assert not any(line.startswith("spills (fits)") for line in said)
    assert "fits" in done.stdout


def test_a_paper_without_kernels() -> None:
    with pytest.raises(UserError, match=r"no package no_such_paper\.kernels"):
        build.kernel_modules("no_such_paper")


def double(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (2 * x,)


def toy(function: Any) -> Check:
    shapes = [{"N": 3}]

    def operands(g: torch.Generator, N: int) -> tuple[Any, ...]:
        return (torch.randn(N, N, generator=g, dtype=torch.float64),)

    return Check("toy", function, double, operands, shapes, shapes, lambda N: (N * N, 2.0 * N * N))


def test_the_harness_sees_wrong_values_gradients_and_nan() -> None:
    operands = draw(toy(double), {"N": 3}, "cpu", torch.float32)
    assert compare(toy(double), operands) == {"out0": 0.0, "grad0": 0.0}
    assert compare(toy(lambda x: (2.1 * x,)), operands)["out0"] == pytest.approx(0.05, rel=1e-3)
    cut = compare(toy(lambda x: (x + x.detach(),)), operands)
    assert cut["out0"] == 0
    assert cut["grad0"] == pytest.approx(0.5)
    assert compare(toy(lambda x: (x * float("nan"),)), operands)["out0"] == float("inf")
    with pytest.raises(AssertionError, match="shape"):
        compare(toy(lambda x: (2 * x[:, :1],)), operands)
    assert relative_error(torch.ones(2), torch.zeros(2)) == float("inf")


def test_gpu_check_without_a_gpu(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        gpu_check.main(["forward_forward"])


def test_a_row_of_evidence_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that is appended has the columns that the report reads."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    path = tmp_path / "gpu-evidence.md"
    path.write_text(
        (Path(__file__).parents[2] / "docs" / "gpu-evidence.md").read_text().split("|---")[0] + "|---" * 9 + "|\n"
    )
    bound = gpu_check.floor(toy(double), {"N": 1000}, "fp32", torch.float32)
    assert bound == pytest.approx(8e6 / 3.35e12)
    result = {"error": 1e-6, "time": 5e-6, "floor": bound, "best": "eager", "best_time": 1e-5}
    gpu_check.append(path, [gpu_check.row(toy(double), {"N": 1000}, "fp32", result, "toypaper")])
    (evidence,) = read_evidence(path)
    assert evidence.kernel == "toypaper/toy"
    assert evidence.cells[6:] == ("5.0 us", "2.4 us", "2.09; 2.00x as fast as eager")
    with pytest.raises(UserError, match="is missing"):
        gpu_check.append(tmp_path / "none.md", [])


@pytest.mark.parametrize("backend_name", ["auto", "reference"])
def test_no_evidence_from_definitions_compared_with_themselves(
    backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Triton, or with it switched off, operator and definition are the same code and always agree."""
    monkeypatch.setattr(backend, "BACKEND", backend_name)
    monkeypatch.setattr(gpu_check, "BACKEND", backend_name)
    monkeypatch.setattr(backend, "triton_is_there", lambda: False)
    empty = torch.empty

    class OnGPU:
        is_cuda, dtype = True, torch.float32

    monkeypatch.setattr(torch, "empty", lambda *a, **k: OnGPU() if k.get("device") == "cuda" else empty(*a, **k))
    for call in (lambda: gpu_check.verify(toy(double)), lambda: gpu_check.measure(toy(double), {"N": 8}, "fp32")):
        with pytest.raises(UserError, match=r"the kernels would not run on this GPU.*(unset it|pip install triton)"):
            call()


def test_without_triton_a_gpu_runs_the_definitions_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class OnGPU:
        is_cuda, dtype = True, torch.float32

    monkeypatch.setattr(backend, "BACKEND", "auto")
    for there in (True, False):
        backend.triton_is_there.cache_clear()
        monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name, there=there: there or None)
        assert [backend.use_triton(OnGPU()) for _ in range(2)] == [there, there]  # type: ignore[arg-type]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["triton is not installed"]
    monkeypatch.undo()
    backend.triton_is_there.cache_clear()
