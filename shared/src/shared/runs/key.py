"""The key of a run: everything that its numbers follow from, hashed.

Configuration and seed, the code of the paper and of `shared`, the data's contents, the versions of torch and numpy.
Two runs with one key would give the same numbers, so the second is never made.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from shared.errors import UserError

# What only reads results that exist already, or chooses which runs to make: no run's numbers depend on it.
NOT_IN_A_RUN = (
    "report",
    "claims",
    "figures.py",
    "tables.py",
    "dashboard.py",
    "new_paper",
    "data/download.py",
    "data/fetch.py",
    "kernels/aot.py",
    "kernels/build.py",
    "kernels/gpu_check.py",
    "kernels/harness.py",
    "kernels/checks.py",
    "gpu_checks.py",
    "landscape_figures.py",
    "analyse.py",
    "runs/plan.py",
    "runs/reproduce.py",
    "runs/reproduce_all.py",
    "runs/terminal.py",
)
KERNEL_SOURCES = (".cu", ".cuh", ".cpp", ".h")


def without_docstrings(source: str) -> str:
    """The syntax tree of a module as text: comments, layout and docstrings do not count as code."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)


@cache
def code_fingerprint(package: str) -> str:
    """SHA-256 over the names and the code of a package's modules and kernel sources."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is not installed: run `make setup`")
    root = Path(next(iter(spec.submodule_search_locations)))
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if any(name == part or name.startswith(part + "/") for part in NOT_IN_A_RUN):
            continue
        if path.suffix == ".py":
            content = without_docstrings(path.read_text(encoding="utf-8")).encode()
        elif path.suffix in KERNEL_SOURCES:
            content = path.read_bytes()
        else:
            continue
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def installed(distribution: str) -> str:
    """Version of a distribution, read without importing it."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: one text per configuration, whatever its order in the file."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def run_key(config: dict[str, Any], packages: list[str], data_fingerprint: str) -> str:
    """16 hex digits that name the run of `config` (seed included) with the code of `packages` on these data."""
    parts = {
        "config": config,
        "code": {package: code_fingerprint(package) for package in sorted(packages)},
        "data": data_fingerprint,
        "versions": {name: installed(name) for name in ("torch", "numpy")},
    }
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:16]
