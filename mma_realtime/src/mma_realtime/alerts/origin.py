"""Where the strain behind an alert comes from, and what every alert therefore has to say of itself (section 9).

There is no live source: strain is simulated, or recorded and replayed. So each alert that this program makes is a test
with an injected signal, and these two constants are the only values of role and tense that it ever writes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

ROLE: Final = "test"
TENSE: Final = "injection"
SEARCH: Final = "MDC"  # mock data: the JSON flavour has no key for a role


class Origin(StrEnum):
    """Of the strain."""

    SIMULATED = "simulated"
    REPLAYED = "replayed"
