"""Which kernels were run on a GPU: the rows of `docs/gpu-evidence.md`, and the kernel folders that have none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.errors import UserError

COLUMNS = ("kernel", "shapes", "date", "device", "versions", "max error", "time", "floor", "ratio")


@dataclass(frozen=True)
class Evidence:
    """A kernel that was run: its folder's name and what the table says of it, column by column."""

    kernel: str
    cells: tuple[str, ...]


def cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table; `\\|` is a bar."""
    inner = line.strip().removeprefix("|").removesuffix("|").replace(r"\|", "\0")
    return [cell.replace("\0", "|").strip() for cell in inner.split("|")]


def read_evidence(path: Path) -> list[Evidence]:
    """The rows of every table of the file whose columns are `COLUMNS`; none where there is no such file.

    Raises:
        UserError: the file has no such table, or a row with another number of cells.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    out, inside, found = [], False, False
    for place, line in enumerate(lines, 1):
        if not line.lstrip().startswith("|"):
            inside = False
            continue
        row = cells(line)
        if [cell.lower() for cell in row] == list(COLUMNS):
            inside = found = True
        elif inside and not all(set(cell) <= set("-: ") for cell in row):
            if len(row) != len(COLUMNS):
                raise UserError(f"{path}, line {place}: {len(row)} cells, the table has {len(COLUMNS)} columns")
            plain = tuple(cell.replace("`", "") for cell in row)
            if not plain[0]:
                raise UserError(f"{path}, line {place}: the row names no kernel")
            out.append(Evidence(plain[0], plain))
    if not found:
        raise UserError(f"{path}: no table with the columns {' | '.join(COLUMNS)}")
    return out


def kernel_folders(paper: Path) -> list[str]:
    """The names of a paper's kernels."""
    folders = paper.glob(f"src/{paper.name}/kernels/*/")
    return sorted(f.name for f in folders if f.is_dir() and not f.name.startswith(("_", ".")))


def without_evidence(papers: list[Path], evidence: list[Evidence]) -> list[tuple[str, str]]:
    """(paper, kernel) for every kernel folder that no row names, as `kernel` or `paper/kernel`."""
    named = {row.kernel for row in evidence}
    return [
        (paper.name, kernel)
        for paper in papers
        for kernel in kernel_folders(paper)
        if not named & {kernel, f"{paper.name}/{kernel}", f"{paper.name}.{kernel}"}
    ]
