"""Compile a paper's Triton kernels ahead of time, without a GPU: `python -m shared.kernels.build forward_forward`.

Every kernel of `<paper>.kernels.*.triton.AOT` is compiled for sm_80 and sm_90 down to machine code. The table shows
what each takes of a multiprocessor. Exit status 1 where a kernel spills registers, needs more shared memory than a
block may have, or does not compile.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import UserError, one_line_errors
from shared.kernels.aot import OPTIONS, Build

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}  # bytes that one block may have (CUDA programming guide)


@dataclass(frozen=True)
class Compiled:
    """What one variant takes on one architecture; `error` in place of numbers where it did not compile."""

    kernel: str
    variant: str
    arch: int
    registers: int = 0
    spilled: int = 0  # bytes of stack and local memory of a thread: these kernels have no other use for them
    shared: int = 0
    tensor_cores: bool = False
    error: str = ""

    def problems(self) -> list[str]:
        """Why this kernel fails the build; empty where it passes."""
        if self.error:
            return [f"does not compile: {self.error}"]
        out = []
        if self.spilled:
            out.append(f"spills {self.spilled} bytes of registers")
        if self.shared > SHARED_MEMORY[self.arch]:
            out.append(f"needs {self.shared} bytes of shared memory, a block has {SHARED_MEMORY[self.arch]}")
        return out


def kernel_modules(paper: str) -> list[str]:
    """Names of the modules `<paper>.kernels.<operator>.triton`.

    Raises:
        UserError: there is no such package, or it has no kernels.
    """
    try:
        package = importlib.import_module(f"{paper}.kernels")
    except ModuleNotFoundError as error:
        raise UserError(f"no package {paper}.kernels ({error}): run `make setup`, or check the name") from None
    folders = [Path(p) for p in package.__path__]
    found = [m.name for m in pkgutil.iter_modules(package.__path__) if m.ispkg]
    names = [n for n in found if any((folder / n / "triton.py").is_file() for folder in folders)]
    if not names:
        raise UserError(f"{paper}.kernels has no folder with a triton.py: nothing to compile")
    return [f"{paper}.kernels.{n}.triton" for n in names]


def listed(module: str) -> list[Build]:
    """The variants that a kernel module wants compiled, none twice."""
    return importlib.import_module(module).AOT


def source(build: Build) -> Any:
    """Triton's compiler input for one variant."""
    from triton.compiler import ASTSource

    signature = {n: build.types.get(n, "constexpr") for n in build.names}
    attributes = {(build.names.index(n),): [["tt.divisibility", 16]] for n in build.aligned}
    return ASTSource(build.kernel, signature, build.constants, attributes)


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers a thread takes and bytes of its local memory, from machine code (with Triton's own `cuobjdump`)."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        run = subprocess.run([str(tool), "-res-usage", str(path)], capture_output=True, text=True, check=True)
    return parse_report(run.stdout)


def parse_report(report: str) -> tuple[int, int]:
    """`(registers, bytes of stack and local memory)` from the words of `cuobjdump -res-usage`."""
    used = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", report)
    if used is None:
        raise ValueError(f"cuobjdump -res-usage said something unknown: {report.strip()[:200]}")
    return int(used[1]), int(used[2]) + int(used[3])


def binary(build: Build, arch: int) -> Any:
    """Triton's compiled kernel for one architecture; `asm["ptx"]` and `asm["cubin"]` are its code."""
    import triton
    from triton.backends.compiler import GPUTarget

    options = {name: getattr(build, name) for name in OPTIONS}
    return triton.compile(source(build), target=GPUTarget("cuda", arch, 32), options=options)


def compile_for(build: Build, arch: int) -> Compiled:
    """Compile one variant for one architecture."""
    name = build.kernel.__name__
    try:
        made = binary(build, arch)
        registers, spilled = resources(made.asm["cubin"])
    except Exception as error:  # a compiler may fail in any way: it is the table's to say
        lines = str(error).strip().splitlines() or [""]
        return Compiled(name, build.variant, arch, error=f"{type(error).__name__}: {lines[-1][:160]}")
    tensor_cores = "mma." in made.asm["ptx"]
    return Compiled(name, build.variant, arch, registers, spilled, made.metadata.shared, tensor_cores)


def compile_module(module: str, arch: int) -> list[Compiled]:
    return [compile_for(build, arch) for build in listed(module)]


def compile_paper(paper: str, archs: Sequence[int], workers: int) -> list[Compiled]:
    """Every variant of every kernel of a paper for every architecture."""
    jobs = [(module, arch) for module in kernel_modules(paper) for arch in archs]
    if workers == 1:
        return [row for job in jobs for row in compile_module(*job)]
    with ProcessPoolExecutor(workers) as pool:
        return [row for rows in pool.map(compile_module, *zip(*jobs)) for row in rows]


def show(rows: list[Compiled]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Kernels compiled ahead of time")
    for column in ("kernel", "variant", "arch"):
        table.add_column(column)
    for column in ("registers", "spilled B", "shared KiB", "of", "tensor cores", ""):
        table.add_column(column, justify="right")
    for row in rows:
        limit = f"{SHARED_MEMORY[row.arch] // 1024}"
        numbers = (
            str(row.registers),
            str(row.spilled),
            f"{row.shared / 1024:.1f}",
            limit,
            "yes" if row.tensor_cores else "no",
        )
        bad = row.problems()
        cells = ("-", "-", "-", limit, "-") if row.error else numbers
        table.add_row(row.kernel, row.variant, f"sm_{row.arch}", *cells, "[red]fails[/]" if bad else "[green]ok[/]")
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.kernels.build", description=__doc__.split("\n")[0])
    parser.add_argument("paper", help="a package with kernels, for example forward_forward")
    parser.add_argument("--arch", type=int, nargs="+", default=list(SHARED_MEMORY), choices=list(SHARED_MEMORY))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    args = parser.parse_args(argv)
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise UserError("interpreted kernels cannot be compiled: unset TRITON_INTERPRET")
    if importlib.util.find_spec(args.paper) and not importlib.util.find_spec(f"{args.paper}.kernels"):
        print(f"{args.paper} has no kernels of its own: nothing to compile")
        return 0
    rows = compile_paper(args.paper, args.arch, args.jobs)
    show(rows)
    failed = [(row, problem) for row in rows for problem in row.problems()]
    for row, problem in failed:
        print(f"{row.kernel} ({row.variant}) for sm_{row.arch}: {problem}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
