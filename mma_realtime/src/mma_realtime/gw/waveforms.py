"""Compact binaries in frequency (section 2.3): non-spinning IMRPhenomD, TaylorF2, and both in time.

masses -> a row of coefficients each (here) -> h(f) at any frequencies (`kernels.waveform`, columns of its layout).

The Fourier transform has e^(-2 pi i f t), so h(f) = A(f) e^(-i psi(f)) with psi of section 2.3 is a chirp that rises;
its conjugate falls. Amplitudes are of a face-on binary and of unscaled strain. The merger is near t = 0: TaylorF2
coalesces there, PhenomD's amplitude peaks up to 12 total masses before (`peak_time`).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Complex128, Float64
from scipy.interpolate import CubicSpline
from torch import Tensor

from mma_realtime.errors import SearchError
from mma_realtime.gw import phenomd as imr
from mma_realtime.gw.constants import F_REF, MPC_S, MTSUN_S
from mma_realtime.gw.taylorf2 import taylorf2_phase
from mma_realtime.gw.units import Hertz
from mma_realtime.kernels.waveform import layout, waveform_fd

PI = math.pi
X_EARLY, X_LATE = 0.006, 0.012  # M f: from here on signals are looked at to know where their peak is
Numbers = float | Float64[Tensor, " batch"]  # one for all systems, or one for each


def chirp_mass(m1: Float64[Tensor, "*batch"], m2: Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
    """(m1 m2)^(3/5) / (m1 + m2)^(1/5), in the masses' unit."""
    return (m1 * m2) ** 0.6 / (m1 + m2) ** 0.2


def chirp_time(m1: Float64[Tensor, "*batch"], m2: Float64[Tensor, "*batch"], f_low: Hertz) -> Float64[Tensor, "*batch"]:
    """Seconds from `f_low` (Hz) to the merger at Newtonian order: 5/256 Mc (pi Mc f)^(-8/3), Mc in seconds.

    Args:
        m1, m2: solar masses, detector frame.
    """
    seconds = chirp_mass(m1, m2) * MTSUN_S
    return 5 / 256 * seconds * (PI * seconds * f_low) ** (-8 / 3)


def _masses(m1: Tensor, m2: Tensor) -> tuple[Tensor, Tensor]:
    """Total mass in seconds, and eta."""
    m1, m2 = (torch.as_tensor(m, dtype=torch.float64, device="cpu") for m in (m1, m2))
    if m1.ndim != 1 or m1.shape != m2.shape:
        raise SearchError(f"masses have shapes {tuple(m1.shape)} and {tuple(m2.shape)}: two lists of one length needed")
    if not (torch.isfinite(m1 + m2).all() and (m1 > 0).all() and (m2 > 0).all()):
        raise SearchError("masses have to be positive and finite, in solar masses")
    return (m1 + m2) * MTSUN_S, m1 * m2 / (m1 + m2) ** 2


def _common(M: Tensor, eta: Tensor, distance: Numbers, f_low: Hertz) -> Tensor:
    """A table with the columns that both approximants share: A(f) = sqrt(5 eta/24) pi^(-2/3) M^(5/6) f^(-7/6) / D."""
    if not f_low > 0:
        raise SearchError(f"waveforms begin above 0 Hz, not at {f_low:g}")
    table = layout.empty_table(len(M))
    table[:, layout.F_LOW] = f_low
    table[:, layout.AMPLITUDE] = (5 * eta / 24).sqrt() * PI ** (-2 / 3) * M ** (5 / 6) / (distance * MPC_S)
    return table


def _to_hertz(M: Tensor, sums: Tensor, powers: tuple[float, ...]) -> Tensor:
    """Factors of powers of x = M f as factors of powers of f."""
    return sums * (M.log()[:, None] * torch.tensor(powers, dtype=torch.float64)).exp()


def _inspiral_to_hertz(M: Tensor, sums: Tensor) -> Tensor:
    """As `_to_hertz` for `layout.PSI_INS`: ln x = ln f + ln M."""
    sums = sums.clone()
    for with_log in [i for i, log in enumerate(layout.PSI_INS_LOG) if log]:
        sums[:, with_log - 1] += sums[:, with_log] * M.log()
    return _to_hertz(M, sums, tuple(k / 3 for k in layout.PSI_INS_POWERS))


