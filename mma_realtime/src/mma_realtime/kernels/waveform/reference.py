"""Frequency-domain waveforms in plain PyTorch: the definition (section 2.3, columns of `layout`) and the CPU's form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import layout as c

POINTS = 2**17  # held at once by `by_regions`: small enough for a cache, large enough for PyTorch's calls not to count


def powers(f: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the sums of each piece multiply, one row a term: `[13, F]`, `[8, F]`, `[4, F]` and `[4, F]` of phase
    (inspiral), amplitude (inspiral; the first is 1), and phase of the other pieces. f > 0, in Hz.
    """
    log, one, inverse = f.log(), torch.ones_like(f), 1 / f
    u = {0: one, 1: (log / 3).exp()}
    u[-1] = 1 / u[1]
    for k in range(2, max(c.AMP_INS_POWERS) + 1):  # products: a power costs ten
        u[k], u[-k] = u[k - 1] * u[1], u[1 - k] * u[-1]
    return (
        torch.stack([u[k] * log if with_log else u[k] for k, with_log in zip(c.PSI_INS_POWERS, c.PSI_INS_LOG)]),
        torch.stack([one, *(u[k] for k in c.AMP_INS_POWERS)]),
        torch.stack([one, f, log, inverse * inverse * inverse]),
        torch.stack([one, f, inverse, f.sqrt() * f.sqrt().sqrt()]),
    )


def quartic(f: Tensor) -> Tensor:
    """What the coefficients of the intermediate amplitude multiply, `[5, F]`."""
    square = f * f
    return torch.stack([torch.ones_like(f), f, square, square * f, square * square])


def waveform_fd(table: Tensor, f: Tensor, asd: Tensor | None = None) -> Tensor:
    """`h(f)`, over the asd where there is one, `[B, F]` complex: every piece everywhere, then the one that counts."""
    column = table[..., None]  # [B, WIDTH, 1]
    inside = (f >= column[:, c.F_LOW]) & (f <= column[:, c.F_CUT]) & (f > 0)
    g = torch.where(f > 0, f, 1.0)
    psi_ins, amp_ins, psi_int, psi_mrd = powers(g)

    ring = g - column[:, c.RING_FREQUENCY]
    a_mrd = column[:, c.RING_STRENGTH] / (ring.square() + column[:, c.RING_WIDTH].square())
    a_mrd = a_mrd * (-column[:, c.RING_DECAY] * ring).exp()
    amplitude = torch.where(g <= column[:, c.F_AMP_PEAK], table[:, c.AMP_INT] @ quartic(g), a_mrd)
    amplitude = torch.where(g <= column[:, c.F_AMP_INS], 1 + table[:, c.AMP_INS] @ amp_ins[1:], amplitude)
    amplitude = column[:, c.AMPLITUDE] * g ** (-7 / 6) * amplitude
    if asd is not None:
        amplitude = amplitude / asd
    amplitude = torch.where(inside, amplitude, 0.0)

    atan = column[:, c.ATAN] * ((g - column[:, c.ATAN_FREQUENCY]) / column[:, c.ATAN_WIDTH]).atan()
    psi = torch.where(g <= column[:, c.F_PSI_INT], table[:, c.PSI_INT] @ psi_int, table[:, c.PSI_MRD] @ psi_mrd + atan)
    psi = torch.where(g <= column[:, c.F_PSI_INS], table[:, c.PSI_INS] @ psi_ins, psi)
    psi = psi + column[:, c.PHASE] + 2 * math.pi * g * column[:, c.TIME]
    return torch.complex(amplitude * psi.cos(), -amplitude * psi.sin())


Form = Callable[[int, int, Tensor], Tensor]  # a piece's values at frequencies start .. stop of a chunk, into a tensor


def in_pieces(forms: Sequence[Form], ends: Tensor, held: Tensor, spare: Tensor) -> None:
    """Fills held `[rows, n]`: row r has the values of piece k up to frequency `ends[r, k]` (not included).

    Where rows disagree on the piece, and only there, both are computed.
    """
    rows, n = held.shape
    first = last = 0
    for k, form in enumerate(forms):
        if first < last:
            theirs = form(first, last, spare[: rows * (last - first)].view(rows, -1))
            place = torch.arange(first, last)
            held[:, first:last] = torch.where(place < ends[:, k - 1, None], held[:, first:last], theirs)
        stop = n if k + 1 == len(forms) else int(ends[:, k].max())
        if last < stop:
            form(last, stop, held[:, last:stop])
        if k + 1 < len(forms):
            first, last = int(ends[:, k].min()), stop


def outside(amplitude: Tensor, low: Tensor, cut: Tensor) -> None:
    """Zeros before frequency `low[r]` and from frequency `cut[r]` on of each row."""
    place = torch.arange(amplitude.shape[1])
    first, last = int(low.max()), int(cut.min())
    if first > int(low.min()):
        amplitude[:, :first].masked_fill_(place[:first] < low[:, None], 0)
    if last < amplitude.shape[1]:
        amplitude[:, last:].masked_fill_(place[last:] >= cut[:, None], 0)


