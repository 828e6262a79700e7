"""What goes wrong with fields, in the user's terms."""

from __future__ import annotations

from shared.errors import UserError


class FieldError(UserError, ValueError):
    """A field, a set of coordinates or a setting that cannot be used; one line that says what is expected."""
