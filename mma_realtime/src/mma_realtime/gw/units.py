"""Units of plain numbers, as types."""

from __future__ import annotations

from typing import Annotated

Seconds = Annotated[float, "s"]
GPS = Annotated[float, "GPS s"]
Hertz = Annotated[float, "Hz"]
Metre = Annotated[float, "m"]
SolarMass = Annotated[float, "solar mass, detector frame"]
Megaparsec = Annotated[float, "Mpc"]
Radian = Annotated[float, "rad"]