def phenomd_coefficients(
    m1: Float64[Tensor, " batch"],
    m2: Float64[Tensor, " batch"],
    distance: Numbers = 400.0,
    f_ref: Hertz = F_REF,
    f_low: Hertz = F_REF,
) -> Float64[Tensor, "batch column"]:
    """IMRPhenomD's row of each system, for `kernels.waveform.waveform_fd`.

    Args:
        m1, m2: solar masses, detector frame, in any order.
        distance: Mpc.
        f_ref: where the phase is 0 (Hz).
        f_low: below, h is 0 (Hz).

    Raises:
        SearchError: masses that are not positive, or a ratio above 18, which the model was not fitted to.
    """
    M, eta = _masses(m1, m2)
    ratio = torch.maximum(m1 / m2, m2 / m1).max().item() if len(M) else 1.0
    if ratio > imr.LARGEST_MASS_RATIO:
        raise SearchError(f"mass ratio {ratio:.3g}: IMRPhenomD holds up to {imr.LARGEST_MASS_RATIO:g}; use TaylorF2")
    fit, (f_R, f_D) = imr.fit_coefficients(eta), imr.ringdown(eta)
    a, psi = imr.Amplitude(eta, fit, f_R, f_D), imr.Phase(eta, fit, f_R, f_D)
    t0, x_ref = psi.slope_at_peak(a.x_peak), M * f_ref
    psi.shift(t0 * x_ref - psi.at(x_ref), -t0)  # psi = phi(x) - phi(x_ref) - t0 (x - x_ref)

    table = _common(M, eta, distance, f_low)
    table[:, layout.F_CUT] = imr.X_CUT / M
    edges = torch.stack([torch.full_like(M, imr.X_AMPLITUDE), a.x_peak, psi.x_int, psi.x_mrd], 1)
    table[:, layout.F_AMP_INS : layout.F_PSI_INT + 1] = edges / M[:, None]
    table[:, layout.AMP_INS] = _to_hertz(M, a.inspiral, tuple(k / 3 for k in layout.AMP_INS_POWERS))
    table[:, layout.AMP_INT] = _to_hertz(M, a.between, (0, 1, 2, 3, 4))
    table[:, layout.RING_STRENGTH], table[:, layout.RING_FREQUENCY] = a.strength / M**2, a.centre / M
    table[:, layout.RING_WIDTH], table[:, layout.RING_DECAY] = a.width / M, a.decay * M
    table[:, layout.PSI_INS] = _inspiral_to_hertz(M, psi.inspiral)
    table[:, layout.PSI_INT] = _to_hertz(M, psi.between, (0, 1, 0, -3))
    table[:, layout.PSI_INT.start] += psi.between[:, 2] * M.log()
    table[:, layout.PSI_MRD] = _to_hertz(M, psi.merger, (0, 1, -1, 0.75))
    size, centre, width = psi.atan.unbind(1)
    table[:, layout.ATAN] = size
    table[:, layout.ATAN_FREQUENCY], table[:, layout.ATAN_WIDTH] = centre / M, width / M
    return table


def taylorf2_coefficients(
    m1: Float64[Tensor, " batch"],
    m2: Float64[Tensor, " batch"],
    distance: Numbers = 400.0,
    f_ref: Hertz = F_REF,
    f_low: Hertz = F_REF,
    f_high: Numbers = torch.inf,
) -> Float64[Tensor, "batch column"]:
    """TaylorF2's row of each system, for `kernels.waveform.waveform_fd`; for neutron stars.

    Args:
        m1, m2: solar masses, detector frame.
        distance: Mpc.
        f_ref: where the phase is 0 (Hz).
        f_low: below, h is 0 (Hz).
        f_high: above, h is 0 (Hz), as for early warning. The series itself ends nowhere; what it stands for ends at the
            last stable orbit, f = 1 / (6^(3/2) pi M).
    """
    M, eta = _masses(m1, m2)
    table = _common(M, eta, distance, f_low)
    table[:, layout.F_CUT] = torch.as_tensor(f_high, dtype=torch.float64)
    sums = table.new_zeros(len(M), len(layout.PSI_INS_POWERS))
    sums[:, :9] = taylorf2_phase(eta)
    sums[:, 4] -= (sums * imr.inspiral_terms(M * f_ref)[0]).sum(1)
    table[:, layout.PSI_INS] = _inspiral_to_hertz(M, sums)
    return table


