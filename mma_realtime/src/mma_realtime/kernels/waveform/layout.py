"""Columns of the coefficient table that `waveform_fd` evaluates: one row a system, float64, everything in Hz.

A frequency-domain inspiral is `h(f) = a(f) exp(-i psi(f))` with a and psi sums of powers of f in each of three pieces
(inspiral, intermediate, merger and ring-down; section 2.3). Powers of the total mass, G/c^3, eta and the distance are
folded into the coefficients once per system, so what is left per frequency is a handful of multiplications, and one
table holds PhenomD, TaylorF2 (a table whose inspiral never ends before `F_CUT`), or any mixture of both.

With `u = f^(1/3)`, f in Hz:

    amplitude  f <= F_AMP_INS:   AMPLITUDE f^(-7/6) (1 + sum_k AMP_INS_k u^k),              k = 2, 4, 5, 6, 7, 8, 9
               f <= F_AMP_PEAK:  AMPLITUDE f^(-7/6) sum_k AMP_INT_k f^k,                    k = 0 .. 4
               above:            AMPLITUDE f^(-7/6) RING_STRENGTH / ((f - RING_FREQUENCY)^2 + RING_WIDTH^2)
                                     exp(-RING_DECAY (f - RING_FREQUENCY))
               0 where f < F_LOW or f > F_CUT
    phase      f <= F_PSI_INS:   sum_k PSI_INS_k u^k + (PSI_INS_0_LOG + PSI_INS_1_LOG u) ln f,   k = -5, -3, ..., 6
               f <= F_PSI_INT:   PSI_INT_0 + PSI_INT_1 f + PSI_INT_LOG ln f + PSI_INT_M3 f^-3
               above:            PSI_MRD_0 + PSI_MRD_1 f + PSI_MRD_M1 / f + PSI_MRD_34 f^(3/4)
                                     + ATAN atan((f - ATAN_FREQUENCY) / ATAN_WIDTH)
               everywhere:       + PHASE + 2 pi f TIME

Whoever fills the table puts the constants C1..C4, the reference phase and the shift t0 of section 2.3 into the columns
of order 0 and 1 of ALL pieces (`PSI_INS_0`, `PSI_INS_3`, ...), and leaves PHASE = TIME = 0. TIME then delays the
signal: its t = 0 lies TIME seconds into the series. The model's t0 leaves the loudest moment some total masses before
t = 0: `gw.waveforms.peak_time` says when, `TIME = t - peak_time` brings it to t. Adding -2 phi_c to PHASE turns the
coalescence phase by phi_c. An absent piece begins at infinity and has finite numbers (0, and 1 for `RING_WIDTH` and
`ATAN_WIDTH`) in its columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Column(NamedTuple):
    """Unit and meaning of a column of the table."""

    unit: str
    meaning: str


COLUMNS: dict[str, Column] = {
    "F_LOW": Column("Hz", "h is 0 below; above 0"),
    "F_CUT": Column("Hz", "h is 0 above: x = 0.2 (PhenomD), where asked (TaylorF2, early warning)"),
    "TIME": Column("s", "delay of the whole signal"),
    "PHASE": Column("rad", "added to psi"),
    "AMPLITUDE": Column("strain/Hz Hz^(7/6)", "sqrt(5 eta/24) pi^(-2/3) M^(5/6) / D, times what scales the strain"),
    "F_AMP_INS": Column("Hz", "last frequency of the inspiral's amplitude (x = 0.014)"),
    "F_AMP_PEAK": Column("Hz", "last frequency of the intermediate amplitude (x_p)"),
    "F_PSI_INS": Column("Hz", "last frequency of the inspiral's phase (x = 0.018)"),
    "F_PSI_INT": Column("Hz", "last frequency of the intermediate phase (f_R / 2)"),
    "AMP_INS_2": Column("Hz^(-2/3)", "A2 M^(2/3), M in seconds: x = M f"),
    "AMP_INS_4": Column("Hz^(-4/3)", "A4"),
    "AMP_INS_5": Column("Hz^(-5/3)", "A5"),
    "AMP_INS_6": Column("Hz^-2", "A6"),
    "AMP_INS_7": Column("Hz^(-7/3)", "rho1"),
    "AMP_INS_8": Column("Hz^(-8/3)", "rho2"),
    "AMP_INS_9": Column("Hz^-3", "rho3"),
    "AMP_INT_0": Column("1", "quartic between the two"),
    "AMP_INT_1": Column("Hz^-1", "quartic"),
    "AMP_INT_2": Column("Hz^-2", "quartic"),
    "AMP_INT_3": Column("Hz^-3", "quartic"),
    "AMP_INT_4": Column("Hz^-4", "quartic"),
    "RING_STRENGTH": Column("Hz^2", "g1 g3 f_D / M^2"),
    "RING_FREQUENCY": Column("Hz", "f_R / M"),
    "RING_WIDTH": Column("Hz", "g3 f_D / M"),
    "RING_DECAY": Column("Hz^-1", "g2 M / (g3 f_D)"),
    "PSI_INS_M5": Column("rad Hz^(5/3)", "Newtonian term"),
    "PSI_INS_M3": Column("rad Hz", "p2"),
    "PSI_INS_M2": Column("rad Hz^(2/3)", "p3"),
    "PSI_INS_M1": Column("rad Hz^(1/3)", "p4"),
    "PSI_INS_0": Column("rad", "p5, the logarithm of pi M of l5, reference phase"),
    "PSI_INS_0_LOG": Column("rad", "l5 / 3, times ln f"),
    "PSI_INS_1": Column("rad Hz^(-1/3)", "p6, the logarithm of pi M of l6"),
    "PSI_INS_1_LOG": Column("rad Hz^(-1/3)", "l6 / 3, times ln f"),
    "PSI_INS_2": Column("rad Hz^(-2/3)", "p7"),
    "PSI_INS_3": Column("rad Hz^-1", "s1, t0"),
    "PSI_INS_4": Column("rad Hz^(-4/3)", "s2"),
    "PSI_INS_5": Column("rad Hz^(-5/3)", "s3"),
    "PSI_INS_6": Column("rad Hz^-2", "s4"),
    "PSI_INT_0": Column("rad", "C1, reference phase"),
    "PSI_INT_1": Column("rad Hz^-1", "b1, C2, t0"),
    "PSI_INT_LOG": Column("rad", "b2, times ln f"),
    "PSI_INT_M3": Column("rad Hz^3", "b3"),
    "PSI_MRD_0": Column("rad", "C3, reference phase"),
    "PSI_MRD_1": Column("rad Hz^-1", "a1, C4, t0"),
    "PSI_MRD_M1": Column("rad Hz", "a2"),
    "PSI_MRD_34": Column("rad Hz^(-3/4)", "a3"),
    "ATAN": Column("rad", "a4 / eta"),
    "ATAN_FREQUENCY": Column("Hz", "a5 f_R / M"),
    "ATAN_WIDTH": Column("Hz", "f_D / M"),
}

INDEX = {name: i for i, name in enumerate(COLUMNS)}  # INDEX["PSI_INS_M5"] is a column's place
WIDTH = len(COLUMNS)  # P, columns of a table

F_LOW, F_CUT, TIME, PHASE, AMPLITUDE = range(5)
F_AMP_INS, F_AMP_PEAK, F_PSI_INS, F_PSI_INT = range(5, 9)
# Consecutive columns of one sum, and the powers that they multiply.
AMP_INS = slice(9, 16)
AMP_INS_POWERS = (2, 4, 5, 6, 7, 8, 9)  # of u
AMP_INT = slice(16, 21)  # powers 0 .. 4 of f
RING_STRENGTH, RING_FREQUENCY, RING_WIDTH, RING_DECAY = range(21, 25)
PSI_INS = slice(25, 38)
PSI_INS_POWERS = (-5, -3, -2, -1, 0, 0, 1, 1, 2, 3, 4, 5, 6)  # of u; the second of a pair is multiplied by ln f
PSI_INS_LOG = (False, False, False, False, False, True, False, True, False, False, False, False, False)
PSI_INT = slice(38, 42)  # 1, f, ln f, f^-3
PSI_MRD = slice(42, 46)  # 1, f, 1/f, f^(3/4)
ATAN, ATAN_FREQUENCY, ATAN_WIDTH = range(46, 49)


def empty_table(systems: int, device: torch.device | str = "cpu") -> Tensor:
    """`[systems, WIDTH]` of an inspiral alone: every later piece begins at infinity. F_LOW, F_CUT and AMPLITUDE are
    still to be set.
    """
    table = torch.zeros(systems, WIDTH, dtype=torch.float64, device=device)
    table[:, [F_CUT, F_AMP_INS, F_AMP_PEAK, F_PSI_INS, F_PSI_INT]] = torch.inf
    table[:, [RING_WIDTH, ATAN_WIDTH]] = 1.0
    return table
