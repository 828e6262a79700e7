"""Run every kernel on this machine's GPU: `make gpu-check`, or `python -m shared.kernels.gpu_check [papers]`.

Values and every gradient against the float64 definition (fp32 in IEEE and TF32, bf16, fp16), then the time against the
floor of the roofline and against the best alternative: the definition in eager PyTorch and under `torch.compile`. Each
timed shape adds a row to `docs/gpu-evidence.md`. Needs nothing but PyTorch and Triton. Exit status 2 without a GPU, 1
where a kernel is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError, one_line_errors
from shared.kernels.backend import BACKEND, use_triton
from shared.kernels.harness import TF32_TOLERANCE, TOLERANCE, Check, Shape, compare, draw, relative_error

EVIDENCE = Path("docs/gpu-evidence.md")
SECONDS = 420.0  # stop starting new measurements after this long: the whole check stays below 8 minutes
# Peak FLOP/s in fp32, TF32 and bf16 (dense), and bytes/s, by a part of the device's name (data sheets).
PEAKS = {
    "H200": (67e12, 495e12, 990e12, 4.8e12),
    "H100 PCIe": (51e12, 378e12, 756e12, 2.0e12),
    "H100": (67e12, 495e12, 990e12, 3.35e12),
    "A100": (19.5e12, 156e12, 312e12, 1.555e12),
}
MODES = (  # name, dtype, float32 matmul precision, index into PEAKS
    ("fp32", torch.float32, "highest", 0),
    ("tf32", torch.float32, "high", 1),
    ("bf16", torch.bfloat16, "highest", 2),
    ("fp16", torch.float16, "highest", 2),
)


def seconds(function: Callable[[], Any], repeats: int = 30) -> float:
    """Median time of one call, by CUDA events, the cache of the device flushed before each."""
    flush = torch.empty(64 * 2**20, dtype=torch.int32, device="cuda")
    for _ in range(5):
        function()
    out = []
    for _ in range(repeats):
        flush.zero_()
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        stop.record()
        stop.synchronize()
        out.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(out)


def floor(check: Check, shape: Shape, mode: str, dtype: torch.dtype) -> float | None:
    """Seconds that the FLOPs or the bytes take at the device's peak; None for a device not in `PEAKS`."""
    name = torch.cuda.get_device_name()
    peak = next((values for part, values in PEAKS.items() if part in name), None)
    if peak is None:
        return None
    flops, entries = check.cost(**shape)
    rate = peak[next(index for known, _, _, index in MODES if known == mode)]
    return max(flops / rate, entries * dtype.itemsize / peak[3])


def tolerance(mode: str, dtype: torch.dtype) -> float:
    return TF32_TOLERANCE if mode == "tf32" else TOLERANCE[dtype]


def need_triton() -> None:
    """Raise `UserError` where the operators would run their definitions: these agree with themselves, always."""
    if not use_triton(torch.empty(0, device="cuda")):
        why = f"KERNEL_BACKEND is {BACKEND}: unset it" if BACKEND == "reference" else "install it: `pip install triton`"
        raise UserError(f"the kernels would not run on this GPU, and the definitions need no check; {why}")


def verify(check: Check) -> list[str]:
    """What is wrong with a kernel on this device, by mode, shape and tensor; empty where nothing is.

    Raises:
        UserError: the kernels would not run, see `need_triton`.
    """
    need_triton()
    wrong = []
    for mode, dtype, precision, _ in MODES:
        if mode not in check.modes:
            continue
        torch.set_float32_matmul_precision(precision)
        for shape in check.small:
            errors = compare(check, draw(check, shape, "cuda", dtype))
            wrong += [
                f"{check.name} {mode} {shape}: {name} off by {error:.1e} (allowed {tolerance(mode, dtype):.0e})"
                for name, error in errors.items()
                if not error <= tolerance(mode, dtype)
            ]
    torch.set_float32_matmul_precision("highest")
    return wrong


