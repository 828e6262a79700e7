"""Draws of the simulated data: generators by use, masses by part, and the unit of signal-to-noise in a band.

Parts. Masses of training, validation and test lie in different cells of one solar mass by one solar mass: which part a
cell belongs to is a hash of its corner, so the parts interleave all over the plane and share no pair of masses.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from mma_realtime.errors import SearchError

PARTS = ("train", "validation", "test")
CELLS = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}  # tenths of the mass plane


def stream(seed: int, use: str, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one use: each (seed, use, number) has its own draws, in whatever order they are asked for."""
    digest = hashlib.blake2b(f"{seed} {use} {number}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def recipe_fingerprint(name: str, **recipe: Any) -> str:
    """SHA-256 of a recipe: its name and numbers."""
    return hashlib.sha256(json.dumps({"recipe": name, **recipe}, sort_keys=True).encode()).hexdigest()


def uniform(u: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Uniform in [low, high) from u in [0, 1)."""
    return low + (high - low) * u


def log_uniform(u: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Uniform in the logarithm between low and high, from u in [0, 1)."""
    return low * (high / low) ** u


def power_law(u: Tensor, low: float, high: float, index: float = -3.0) -> Tensor:
    """Density proportional to x^index on [low, high), from u in [0, 1); index is not -1."""
    k = index + 1
    return (low**k + u * (high**k - low**k)) ** (1 / k)


def whole(u: Tensor, count: int | Tensor) -> Int64[Tensor, ...]:
    """A whole number in 0..count - 1, from u in [0, 1)."""
    return (u * count).long()


def mass_part(m1: Float64[Tensor, ...], m2: Float64[Tensor, ...]) -> Int64[Tensor, ...]:
    """The tenth, 0..9, of the mass plane in which (m1, m2) (solar masses) lie; `CELLS` gives tenths to parts."""
    x = m1.floor().long() * 1_000_003 + m2.floor().long() * 7_919
    for multiplier in (0x45D9F3B, 0x119DE1F3):  # a 32-bit mixer: neighbouring cells have unrelated tenths
        x = ((x ^ (x >> 16)) * multiplier) & 0xFFFFFFFF
    return (x ^ (x >> 16)) % 10


def draw_masses(
    n: int, m_range: tuple[float, float], q_max: float, part: str, generator: torch.Generator
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """Component masses m1 >= m2, uniform in m_range (solar masses) where m1 / m2 <= q_max, in the cells of a part.

    Raises:
        SearchError: an unknown part; a range that is empty or holds no cell of the part.
    """
    low, high = m_range
    if part not in PARTS:
        raise SearchError(f"part is {part!r}: one of {', '.join(PARTS)}")
    if not 0 < low <= high or q_max < 1:
        raise SearchError(f"masses from {low:g} to {high:g} solar masses with ratios up to {q_max:g}: there are none")
    tenths, found = torch.tensor(list(CELLS[part])), torch.empty(0, 2, dtype=torch.float64)
    for _ in range(1000):
        if len(found) >= n:
            return found[:n, 0].contiguous(), found[:n, 1].contiguous()
        pairs = uniform(torch.rand(max(1024, 4 * n), 2, generator=generator, dtype=torch.float64), low, high)
        m1, m2 = pairs.amax(1), pairs.amin(1)
        keep: Bool[Tensor, " pairs"] = (m1 <= q_max * m2) & torch.isin(mass_part(m1, m2), tenths)
        found = torch.cat([found, torch.stack([m1, m2], 1)[keep]])
    raise SearchError(f"masses from {low:g} to {high:g} solar masses hold no cell of the {part} part: widen the range")


def band_fraction(sample_rate: int, band: tuple[float, float]) -> float:
    """B, the share of the frequencies up to Nyquist that the band keeps (section 2).

    Raises:
        SearchError: the band is empty or goes beyond the Nyquist frequency.
    """
    low, high = band
    if not 0 < low < high <= sample_rate / 2:
        raise SearchError(
            f"band {low:g} to {high:g} Hz does not fit {sample_rate} Hz: 0 < low < high <= {sample_rate / 2:g}"
        )
    return 2 * (high - low) / sample_rate


def in_band(samples: int, sample_rate: int, band: tuple[float, float]) -> Bool[Tensor, " freq"]:
    """Which bins of an rfft of so many samples lie in f_low <= f < f_high."""
    f = torch.fft.rfftfreq(samples, 1 / sample_rate, dtype=torch.float64)
    return (f >= band[0]) & (f < band[1])


def unit_snr(x: Float32[Tensor, "*rows time"], sample_rate: int, band: tuple[float, float]) -> Tensor:
    """x (whitened) within the band, scaled to optimal signal-to-noise ratio 1: B sum(x^2) = 1 (section 2)."""
    spectrum = torch.fft.rfft(x) * in_band(x.shape[-1], sample_rate, band).to(x.dtype)
    x = torch.fft.irfft(spectrum, x.shape[-1])
    return x / (band_fraction(sample_rate, band) * x.square().sum(-1, keepdim=True)).sqrt()
