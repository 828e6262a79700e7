"""Where a signal came from, from the complex SNR series of the detectors (section 8).

Directions are the pixels of a map that starts at nside 16 and splits the most probable of them seven times. In each,
the likelihood is averaged over arrival time, inclination, polarisation, phase and distance (`likelihood`). Times and
places of detectors are relative to the network's mean. Arrival times whose likelihood cannot reach e^-20 of the best
found, or e^-12 of the best at once in the same direction, whatever the other parameters, are left out: the SNRs found
there bound it. (Some hundred arrival times of e^-12 each are at the very most 0.003 of a direction.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex64, Complex128, Float32, Float64, Int64
from torch import Tensor

from mma_realtime.errors import SkyMapError
from mma_realtime.gw.constants import C_M_S
from mma_realtime.gw.detectors import DETECTORS, antenna_pattern, delay
from mma_realtime.gw.units import GPS, Hertz, Megaparsec, Radian, Seconds
from mma_realtime.sky import distance, healpix, moc
from mma_realtime.sky.likelihood import DistanceTable, nodes
from mma_realtime.sky.skymap import SkyMap
from mma_realtime.times import gmst

SCALE = 0.83  # of series and model: the standard calibration of the rapid localiser
FARTHEST = 1 / 4  # of the largest horizon: the end of the distance prior
MARGIN: Seconds = 0.005  # of arrival times, beyond the light's way
START_LEVEL, ROUNDS, SPLIT = 4, 7, 768
NEGLIGIBLE = 20.0  # in ln of the likelihood, below the best
NEGLIGIBLE_HERE = 12.0  # below that of the same direction's loudest arrival time
OVERSHOOT = 1.125  # of a Catmull-Rom curve over the largest of its four points, none of them negative
ROUNDING = 1e-5  # of a sum of squares in float32
TAPS = (-1, 0, 1, 2)  # samples that a value between two of them is read from
STALE: Seconds = 1.0  # between the series and the trigger that they are for
CHUNK = 20_000  # arrival times of pixels in one evaluation: some 8 MB an array

Series = Complex64[np.ndarray, " sample"] | Complex128[np.ndarray, " sample"] | Complex128[Tensor, " sample"]


@dataclass(frozen=True, eq=False)
class Network:
    """Series and detectors as the likelihood reads them.

    Attributes:
        modulus, phase: of the SNR series, times 0.83; the phase unwrapped.
        offset: samples from the series' start to where the network's mean arrival time falls in it.
        range: r_i, times 0.83 (Mpc).
        farthest: end of the distance prior (Mpc).
        steps: arrival times, in samples from the mean.
    """

    names: tuple[str, ...]
    modulus: Float64[Tensor, "detector sample"]
    phase: Float64[Tensor, "detector sample"]
    rate: Hertz
    offset: Float64[Tensor, " detector"]
    range: Float64[Tensor, " detector"]
    farthest: Megaparsec
    steps: Int64[Tensor, " time"]
    angle: Radian

    def delays(
        self, ra: Float64[Tensor, " pixel"], dec: Float64[Tensor, " pixel"]
    ) -> Float64[Tensor, "pixel detector"]:
        """Arrival at each detector after the network's mean (s)."""
        late = torch.stack([delay(DETECTORS[name], ra, dec, self.angle) for name in self.names], 1)
        return late - late.mean(1, keepdim=True)

    def patterns(
        self, ra: Float64[Tensor, " pixel"], dec: Float64[Tensor, " pixel"]
    ) -> Float64[Tensor, "2 pixel detector"]:
        """r_i F+ and r_i Fx at psi = 0 (Mpc)."""
        both = [torch.stack(antenna_pattern(DETECTORS[name], ra, dec, 0.0, self.angle)) for name in self.names]
        return torch.stack(both, -1) * self.range


