"""What goes wrong with strain, noise curves and searches, in the user's terms."""

from __future__ import annotations

from shared.errors import UserError


class StrainError(UserError, ValueError):
    """Strain that cannot be used; names the file and the GPS range where there is one, and the fix."""


class SearchError(UserError, ValueError):
    """A detector, noise curve, bank, checkpoint or setting of a search that does not fit; one line with the fix."""


class NoSlideError(SearchError):
    """A stretch without a background of its own: too short for a slide, or without time in which detectors overlap."""


class CrossMatchError(UserError, ValueError):
    """An external notice or a sky map that cannot be compared; one line with what is wrong with it."""


class SkyMapError(UserError, ValueError):
    """A sky map, its file, or what a localiser was given that cannot be used; one line with what is wrong with it."""


class BusError(UserError):
    """A bus that could not take, keep or give records; one line with what happened to them and the fix."""


class AlertError(UserError, ValueError):
    """A candidate, superevent, notice or store of alerts that cannot be used; one line with what is wrong with it."""


class StatusError(UserError, ValueError):
    """A status service or a live system that cannot start; one line with what is wrong and the fix."""
