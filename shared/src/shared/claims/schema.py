"""What the claim file and the result file have in common: strict models, finite numbers, errors on one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

Tier = Literal["quick", "cpu", "gpu", "paper"]  # from the smallest machine to the paper's own
TIERS: tuple[Tier, ...] = get_args(Tier)


class Strict(BaseModel):
    """A model that takes no key it does not know."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {value!r}")
    return value


def _iso(value: str) -> str:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"expected a date such as 2026-01-31T12:00:00+00:00, found {value!r}") from None
    return value


Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Date = Annotated[str, AfterValidator(_iso)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]+$")]

_MESSAGES = {
    "missing": "is missing",
    "extra_forbidden": "no such key",
    "string_pattern_mismatch": "only letters, digits and _ . - can stand here",
    "string_too_short": "is empty",
    "too_short": "is empty",
    "finite_number": "is NaN or infinite",
    "union_tag_not_found": "`kind` is missing: within, order, shape or ratio",
}


def one_line(error: ValidationError, place: Callable[[tuple[int | str, ...]], str] | None = None) -> str:
    """The first thing that is wrong, where and what, without pydantic's own words around it."""
    first = error.errors(include_url=False)[0]
    where = (place or _dotted)(first["loc"]).removesuffix(".[key]")
    message = _MESSAGES.get(first["type"]) or re.sub(r"^Value error, ", "", first["msg"])
    if first["type"] == "string_type":
        message = f"expected text, found {first['input']!r} (put it in quotes)"
    return " ".join(f"{where}: {message}".removeprefix(": ").split())


def _dotted(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place)
