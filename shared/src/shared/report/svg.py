"""An SVG file made fit to share a page: its own ids, the page's ink and paper, nothing that runs or loads."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from shared.errors import UserError
from shared.figures import COLOURS, GRID, INK, PAPER

_POINT = 96 / 72  # CSS pixels
_SWAPPED = {INK: "var(--ink)", "#000000": "var(--ink)", GRID: "var(--grid)", PAPER: "var(--card)"}
_SWAPPED |= {COLOURS[role]: f"var(--{role}, {COLOURS[role]})" for role in ("ours", "baseline", "paper")}


def inline(path: Path, prefix: str, alt: str) -> tuple[str, int]:
    """The markup of an SVG for the inside of a page, and its width in CSS pixels.

    Args:
        prefix: stands before every id, so that two figures with equal ids can share a page.
        alt: the description that a screen reader reads.

    Raises:
        UserError: the file is missing, not SVG, or holds something that runs or loads from elsewhere.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such figure, but results.json lists it; run its tier again") from None
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not an SVG file ({error}); run its tier again") from None
    _harmless(root, path)
    width = _width(root, path)

    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # matplotlib's rule for `*` would reach the whole page; style.css has it for figures.
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    for pattern in (r'(\bid=")([^"]+)', r'(\bhref="#)([^"]+)', r"(url\(#)([^)]+)"):
        text = re.sub(pattern, lambda found: f"{found[1]}{prefix}-{found[2]}", text)
    for colour, variable in _SWAPPED.items():
        text = re.sub(rf"((?:fill|stroke): ?){colour}\b", rf"\g<1>{variable}", text)
    text = re.sub(r"<svg\b[^>]*>", lambda _: _head(root, alt), text, count=1)
    return text.strip(), width


def _head(root: ElementTree.Element, alt: str) -> str:
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    box = root.get("viewBox")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} viewBox="{box}" role="img" aria-label="{label}">'


def _width(root: ElementTree.Element, path: Path) -> int:
    box = (root.get("viewBox") or "").split()
    if len(box) != 4:
        raise UserError(f"{path}: the SVG has no viewBox; save figures with shared.figures.save")
    return round(float(box[2]) * _POINT)


def _harmless(root: ElementTree.Element, path: Path) -> None:
    for element in root.iter():
        tag = str(element.tag).rpartition("}")[2]
        if tag in ("script", "foreignObject", "iframe"):
            raise UserError(f"{path}: holds <{tag}>; a figure only draws")
        for name, value in element.attrib.items():
            name = name.rpartition("}")[2]
            if name.startswith("on"):
                raise UserError(f"{path}: holds {name}=...; a figure only draws")
            if name == "href" and not value.startswith(("#", "data:image/")):
                raise UserError(f"{path}: loads {value}; a figure must stand on its own")
