"""Where the detectors stand and how they hear the sky (section 2.1)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import torch
from jaxtyping import Float64
from torch import Tensor

from mma_realtime.errors import SearchError
from mma_realtime.gw.constants import C_M_S
from mma_realtime.times import gmst

__all__ = ["DETECTORS", "Detector", "antenna_pattern", "delay", "detector", "gmst", "light_travel_time"]


@dataclass(frozen=True, eq=False)
class Detector:
    """One interferometer, in Earth-fixed coordinates.

    Attributes:
        name: such as `H1`.
        response: D, half the difference of the arms' dyads.
        location_m: of the vertex, in metres from the Earth's centre.
    """

    name: str
    response: Float64[Tensor, "3 3"]
    location_m: Float64[Tensor, " 3"]


def _read() -> dict[str, Detector]:
    table = json.loads(files(__package__).joinpath("detectors.json").read_text())
    return {
        name: Detector(
            name,
            torch.tensor(entry["response"], dtype=torch.float64),
            torch.tensor(entry["location_m"], dtype=torch.float64),
        )
        for name, entry in table.items()
    }


DETECTORS: dict[str, Detector] = _read()


def detector(name: str) -> Detector:
    """The detector called `name`.

    Raises:
        SearchError: none is called so.
    """
    if name not in DETECTORS:
        raise SearchError(f"unknown detector {name!r}: known are {', '.join(DETECTORS)}")
    return DETECTORS[name]


Angle = float | Float64[Tensor, "*batch"]


def _angles(*angles: Angle) -> list[Tensor]:
    return list(torch.broadcast_tensors(*(torch.as_tensor(angle, dtype=torch.float64) for angle in angles)))


def antenna_pattern(
    det: Detector, ra: Angle, dec: Angle, psi: Angle, gmst: Angle
) -> tuple[Float64[Tensor, "*batch"], Float64[Tensor, "*batch"]]:
    """F+ and Fx of a source (section 2.1); strain is F+ h+ + Fx hx.

    Args:
        ra: right ascension (rad); this and the others are numbers or tensors that broadcast.
        dec: declination (rad).
        psi: polarisation angle (rad).
        gmst: Greenwich sidereal angle (rad).
    """
    ra, dec, psi, gmst = _angles(ra, dec, psi, gmst)
    phi = ra - gmst
    m = torch.stack(
        [
            phi.sin() * psi.cos() - dec.sin() * phi.cos() * psi.sin(),
            -phi.cos() * psi.cos() - dec.sin() * phi.sin() * psi.sin(),
            dec.cos() * psi.sin(),
        ],
        -1,
    )
    n = torch.stack(
        [
            -phi.sin() * psi.sin() - dec.sin() * phi.cos() * psi.cos(),
            phi.cos() * psi.sin() - dec.sin() * phi.sin() * psi.cos(),
            dec.cos() * psi.cos(),
        ],
        -1,
    )
    mm = torch.einsum("ij,...i,...j->...", det.response, m, m)
    nn = torch.einsum("ij,...i,...j->...", det.response, n, n)
    mn = torch.einsum("ij,...i,...j->...", det.response + det.response.T, m, n)
    return mm - nn, mn


def delay(det: Detector, ra: Angle, dec: Angle, gmst: Angle) -> Float64[Tensor, "*batch"]:
    """Arrival at the detector minus arrival at the Earth's centre (s): -r . k / c (section 2.1).

    Args:
        ra: right ascension (rad); this and the others are numbers or tensors that broadcast.
        dec: declination (rad).
        gmst: Greenwich sidereal angle (rad).
    """
    ra, dec, gmst = _angles(ra, dec, gmst)
    phi = ra - gmst
    k = torch.stack([dec.cos() * phi.cos(), dec.cos() * phi.sin(), dec.sin()], -1)
    return -(k @ det.location_m) / C_M_S


def light_travel_time(a: Detector, b: Detector) -> float:
    """Between two detectors, straight through the Earth (s); 10.0 ms for H1 and L1."""
    return float((a.location_m - b.location_m).norm()) / C_M_S
