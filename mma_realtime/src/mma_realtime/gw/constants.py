"""Constants (section 2)."""

from __future__ import annotations

from typing import Final

MTSUN_S: Final = 4.925490947641267e-06  # G M_sun / c^3, with the nominal solar G M
C_M_S: Final = 299792458.0  # speed of light
MPC_M: Final = 3.0856775814913674e22
MPC_S: Final = MPC_M / C_M_S  # a megaparsec in light seconds
SCALE: Final = 1e21  # of strain in arrays: squares of 1e-23 are nothing in float32
EULER_GAMMA: Final = 0.5772156649015329
F_REF: Final = 20.0  # Hz, where a waveform's phase is 0