def by_regions(table: Tensor, f: Tensor, asd: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`[B, F]` complex64 or complex128: each piece only where some row of a chunk of like masses needs it.

    The sums of powers are products of matrices, `[rows, terms] @ [terms, frequencies]`; phases are in turns and in
    float64 until whole turns are taken away. f has to ascend.
    """
    real = dtype.to_real()
    g = torch.where(f > 0, f, 1.0)
    psi_ins, amp_ins, psi_int, psi_mrd = powers(g)
    falling = g ** (-7 / 6)
    amp_ins, amp_int = amp_ins * falling, quartic(g) * falling

    # The constants that pieces share are added to each; -psi in turns.
    turn = -1 / (2 * math.pi)
    of_ins, of_int, of_mrd = (turn * table[:, columns] for columns in (c.PSI_INS, c.PSI_INT, c.PSI_MRD))
    for sums, zeroth, first in ((of_ins, 4, 9), (of_int, 0, 1), (of_mrd, 0, 1)):
        sums[:, zeroth] += turn * table[:, c.PHASE]
        sums[:, first] -= table[:, c.TIME]
    size = table[:, c.AMPLITUDE, None]
    a_ins = size * torch.cat([torch.ones_like(size), table[:, c.AMP_INS]], 1)
    a_int = size * table[:, c.AMP_INT]
    numbers = table[:, :, None]  # [B, WIDTH, 1]

    places = torch.searchsorted(f, table[:, : c.F_PSI_INT + 1].contiguous(), right=True)
    places[:, c.F_LOW] = torch.searchsorted(f, table[:, c.F_LOW].contiguous()).clamp(min=int((f <= 0).sum()))
    out = torch.empty(len(table), len(f), dtype=dtype)
    rows = max(1, min(len(table), POINTS // len(f)))
    psi_buffer, amp_buffer, spare = (torch.empty(rows * len(f), dtype=torch.float64) for _ in range(3))
    part = torch.empty(rows, len(f), dtype=dtype)
    for i in table[:, c.F_PSI_INT].argsort().split(rows):
        ends = places[i]
        lowest, highest = int(ends[:, c.F_LOW].min()), int(ends[:, c.F_CUT].max())
        if highest <= lowest:
            out[i] = 0
            continue
        ends = (ends - lowest).clamp_(0, highest - lowest)
        n, at = highest - lowest, numbers[i]
        psi, amplitude = (x[: len(i) * n].view(len(i), n) for x in (psi_buffer, amp_buffer))
        h = part[: len(i)]

        def product(sums: Tensor, basis: Tensor, i: Tensor = i, lowest: int = lowest) -> Form:
            return lambda a, b, y: torch.mm(sums[i], basis[:, lowest + a : lowest + b], out=y)

        def late_phase(a: int, b: int, y: Tensor, at: Tensor = at, i: Tensor = i, lowest: int = lowest) -> Tensor:
            torch.mm(of_mrd[i], psi_mrd[:, lowest + a : lowest + b], out=y)
            angle = (g[lowest + a : lowest + b] - at[:, c.ATAN_FREQUENCY]).div_(at[:, c.ATAN_WIDTH])
            return y.add_(angle.atan_().mul_(turn * at[:, c.ATAN]))

        def ring(a: int, b: int, y: Tensor, at: Tensor = at, lowest: int = lowest) -> Tensor:
            away = g[lowest + a : lowest + b] - at[:, c.RING_FREQUENCY]
            torch.mul(away, -at[:, c.RING_DECAY], out=y).exp_()
            away.square_().add_(at[:, c.RING_WIDTH].square())
            strength = at[:, c.AMPLITUDE] * at[:, c.RING_STRENGTH]
            return y.div_(away).mul_(falling[lowest + a : lowest + b]).mul_(strength)

        ends_psi, ends_amp = ends[:, c.F_PSI_INS : c.F_PSI_INT + 1], ends[:, c.F_AMP_INS : c.F_AMP_PEAK + 1]
        in_pieces([product(of_ins, psi_ins), product(of_int, psi_int), late_phase], ends_psi, psi, spare)
        in_pieces([product(a_ins, amp_ins), product(a_int, amp_int), ring], ends_amp, amplitude, spare)
        if asd is not None:
            amplitude /= (asd if asd.ndim == 1 else asd[i])[..., lowest:highest]
        outside(amplitude, ends[:, c.F_LOW], ends[:, c.F_CUT])
        angle = psi.sub_(psi.round()).to(real).mul_(2 * math.pi)
        values, parts = amplitude.to(real), torch.view_as_real(h[:, lowest:highest])
        torch.mul(values, angle.cos(), out=parts[..., 0])
        torch.mul(values, angle.sin_(), out=parts[..., 1])
        h[:, :lowest] = h[:, highest:] = 0
        out[i] = h
    return out