def localise(
    snr: Mapping[str, Series],
    sample_rate: Hertz,
    toa: Mapping[str, float],
    horizon: Mapping[str, Megaparsec],
    *,
    gps: GPS | None = None,
    gmst_rad: Radian | None = None,
    meta: dict[str, Any] | None = None,
) -> SkyMap:
    """The sky map of a signal.

    Args:
        snr: complex series by detector, all of one length, modulus the signal-to-noise ratio.
        sample_rate: of the series.
        toa: time of each series' middle sample; GPS s, or s from anything where `gmst_rad` is given.
        horizon: distance (Mpc) at which the template has SNR 1 in each detector, optimally oriented.
        gps: of the trigger, for the map's header, and to be sure that the series are its.
        gmst_rad: Greenwich sidereal angle; default: at the mean of `toa`.
        meta: of the map, beside `gps` and `instruments`.

    Raises:
        SkyMapError: an unknown detector, detectors that differ between the arguments, series that are too short, not
            finite or zero, a horizon that is no distance, or times that do not belong together or to the trigger.
    """
    network = prepared(snr, sample_rate, toa, horizon, gps, gmst_rad)
    posterior = Posterior(network)
    uniq = moc.whole_sphere(START_LEVEL)
    rows = posterior(uniq)
    for _ in range(ROUNDS):
        share = rows[0] - math.log(4) * moc.level_ipix(uniq)[0]
        order = np.argsort(-share, kind="stable")
        fine, rest = moc.children(uniq[order[:SPLIT]]).ravel(), order[SPLIT:]
        uniq, rows = np.append(uniq[rest], fine), np.append(rows[:, rest], posterior(fine), 1)
    density = np.exp(rows[0] - rows[0].max())
    density /= density @ moc.pixel_area(uniq)
    mean, square = rows[1] * network.farthest, rows[2] * network.farthest**2
    parameters = distance.parameters(mean, np.sqrt(np.maximum(square - mean**2, 0)))
    known = {} if gps is None else {"gps": gps}
    return SkyMap(uniq, density, *parameters, meta={"instruments": list(network.names), **known, **(meta or {})})