def measure(check: Check, shape: Shape, mode: str) -> dict[str, Any]:
    """Error and times of one operator at one shape."""
    need_triton()
    dtype, precision = next((d, p) for name, d, p, _ in MODES if name == mode)
    torch.set_float32_matmul_precision(precision)
    operands = draw(check, shape, "cuda", dtype)
    with torch.no_grad():
        got = check.function(*operands)
        exact = check.definition(
            *(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in operands)
        )
        error = max(relative_error(a, b) for a, b in zip(got, exact))
        del exact
        ours = seconds(lambda: check.function(*operands))
        others = {"eager": seconds(lambda: check.definition(*operands))}
        try:
            if check.compiled:
                compiled = torch.compile(check.definition, dynamic=False)
                others["compile"] = seconds(lambda: compiled(*operands))
        except Exception as failure:  # an alternative that this installation cannot build is no fault of the kernel
            print(f"  torch.compile of {check.name}: {type(failure).__name__}")
    torch.set_float32_matmul_precision("highest")
    best = min(others, key=lambda name: others[name])
    bound = floor(check, shape, mode, dtype)
    return {"error": error, "time": ours, "floor": bound, "best": best, "best_time": others[best]}


def micro(value: float | None) -> str:
    return "unknown" if value is None else f"{value * 1e6:.1f} us"


def row(check: Check, shape: Shape, mode: str, result: dict[str, Any], paper: str) -> str:
    """One line of the table of `docs/gpu-evidence.md`."""
    import triton

    ratio = "unknown" if result["floor"] is None else f"{result['time'] / result['floor']:.2f}"
    against = f"{ratio}; {result['best_time'] / result['time']:.2f}x as fast as {result['best']}"
    where = " ".join(f"{k}={v}" for k, v in shape.items())
    part = f" {check.part}" if check.part else ""
    cells = (
        f"{paper}/{check.kernel}",
        f"{where} {mode}{part}",
        datetime.date.today().isoformat(),
        torch.cuda.get_device_name(),
        f"torch {torch.__version__}, triton {triton.__version__}",
        f"{result['error']:.1e}",
        micro(result["time"]),
        micro(result["floor"]),
        against,
    )
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def append(path: Path, rows: list[str]) -> None:
    """Add rows below the table; the file is replaced whole.

    Raises:
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run this from the repository's root")
    text = path.read_text(encoding="utf-8").rstrip("\n")
    new = path.with_suffix(".tmp")
    new.write_text("\n".join([text, *rows]) + "\n", encoding="utf-8")
    new.replace(path)


def papers_with_kernels(root: Path) -> list[str]:
    return sorted(path.parents[1].name for path in root.glob("*/src/*/kernels/checks.py"))


def check_modules(paper: str) -> list[Any]:
    """`kernels.checks`, and `gpu_checks` where a paper has more to compare than kernels."""
    names = [f"{paper}.kernels.checks", f"{paper}.gpu_checks"]
    return [importlib.import_module(name) for name in names if importlib.util.find_spec(name) is not None]


def run(papers: Sequence[str]) -> int:
    """All checks, then measurements while time is left."""
    started, wrong = time.perf_counter(), list[str]()
    checks = [(p, check) for p in papers for module in check_modules(p) for check in module.CHECKS]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {len(checks)} operators")
    for paper, check in checks:
        found = verify(check)
        wrong += found
        print(f"{paper}/{check.name}: {'ok' if not found else f'{len(found)} values wrong'}", flush=True)
    rows, left = [], 0
    for paper, check in checks:
        for shape in check.timed:
            for mode in (m for m in ("fp32", "tf32", "bf16") if m in check.modes):
                if time.perf_counter() - started > SECONDS:
                    left += 1
                    continue
                result = measure(check, shape, mode)
                dtype = torch.bfloat16 if mode == "bf16" else torch.float32
                if not result["error"] <= tolerance(mode, dtype):
                    wrong.append(f"{check.name} {mode} {shape}: off by {result['error']:.1e}")
                    continue  # a wrong kernel leaves no evidence
                rows.append(row(check, shape, mode, result, paper))
                print(rows[-1], flush=True)
    append(EVIDENCE, rows)
    if left:
        print(f"{left} measurements not made: {SECONDS:.0f} s were over")
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.kernels.gpu_check", description=__doc__.split("\n")[0])
    parser.add_argument("papers", nargs="*", help="packages with kernels (default: all in this repository)")
    papers = parser.parse_args(argv).papers or papers_with_kernels(Path.cwd())
    if not torch.cuda.is_available():
        raise UserError(
            "gpu-check needs an NVIDIA GPU and a CUDA build of PyTorch; this machine has none: nothing was run"
        )
    for source in Path.cwd().glob("*/src"):  # works in a checkout that is not installed
        sys.path.insert(0, str(source))
    return run(papers)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