@cache
def _peak_times() -> CubicSpline:
    """When |h(t)| peaks, in total masses, over eta: measured. Where exactly is a matter of +-0.5: peaks are flat."""
    ratio = torch.linspace(1, imr.LARGEST_MASS_RATIO**0.5, 16, dtype=torch.float64) ** 2
    heavy, duration, rate = 1 / MTSUN_S, 2**14, 4  # M = 1 s, so that x is f and total masses are seconds
    f = torch.arange(duration // 4, dtype=torch.float64) / duration
    h = phenomd(heavy * ratio / (1 + ratio), heavy / (1 + ratio), f, f_ref=X_LATE, f_low=X_EARLY)
    rise = ((f - X_EARLY) / (X_LATE - X_EARLY)).clamp(0, 1)  # a sharp edge would ripple as far as the peak
    h = h * (0.5 - 0.5 * (PI * rise).cos())
    envelope = torch.fft.ifft(h, duration * rate).abs().roll(duration * rate // 2, -1)
    k = envelope.argmax(-1, keepdim=True)
    before, at, after = (envelope.gather(-1, k + i) for i in (-1, 0, 1))
    vertex = (k + (before - after) / (before - 2 * at + after) / 2).squeeze(-1)
    times = vertex / rate - duration // 2
    eta = ratio / (1 + ratio) ** 2
    return CubicSpline(eta.flip(0).numpy(), times.flip(0).numpy())


def peak_time(m1: Float64[Tensor, " batch"], m2: Float64[Tensor, " batch"]) -> Float64[Tensor, " batch"]:
    """When |h(t)| of each PhenomD signal peaks, in seconds from its t = 0 (below 0): 5 to 12 total masses before.

    The t0 of section 2.3 makes the ring-down frequency arrive at t = 0, as in the reference library; a damped
    oscillation's resonance arrives one damping time after it begins. `table[:, TIME] = t - peak_time(m1, m2)` puts the
    peak t seconds into a series.

    Args:
        m1, m2: solar masses, detector frame.
    """
    M, eta = _masses(m1, m2)
    return M * torch.as_tensor(_peak_times()(eta.numpy()))


def phenomd(
    m1: Float64[Tensor, " batch"],
    m2: Float64[Tensor, " batch"],
    f: Float64[Tensor, " freq"],
    distance: Numbers = 400.0,
    f_ref: Hertz = F_REF,
    f_low: Hertz = F_REF,
) -> Complex128[Tensor, "batch freq"]:
    """h+(f) of IMRPhenomD, face-on, phase 0 at `f_ref` (unscaled strain/Hz).

    Args:
        f: frequencies (Hz), ascending, 0 allowed. The others as for `phenomd_coefficients`.
    """
    return waveform_fd(phenomd_coefficients(m1, m2, distance, f_ref, f_low), f, dtype=torch.complex128)


def taylorf2(
    m1: Float64[Tensor, " batch"],
    m2: Float64[Tensor, " batch"],
    f: Float64[Tensor, " freq"],
    distance: Numbers = 400.0,
    f_ref: Hertz = F_REF,
    f_low: Hertz = F_REF,
    f_high: Numbers = torch.inf,
) -> Complex128[Tensor, "batch freq"]:
    """h+(f) of TaylorF2, face-on, phase 0 at `f_ref` (unscaled strain/Hz); arguments as for `phenomd`."""
    return waveform_fd(taylorf2_coefficients(m1, m2, distance, f_ref, f_low, f_high), f, dtype=torch.complex128)


def polarisations(
    h: Complex128[Tensor, "batch freq"], inclination: Numbers, phase: Numbers = 0.0
) -> tuple[Complex128[Tensor, "batch freq"], Complex128[Tensor, "batch freq"]]:
    """h+(f) and hx(f) of a binary seen at an angle, from that seen face-on (section 2.1).

    Args:
        h: face-on, in any unit.
        inclination: 0 is face-on, pi/2 edge-on (rad).
        phase: phi_c, at coalescence (rad); turns h by 2 phi_c.
    """
    turn = torch.as_tensor(phase, dtype=torch.float64)[..., None]
    cosine = torch.as_tensor(inclination, dtype=torch.float64).cos()[..., None]
    turned = h * torch.exp(2j * turn)
    return turned * (1 + cosine**2) / 2, -1j * cosine * turned


def to_time(hf: Complex128[Tensor, "batch freq"], sample_rate: float, origin: Numbers) -> Float64[Tensor, "batch time"]:
    """Strain in time, with the t = 0 of h(f) `origin` seconds after the first sample.

    Args:
        hf: strain/Hz at the frequencies of an FFT, 0 to half the sample rate; their number decides the duration.
        sample_rate: Hz.
        origin: seconds; what comes before the first sample appears at the end (the series is periodic).
    """
    n = 2 * (hf.shape[-1] - 1)
    f = torch.arange(hf.shape[-1], dtype=torch.float64) * sample_rate / n
    late = torch.as_tensor(origin, dtype=torch.float64)[..., None]
    return torch.fft.irfft(hf * torch.exp(-2j * PI * f * late), n) * sample_rate
