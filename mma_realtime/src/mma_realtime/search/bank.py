"""A bank of templates: masses so close that every signal in range keeps its signal-to-noise ratio (section 7).

The match of two waveforms is their normalised inner product over a noise curve, at the best time and phase; a signal
loses 1 - match of its signal-to-noise ratio to the nearest template. Placement: candidates are drawn over the range in
coordinates in which matches depend little on the place (chirp time and total mass); the candidate that covers most of
those not yet covered is taken, again and again; then fresh draws are tried, and those the bank misses are added, until
nearly none is.

Time and phase are not searched for every pair: taking the weighted linear part from each waveform's phase puts any
two neighbours at their common best time and phase to second order (the linear part of a difference is the difference
of the linear parts), so a table of matches is one matrix product, never too large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Complex128, Float32, Float64
from torch import Tensor

from mma_realtime.errors import SearchError
from mma_realtime.gw.psd import NoiseCurve
from mma_realtime.gw.units import Hertz, Seconds, SolarMass
from mma_realtime.gw.waveforms import chirp_mass, chirp_time, phenomd

POOL, LARGEST_POOL = 1000, 8000  # candidates of the first pass: doubled until it has PER_TEMPLATE times the templates
PER_TEMPLATE = 8
FRESH = 1000  # draws that check it, a round, at least; ten times the templates
ROUNDS = 20
MISSED = 5e-4  # share of fresh draws below the minimal match that ends the placement
BLOCK = 256  # waveforms in one matrix product


@dataclass(frozen=True, eq=False)
class Bank:
    """Templates, in the order of their chirp masses.

    Attributes:
        m1: heavier masses (solar masses, detector frame).
        m2: lighter masses.
        f_low: from which frequency on they were matched (Hz).
        f_high: up to which (Hz).
        minimal_match: that signals in range have with the nearest of them.
        curve: name of the noise curve they were placed for.
    """

    m1: Float64[Tensor, template]
    m2: Float64[Tensor, template]
    f_low: Hertz
    f_high: Hertz
    minimal_match: float = 0.0
    curve: str = ""

    def __post_init__(self) -> None:
        if self.m1.shape != self.m2.shape or self.m1.ndim != 1 or not len(self.m1):
            raise SearchError(
                f"a bank of {tuple(self.m1.shape)} and {tuple(self.m2.shape)} masses: give two lists of one length"
            )
        if not bool(((self.m2 > 0) & (self.m1 >= self.m2)).all()):
            raise SearchError("a bank needs masses m1 >= m2 > 0: exchange or leave out the others")

    def __len__(self) -> int:
        return len(self.m1)


def quadrature(longest: Seconds, f_low: Hertz, f_high: Hertz) -> tuple[Float64[Tensor, f], Float64[Tensor, f]]:
    """Frequencies (Hz) and their weights (Hz), close enough to follow phases of signals `longest` s from `f_low` on."""
    f = [f_low]
    while f[-1] < f_high:
        f.append(f[-1] + min(0.3 / longest * (f[-1] / f_low) ** (8 / 3), 2.0, 0.02 * f[-1]))
    grid = torch.tensor(f, dtype=torch.float64)
    grid = f_low + (grid - f_low) * ((f_high - f_low) / (grid[-1] - f_low))
    step = grid.diff()
    weight = torch.zeros_like(grid)
    weight[:-1] += step / 2
    weight[1:] += step / 2
    return grid, weight


def aligned(
    m1: Float64[Tensor, n],
    m2: Float64[Tensor, n],
    f: Float64[Tensor, f],
    weight: Float64[Tensor, f],
    asd: Float64[Tensor, f],
) -> Complex64[Tensor, "n f"]:
    """Whitened waveforms of norm 1 whose phases have no linear part (weighted by power), on a quadrature grid."""
    out = torch.empty(len(m1), len(f), dtype=torch.complex64)
    p = weight * f ** (-7 / 3) / asd.square()  # one for all: with weights of their own, slopes would not cancel
    p = p / p.sum()
    df = f - (p * f).sum()
    for i in range(0, len(m1), BLOCK):
        u = phenomd(m1[i : i + BLOCK], m2[i : i + BLOCK], f, f_low=float(f[0])) * (weight.sqrt() / asd)
        steps = (u[:, 1:] * u[:, :-1].conj()).angle()  # 0 beyond the waveform's end: it has come to the merger, t = 0
        phase = torch.nn.functional.pad(steps.cumsum(1), (1, 0))
        slope = (phase * (p * df)).sum(1, keepdim=True) / (p * df.square()).sum()
        phase = phase - (p * phase).sum(1, keepdim=True) - slope * df
        out[i : i + BLOCK] = torch.polar(u.abs() / u.norm(dim=1, keepdim=True), phase)
    return out


def matches(a: Complex64[Tensor, "a f"], b: Complex64[Tensor, "b f"]) -> Float32[Tensor, "a b"]:
    """Of every pair of `aligned` waveforms: |<a|b>|."""
    return (a @ b.mH).abs()


def exact_match(
    m1: Float64[Tensor, 2], m2: Float64[Tensor, 2], curve: NoiseCurve, f_low: Hertz, f_high: Hertz
) -> float:
    """The match of two systems at the best of all times and phases: by FFT, on a uniform grid; the slow definition."""
    longest = float(chirp_time(m1, m2, f_low).max()) + 1.0
    n = 1 << int(np.ceil(np.log2(longest * 2 * f_high * 4)))  # 4-fold in time: the maximum is not missed
    df = 8 * f_high / n
    f = torch.arange(int(np.ceil(f_low / df)), int(np.ceil(f_high / df)), dtype=torch.float64) * df
    h: Complex128[Tensor, "2 f"] = phenomd(m1, m2, f, f_low=f_low) / curve.asd(f)
    h = h / h.abs().square().sum(1, keepdim=True).sqrt()
    return float((torch.fft.ifft(h[0] * h[1].conj(), n=n, norm="forward")).abs().max())


def draw_masses(
    n: int, m_range: tuple[SolarMass, SolarMass], q_max: float, generator: torch.Generator
) -> tuple[Float64[Tensor, n], Float64[Tensor, n]]:
    """Masses all over the range and on its edges: chirp masses, half of them uniform in chirp time and half in the
    logarithm; then total masses, uniform between the least and the largest that the range has for this chirp mass.

    Templates are placed among them, so what matters is that no part of the range is bare, corners least of all.
    """
    low, high = m_range
    q = np.geomspace(1, q_max, 2000)
    lightest, heaviest = low * q**0.6 / (1 + q) ** 0.2, high * q**-0.4 / (1 + q) ** 0.2  # chirp masses, m2 low; m1 high
    least, most = lightest[0], heaviest[0]
    u = torch.rand(2, n, generator=generator, dtype=torch.float64).numpy()
    by_time = (least ** (-5 / 3) + u[0] * (most ** (-5 / 3) - least ** (-5 / 3))) ** -0.6
    mc = np.where(np.arange(n) % 2 == 0, by_time, least * (most / least) ** u[0])
    largest_q = np.minimum(np.interp(mc, lightest, q), np.interp(mc, heaviest[::-1], q[::-1]))
    largest = (1 + largest_q) ** 1.2 / largest_q**0.6  # M / Mc = eta^(-3/5), from 4^(3/5) at equal masses
    ratio = 4**0.6 + (largest - 4**0.6) * np.clip(1.1 * u[1] - 0.05, 0, 1)
    total, eta = mc * ratio, ratio ** (-5 / 3)
    root = np.sqrt(np.clip(1 - 4 * eta, 0, None))
    m1, m2 = total * (1 + root) / 2, total * (1 - root) / 2
    return torch.from_numpy(np.clip(m1, low, high)), torch.from_numpy(np.clip(m2, low, high))


def coverage(waves: Complex64[Tensor, "n f"], mc: Float64[Tensor, n], minimal_match: float) -> Bool[np.ndarray, "n n"]:
    """Which waveforms, in the order of chirp mass, match each other: products of blocks until a block has none."""
    n = len(waves)
    table = np.zeros((n, n), dtype=bool)
    for i in range(0, n, BLOCK):
        for j in range(i, n, BLOCK):
            near = (matches(waves[i : i + BLOCK], waves[j : j + BLOCK]) >= minimal_match).numpy()
            if j > i and not near.any():
                break
            table[i : i + BLOCK, j : j + BLOCK] = near
            table[j : j + BLOCK, i : i + BLOCK] = near.T
    return table


def cover(table: Bool[np.ndarray, "n n"]) -> list[int]:
    """Rows that together cover all columns: always the one that covers most of those left."""
    left = np.ones(len(table), dtype=bool)
    gain = table.sum(1)
    chosen: list[int] = []
    while left.any():
        best = int(gain.argmax())
        new = table[best] & left
        chosen.append(best)
        left &= ~new
        gain -= table[new].sum(0)
    return chosen


def best_matches(
    bank: Complex64[Tensor, "template f"],
    bank_mc: Float64[Tensor, template],
    waves: Complex64[Tensor, "n f"],
    mc: Float64[Tensor, n],
    enough: float = 1.0,
) -> Float64[np.ndarray, n]:
    """The match of each of `waves` with the nearest template; both ascend in chirp mass.

    Only templates within 25 % in chirp mass are tried: others do not come near.
    """
    best = np.zeros(len(waves))
    for i in range(0, len(waves), BLOCK):
        low = int(torch.searchsorted(bank_mc, mc[i] * 0.75))
        high = int(torch.searchsorted(bank_mc, mc[min(i + BLOCK, len(mc)) - 1] * 1.25))
        if high > low:
            best[i : i + BLOCK] = matches(waves[i : i + BLOCK], bank[low:high]).amax(1).numpy()
    return best


def template_bank(
    m_range: tuple[SolarMass, SolarMass],
    q_max: float,
    curve: NoiseCurve,
    f_low: Hertz = 20.0,
    f_high: Hertz = 1000.0,
    minimal_match: float = 0.97,
    seed: int = 0,
) -> Bank:
    """Templates that cover non-spinning binaries of masses in `m_range`, mass ratio up to `q_max` (section 7).

    Args:
        m_range: least and largest component mass (solar masses, detector frame).
        q_max: largest m1 / m2.
        curve: one-sided noise curve.
        f_low: lowest frequency (Hz) of the filter.
        f_high: where it ends (Hz).
        minimal_match: with the nearest template, over the range (all but some 1 in 2,000 draws).
        seed: of the candidates.

    Raises:
        SearchError: the band is not inside the curve's table, or the range holds no system.
    """
    low, high = m_range
    if not (0 < low < high and q_max > 1 and 0 < f_low < f_high and 0 < minimal_match < 1):
        raise SearchError(
            f"a bank of {low:g} to {high:g} solar masses, mass ratios up to {q_max:g}, {f_low:g} to {f_high:g} Hz and "
            f"minimal match {minimal_match:g}: masses and frequencies have to ascend from above 0, the mass ratio to "
            "exceed 1, the match to lie between 0 and 1"
        )
    try:
        curve.asd(torch.tensor([f_low, f_high], dtype=torch.float64))
    except SearchError as error:
        raise SearchError(f"the template bank lies outside the noise curve: {error}") from None
    generator = torch.Generator().manual_seed(seed)
    lightest = torch.tensor(low, dtype=torch.float64)
    f, weight = quadrature(float(chirp_time(lightest, lightest, f_low)), f_low, f_high)
    asd = curve.asd(f.clamp(max=f_high))

    def ordered(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m1, m2 = draw_masses(n, m_range, q_max, generator)
        mc = chirp_mass(m1, m2)
        order = mc.argsort()
        m1, m2 = m1[order], m2[order]
        return m1, m2, mc[order], aligned(m1, m2, f, weight, asd)

    pool = POOL
    while True:
        m1, m2, mc, waves = ordered(pool)
        chosen = cover(coverage(waves, mc, minimal_match))
        if pool >= min(PER_TEMPLATE * len(chosen), LARGEST_POOL):
            break
        pool *= 2
    rows = torch.as_tensor(sorted(chosen))
    m1, m2, mc, waves = m1[rows], m2[rows], mc[rows], waves[rows]
    for _ in range(ROUNDS):
        tried = max(FRESH, 10 * len(mc))
        new1, new2, new_mc, new_waves = ordered(tried)
        missed = torch.as_tensor(best_matches(waves, mc, new_waves, new_mc) < minimal_match)
        if int(missed.sum()):
            new1, new2, new_mc, new_waves = new1[missed], new2[missed], new_mc[missed], new_waves[missed]
            rows = torch.as_tensor(cover(coverage(new_waves, new_mc, minimal_match)))
            m1, m2 = torch.cat([m1, new1[rows]]), torch.cat([m2, new2[rows]])
            mc, waves = torch.cat([mc, new_mc[rows]]), torch.cat([waves, new_waves[rows]])
            order = mc.argsort()
            m1, m2, mc, waves = m1[order], m2[order], mc[order], waves[order]
        if int(missed.sum()) <= MISSED * tried:
            break
    return Bank(m1, m2, f_low, f_high, minimal_match, curve.name)