class Posterior:
    """The likelihood of directions, averaged over everything else."""

    def __init__(self, network: Network) -> None:
        self.network = network
        loudest = OVERSHOOT * float(network.modulus.amax(1).square().sum().sqrt())
        most_a = float(network.range.square().sum().sqrt()) / network.farthest
        self.table = DistanceTable(most_a, loudest)
        self.found, self.squares, ln_weight = nodes()
        self.ln_weight = ln_weight.float()
        self.best = -math.inf  # the largest log-likelihood of an arrival time so far

    def __call__(self, uniq: Int64[np.ndarray, " pixel"]) -> Float64[np.ndarray, "3 pixel"]:
        """Of the pixels' centres: ln of the likelihood, up to a constant; mean and mean square of D / D_max."""
        network = self.network
        ra, dec = (torch.from_numpy(x) for x in healpix.centre_of_uniq(uniq))
        at = network.offset + network.delays(ra, dec) * network.rate
        first = at.floor().long()
        patterns = network.patterns(ra, dec)
        squares = torch.stack([patterns[0].square().sum(1), patterns[1].square().sum(1), patterns.prod(0).sum(1)], 1)
        squares = (squares @ self.squares).clamp(min=1e-30 * network.farthest**2)
        where = self.table.row(squares.log() / 2 - math.log(network.farthest))
        directions = Directions(first, at - first, patterns, 1 / squares, where)
        bound = self.bound(directions)
        every, top = torch.arange(len(uniq)), bound.argmax(1)
        parts = [self.evaluate(directions, every, top, -math.inf)]  # one at least: no direction is impossible
        loudest = parts[0][1]
        self.best = max(self.best, float(loudest.max()))
        bound[every, top] = -math.inf
        least = (loudest - NEGLIGIBLE_HERE).clamp(min=self.best - NEGLIGIBLE)
        pixel, step = (bound > least[:, None]).nonzero(as_tuple=True)
        for pair in zip(pixel.split(CHUNK), step.split(CHUNK)):
            parts.append(self.evaluate(directions, *pair, self.best - NEGLIGIBLE))
            self.best = max(self.best, float(parts[-1][1].amax(0)) if len(parts[-1][1]) else -math.inf)
        pixel, log, mean, square = (torch.cat(column) for column in zip(*parts))
        highest = torch.full((len(uniq),), -math.inf, dtype=torch.float64).scatter_reduce(0, pixel, log, "amax")
        weight = (log - highest[pixel]).exp()
        total, *moments = (
            torch.zeros(len(uniq), dtype=torch.float64).index_add(0, pixel, weight * x)
            for x in (torch.ones(()), mean, square)
        )
        return torch.stack([highest + total.log(), *(x / total for x in moments)]).numpy()

    def bound(self, directions: Directions) -> Float64[Tensor, "pixel time"]:
        """What ln of the likelihood does not exceed at any arrival time: as if a model explained the series there.

        A direction's arrival times are whole samples apart, so that all are read between samples with the same weights.
        """
        network = self.network
        modulus, last = network.modulus.float(), network.modulus.shape[1] - 2
        weights = [weight.float() for weight in taps(directions.fraction)]
        total = torch.zeros(len(directions.first), len(network.steps))
        reach = torch.arange(int(network.steps[0]) + TAPS[0], int(network.steps[-1]) + TAPS[-1] + 1)
        for detector, series in enumerate(modulus):
            first = directions.first[:, detector, None]
            read = series[(first + reach).clamp_(0, len(series) - 1)]
            here = sum(
                weight[:, detector, None] * part
                for part, weight in zip(read.unfold(1, total.shape[1], 1).unbind(1), weights)
            )
            inside = (first + network.steps >= 1) & (first + network.steps < last)
            total += torch.where(inside, here, 0.0).square()
        return self.table.at_most(total.double() * (1 + ROUNDING))

    def evaluate(
        self, directions: Directions, pixel: Int64[Tensor, " n"], step: Int64[Tensor, " n"], least: float
    ) -> tuple[Int64[Tensor, " m"], Float64[Tensor, " m"], Float64[Tensor, " m"], Float64[Tensor, " m"]]:
        """Arrival times of pixels that can reach `least`: their pixels, ln of the likelihood, mean and mean square of
        D / D_max.

        In float32 but for the SNRs found, whose squares can be thousands.
        """
        network = self.network
        z = series_at(network, directions.first[pixel] + network.steps[step][:, None], directions.fraction[pixel])
        x, y = (directions.patterns[:, pixel] * z).sum(2)
        xy = x * y.conj()
        found = torch.stack([x.abs().square(), y.abs().square(), xy.real, xy.imag], 1) @ self.found
        squared = found.mul_(directions.per_square[pixel]).clamp_(min=0)  # b^2
        highest = squared.amax(1, keepdim=True)
        if least > -math.inf:
            able = self.table.at_most(highest[:, 0]) > least
            pixel, squared, highest = pixel[able], squared[able], highest[able]
        log, mean, square = self.table(directions.row[pixel], squared.float().sqrt())
        weight = ((squared - highest) / 2).float().add_(log).add_(self.ln_weight)
        top = weight.amax(1, keepdim=True)
        weight = weight.sub_(top).exp_()
        total = weight.sum(1)
        sums = (x.double() for x in ((weight * mean).sum(1) / total, (weight * square).sum(1) / total))
        return pixel, highest[:, 0] / 2 + top[:, 0].double() + total.log().double(), *sums


@dataclass(frozen=True, eq=False)
class Directions:
    """Pixels, as the series are read for them.

    Attributes:
        first: sample of each detector at the network's mean arrival time, rounded down.
        fraction: of a sample that is missing.
        patterns: r_i F+ and r_i Fx at psi = 0 (Mpc).
        per_square: 1 / A of each node.
        row: of each node in the distance table.
    """

    first: Int64[Tensor, "pixel detector"]
    fraction: Float64[Tensor, "pixel detector"]
    patterns: Float64[Tensor, "2 pixel detector"]
    per_square: Float64[Tensor, "pixel node"]
    row: Float32[Tensor, "pixel node"]


def taps(t: Float64[Tensor, "*n"]) -> tuple[Float64[Tensor, "*n"], ...]:
    """Weights of the samples `TAPS` at a fraction t of a sample (Catmull-Rom)."""
    return t * (-1 + t * (2 - t)) / 2, 1 + t**2 * (3 * t - 5) / 2, t * (1 + t * (4 - 3 * t)) / 2, t**2 * (t - 1) / 2


