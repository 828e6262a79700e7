"""Which relations each head sees (section 3.2), as bits: the 13 types fit into an int16."""

from __future__ import annotations

from functools import cache

from shared.errors import UserError

HEADS, RELATIONS = 12, 13  # relation 0 is "no edge" and belongs to no head
SECTORS = range(4, 12)
CONTEXTS = (1, 3, 5, 7, 9)


@cache
def subset_bits(context: int) -> tuple[int, ...]:
    """For every head h the set {h + 1}, and for a sector the (c - 1) / 2 sectors on either side of it too.

    Raises:
        UserError: a context that is not one of 1, 3, 5, 7, 9.
    """
    if context not in CONTEXTS:
        raise UserError(f"context is {context}: use one of {', '.join(map(str, CONTEXTS))}")
    reach = (context - 1) // 2
    out = []
    for relation in range(1, RELATIONS):
        types = {relation}
        if relation in SECTORS:
            types = {4 + (relation - 4 + step) % 8 for step in range(-reach, reach + 1)}
        out.append(sum(1 << t for t in types))
    return tuple(out)
