"""What a user of the analyser can mend."""

from __future__ import annotations

from shared.errors import UserError


class LandscapeError(UserError, ValueError):
    """An input for which the landscape is not defined; one line that names the fix. It is a ValueError too."""