def series_at(
    network: Network, index: Int64[Tensor, "n detector"], fraction: Float64[Tensor, "n detector"]
) -> Complex128[Tensor, "n detector"]:
    """z between samples by Catmull-Rom on modulus and unwrapped phase; 0 where one of the four samples is missing."""
    n = network.modulus.shape[1]
    inside = (index >= 1) & (index < n - 2)
    row = torch.arange(len(network.names))
    modulus, phase = torch.zeros_like(fraction), torch.zeros_like(fraction)
    for tap, weight in zip(TAPS, taps(fraction)):
        place = (index + tap).clamp(0, n - 1)
        modulus += weight * network.modulus[row, place]
        phase += weight * network.phase[row, place]
    return torch.polar(torch.where(inside, modulus, 0.0), phase)


def prepared(
    snr: Mapping[str, Series],
    sample_rate: Hertz,
    toa: Mapping[str, float],
    horizon: Mapping[str, Megaparsec],
    gps: GPS | None = None,
    gmst_rad: Radian | None = None,
) -> Network:
    """What `localise` was given, checked (see there)."""
    names = tuple(snr)
    z = checked_series(snr)
    for what, table in (("arrival times", toa), ("horizons", horizon)):
        if set(table) != set(names):
            raise SkyMapError(f"series of {', '.join(names)}, but {what} of {', '.join(table) or 'no detector'}")
    if not (math.isfinite(sample_rate) and sample_rate > 0):
        raise SkyMapError(f"the series' sample rate is {sample_rate} Hz")
    ranges, times = (np.array([float(table[name]) for name in names]) for table in (horizon, toa))
    for name, value in zip(names, ranges):
        if not (math.isfinite(value) and value > 0):
            raise SkyMapError(f"the horizon of {name} is {value} Mpc: a detector that hears nothing takes no part")
    mean_toa = float(times.mean())
    if not np.isfinite(times).all():
        raise SkyMapError(f"arrival times of {', '.join(names)} are not all numbers: {times.tolist()}")
    if gps is not None and gmst_rad is None and abs(mean_toa - gps) > STALE:
        raise SkyMapError(
            f"the series are of GPS {mean_toa:.3f}, {abs(mean_toa - gps):.3g} s from the trigger at {gps:.3f}: a stale "
            "buffer?"
        )
    places = torch.stack([DETECTORS[name].location_m for name in names]) / C_M_S
    reach = float((places - places.mean(0)).norm(dim=1).max())
    if np.ptp(times) > 2 * reach + 2 * MARGIN:
        raise SkyMapError(
            f"arrival times lie {1e3 * np.ptp(times):.1f} ms apart, light takes at most {2e3 * reach:.1f} ms between "
            f"{', '.join(names)}: these are not one signal"
        )
    modulus = z.abs() * SCALE
    n = modulus.shape[1]
    last = math.floor((reach + MARGIN) * sample_rate)
    return Network(
        names,
        modulus,
        torch.from_numpy(np.unwrap(z.angle().numpy(), axis=1)),
        sample_rate,
        n // 2 - torch.from_numpy(times - mean_toa) * sample_rate,
        torch.from_numpy(ranges) * SCALE,
        float(ranges.max()) * FARTHEST,
        torch.arange(-last, last + 1),
        float(gmst(mean_toa)) if gmst_rad is None else gmst_rad,
    )


def checked_series(snr: Mapping[str, Series]) -> Complex128[Tensor, "detector sample"]:
    """The series together, in float64."""
    if not snr:
        raise SkyMapError("no series: at least one detector is needed")
    for name in snr:
        if name not in DETECTORS:
            raise SkyMapError(f"unknown detector {name!r}: known are {', '.join(DETECTORS)}")
    lengths = {name: len(series) for name, series in snr.items()}
    if len(set(lengths.values())) > 1:
        raise SkyMapError(f"series of different lengths: {lengths}")
    if min(lengths.values()) < 5:
        raise SkyMapError(f"series of {min(lengths.values())} samples: at least 5 are needed")
    z = torch.stack([torch.as_tensor(series).to(torch.complex128) for series in snr.values()])
    for name, series in zip(snr, z):
        if not bool(torch.isfinite(series.abs()).all()):
            raise SkyMapError(f"the series of {name} has values that are no numbers")
        if not bool((series != 0).any()):
            raise SkyMapError(f"the series of {name} is zero: no data there?")
    return z
