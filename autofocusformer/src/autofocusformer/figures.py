"""The pictures of a tier."""

from __future__ import annotations

from pathlib import Path

from shared.claims.results import Results
from shared.figures import Figure


def draw(results: Results, folder: Path) -> list[Figure]:
    return []
