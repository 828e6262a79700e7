"""Waveforms from a table: the CPU's form and the definition against sums in 40 digits; edges of pieces; refusals; what
phases in float32 would cost. The Triton kernel is tested in Triton's interpreter by `waveform_interpreted.py`, which
this file runs in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.gw.waveforms import phenomd_coefficients, taylorf2_coefficients
from mma_realtime.kernels.waveform import bank, layout, reference, waveform_fd
from mma_realtime.kernels.waveform.check import CHECK, operands
from shared.kernels.interpreted import assert_passes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

torch.set_num_threads(1)
DEFINITION = reference.waveform_fd


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator cuts into pieces however few the points, as it does for a bank."""
    monkeypatch.setattr(bank, "FEW", 0)


def masses(*pairs: tuple[float, float]) -> tuple[Tensor, Tensor]:
    m = torch.tensor(pairs, dtype=torch.float64)
    return m[:, 0], m[:, 1]


def grid(n: int, highest: float = 1024.0) -> Tensor:
    return torch.linspace(0, highest, n, dtype=torch.float64)


BBH = phenomd_coefficients(*masses((36, 29), (10, 8), (75, 75), (50, 6)), distance=400.0)
BNS = taylorf2_coefficients(*masses((1.4, 1.4), (1.6, 1.2)), distance=40.0)


def in_words(row: Tensor, hertz: float) -> complex:
    """h(f) as the layout's docstring has it, column by column by name, in 40 digits."""
    t = {name: mpmath.mpf(value) for name, value in zip(layout.COLUMNS, row.tolist())}
    f = mpmath.mpf(hertz)
    if f <= 0 or f < t["F_LOW"] or f > t["F_CUT"]:
        return 0j
    u, log = mpmath.cbrt(f), mpmath.log(f)
    if f <= t["F_AMP_INS"]:
        a = 1 + sum(t[f"AMP_INS_{k}"] * u**k for k in (2, 4, 5, 6, 7, 8, 9))
    elif f <= t["F_AMP_PEAK"]:
        a = sum(t[f"AMP_INT_{k}"] * f**k for k in range(5))
    else:
        away = f - t["RING_FREQUENCY"]
        a = t["RING_STRENGTH"] / (away**2 + t["RING_WIDTH"] ** 2) * mpmath.exp(-t["RING_DECAY"] * away)
    if f <= t["F_PSI_INS"]:
        negative = sum(t[f"PSI_INS_M{k}"] * u**-k for k in (5, 3, 2, 1))
        psi = negative + sum(t[f"PSI_INS_{k}"] * u**k for k in range(7))
        psi += (t["PSI_INS_0_LOG"] + t["PSI_INS_1_LOG"] * u) * log
    elif f <= t["F_PSI_INT"]:
        psi = t["PSI_INT_0"] + t["PSI_INT_1"] * f + t["PSI_INT_LOG"] * log + t["PSI_INT_M3"] * f**-3
    else:
        psi = t["PSI_MRD_0"] + t["PSI_MRD_1"] * f + t["PSI_MRD_M1"] / f + t["PSI_MRD_34"] * f ** mpmath.mpf(0.75)
        psi += t["ATAN"] * mpmath.atan((f - t["ATAN_FREQUENCY"]) / t["ATAN_WIDTH"])
    psi += t["PHASE"] + 2 * mpmath.pi * f * t["TIME"]
    return complex(t["AMPLITUDE"] * f ** (mpmath.mpf(-7) / 6) * a * mpmath.expj(-psi))


def test_names_are_places() -> None:
    """The constants that sums are taken by are the places of the names."""
    names = list(layout.COLUMNS)
    for name in ("F_LOW", "F_CUT", "TIME", "PHASE", "AMPLITUDE", "F_AMP_INS", "F_AMP_PEAK", "F_PSI_INS", "F_PSI_INT",
                 "RING_STRENGTH", "RING_FREQUENCY", "RING_WIDTH", "RING_DECAY", "ATAN", "ATAN_FREQUENCY",
                 "ATAN_WIDTH"):  # fmt: skip
        assert names[getattr(layout, name)] == name == names[layout.INDEX[name]]
    for name in ("AMP_INS", "AMP_INT", "PSI_INS", "PSI_INT", "PSI_MRD"):
        columns = getattr(layout, name)
        assert [n for n in names if n.startswith(f"{name}_") and not n.startswith("F_")] == names[columns]
    powers = [n.removeprefix("PSI_INS_").removesuffix("_LOG").replace("M", "-") for n in names[layout.PSI_INS]]
    assert tuple(map(int, powers)) == layout.PSI_INS_POWERS
    assert tuple(n.endswith("LOG") for n in names[layout.PSI_INS]) == layout.PSI_INS_LOG
    assert [f"AMP_INS_{k}" for k in layout.AMP_INS_POWERS] == names[layout.AMP_INS]
    assert len(names) == layout.WIDTH


@pytest.mark.parametrize("form", ["definition", "regions"])
def test_against_sums_in_forty_digits(form: str) -> None:
    """Every piece of drawn tables and of both approximants, merger 3.7 s into the series: phases of 1e5 rad."""
    mpmath.mp.dps = 40
    drawn, _, _ = operands(torch.Generator().manual_seed(3), 4, 1)
    table = torch.cat([BBH, BNS, drawn])
    table[:, layout.TIME] += 3.7
    f = torch.cat([torch.tensor([0.0, 20.0, 23.456]), torch.linspace(30, 1900, 40)]).double()
    words = [[in_words(row, hertz) for hertz in f.tolist()] for row in table]
    expected = torch.tensor(words, dtype=torch.complex128)
    assert (expected != 0).sum(1).min() > 5
    got = DEFINITION(table, f) if form == "definition" else waveform_fd(table, f, dtype=torch.complex128)
    torch.testing.assert_close(got, expected, rtol=3e-10, atol=0)


@settings(deadline=None, max_examples=40)
@given(
    systems=st.integers(1, 9), n=st.integers(1, 200), points=st.integers(1, 900), seed=st.integers(0, 10**6),
    double=st.booleans(), curves=st.sampled_from(["none", "one", "each"]),
)  # fmt: skip
def test_any_chunks_of_any_masses(systems: int, n: int, points: int, seed: int, double: bool, curves: str) -> None:
    """Pieces are computed where some row of a chunk needs them; each row keeps its own edges."""
    g = torch.Generator().manual_seed(seed)
    table, f, _ = operands(g, systems, n)
    asd = {
        "none": None,
        "one": 0.5 + torch.rand(n, generator=g),
        "each": 0.5 + torch.rand(systems, n, generator=g),
    }[curves]
    dtype = torch.complex128 if double else torch.complex64
    expected = DEFINITION(table, f, asd)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "POINTS", points)
        got = waveform_fd(table, f, asd, dtype)
    assert got.dtype is dtype
    # Absolute and relative: amplitudes of the drawn tables pass through 0.
    allowed = (1e-9 if double else 1e-6) * expected.abs().max().item()
    torch.testing.assert_close(got.to(torch.complex128), expected, rtol=0, atol=allowed)
    assert torch.equal(got == 0, expected == 0)


def test_a_frequency_on_an_edge_belongs_to_what_is_below() -> None:
    """Pieces told apart by their constants: amplitudes 1, 2, 4 and phases 0, 1, 2 rad; F_LOW and F_CUT take part."""
    table = layout.empty_table(1)
    table[0, layout.AMPLITUDE] = 1.0
    table[0, [layout.F_LOW, layout.F_CUT]] = torch.tensor([10.0, 60.0]).double()
    edges = [layout.F_AMP_INS, layout.F_AMP_PEAK, layout.F_PSI_INS, layout.F_PSI_INT]
    table[0, edges] = torch.tensor([20.0, 40.0, 30.0, 50.0]).double()
    table[0, layout.AMP_INT.start], table[0, layout.RING_STRENGTH], table[0, layout.RING_WIDTH] = 2.0, 4e12, 1e6
    table[0, layout.PSI_INT.start], table[0, layout.PSI_MRD.start] = 1.0, 2.0
    f = torch.tensor([0, 9.5, 10, 20, 20.5, 30, 30.5, 40, 40.5, 50, 50.5, 60, 60.5]).double()
    for form in (lambda: DEFINITION(table, f), lambda: waveform_fd(table, f, dtype=torch.complex128)):
        h = form()[0] * f.clamp(min=1) ** (7 / 6)
        size = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 0]).double()
        torch.testing.assert_close(h.abs(), size, rtol=1e-8, atol=0)
        turned = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 0]).double()
        torch.testing.assert_close(-h.angle(), turned, rtol=0, atol=1e-12)


def test_delay_and_phase() -> None:
    """TIME = t multiplies by exp(-2 pi i f t), PHASE = p by exp(-i p), in every piece."""
    f, moved = grid(1025), BBH.clone()
    moved[:, layout.TIME] += 1.25
    moved[:, layout.PHASE] += 0.7
    turn = torch.exp(-1j * (2 * math.pi * f * 1.25 + 0.7))
    plain, late = (waveform_fd(t, f, dtype=torch.complex128) for t in (BBH, moved))
    torch.testing.assert_close(late, plain * turn, rtol=1e-10, atol=0)


def test_energy_comes_before_the_time_that_was_asked_for() -> None:
    """A series of 8 s: the loudest sample within 20 ms of TIME, nearly all energy before (not after, as for a
    conjugated waveform).
    """
    rate, seconds, at = 2048, 8, torch.tensor([2.0, 3.0, 4.5, 7.5], dtype=torch.float64)
    table = BBH.clone()
    table[:, layout.TIME] = at
    h = waveform_fd(table, grid(rate * seconds // 2 + 1, rate / 2), dtype=torch.complex128)
    x = torch.fft.irfft(h)
    peak = x.abs().argmax(1) / rate
    torch.testing.assert_close(peak.double(), at, rtol=0, atol=0.02)
    clock = torch.arange(rate * seconds) / rate
    for row, t in zip(x, at.tolist()):
        near = {side: (clock - t).mul(side).sub(0.5).abs() < 0.47 for side in (-1, 1)}  # 0.03 s to 0.97 s away
        assert row[near[-1]].square().sum() > 10 * row[near[1]].square().sum()


def test_frequencies_in_any_order_and_only_some() -> None:
    """An odd set of frequencies gives what each gives alone."""
    f = grid(300)[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    expected = waveform_fd(BBH, f.sort().values, dtype=torch.complex128)
    got = waveform_fd(BBH, f, dtype=torch.complex128)
    torch.testing.assert_close(got[:, f.argsort()], expected, rtol=1e-9, atol=0)


def test_which_form_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The definition for few points and for frequencies out of order, else pieces."""
    used = list[str]()
    for name in ("waveform_fd", "by_regions"):
        form = getattr(reference, name)
        monkeypatch.setattr(reference, name, lambda *a, form=form, name=name: used.append(name) or form(*a))
    monkeypatch.setattr(bank, "FEW", 4 * 50)
    for f in (grid(49), grid(50), grid(50).flip(0)):
        waveform_fd(BBH, f)
    assert used == ["waveform_fd", "by_regions", "waveform_fd"]


def test_signals_out_of_the_band_and_nothing() -> None:
    table = BBH.clone()
    table[0, layout.F_LOW], table[1, layout.F_CUT] = 2000.0, 1.0
    f = grid(100)
    asd = torch.where(f < 20, 0.0, 1e-23)  # infinitely loud below the band: nothing comes of it
    h = waveform_fd(table, f, asd)
    assert h.isfinite().all()
    assert [bool((row != 0).any()) for row in h] == [False, False, True, True]
    assert waveform_fd(table[:0], f).shape == (0, 100)
    assert waveform_fd(table, f[:0]).shape == (4, 0)
    assert (waveform_fd(table[:2], f) == 0).all()


class Largest(TorchDispatchMode):
    """Bytes of the largest result that is not a view and not complex (the answer is)."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.is_floating_point():
                self.most = max(self.most, x.numel() * x.element_size())
        return out


def test_working_memory() -> None:
    """No array of a number for each system and frequency."""
    table, f, asd = operands(torch.Generator().manual_seed(0), 400, 1025)
    with Largest() as largest:
        reference.by_regions(table, f, asd, torch.complex64)
    assert largest.most <= 8 * reference.POINTS < 8 * 400 * 1025 / 3


def test_gradient_of_the_definition() -> None:
    """The operator has none, its definition has: masses can be fitted with it."""
    table = BBH[:2].clone()
    table[:, layout.AMPLITUDE] *= 1e21
    smooth = [i for i, name in enumerate(layout.COLUMNS) if not name.startswith("F_")]
    f = torch.tensor([25.0, 110.0, 190.0, 260.0], dtype=torch.float64)

    def parts(change: Tensor) -> Tensor:
        factor = torch.ones_like(table).index_add(1, torch.tensor(smooth), change)
        return 100 * torch.view_as_real(DEFINITION(table * factor, f))

    start = torch.zeros(2, len(smooth), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(parts, (start,), eps=1e-7, rtol=1e-3, atol=1e-3)


def errors_of_float32(table: Tensor, f: Tensor, delay: float) -> tuple[float, float]:
    """Largest error of phase (rad) of a table evaluated in float32, and the largest 1 - |overlap| in white noise."""
    table = table.clone()
    table[:, layout.TIME] += delay
    exact, single = DEFINITION(table, f), DEFINITION(table.float(), f.float()).to(torch.complex128)
    product = single * exact.conj()
    overlap = product.sum(1).abs() / (single.norm(dim=1) * exact.norm(dim=1))
    return product.angle().abs().max().item(), (1 - overlap).max().item()


def test_what_phases_in_float32_would_cost() -> None:
    """More than the goldens' 1e-4 rad for light black holes (3e3 rad at 20 Hz) and whenever a signal is placed in a
    series, tenths of a radian two minutes into one, 7e-3 rad for neutron stars; but of the signal-to-noise ratio never
    more than 1e-5: float64 is for timing and sky maps, detection alone would not need it.
    """
    light = phenomd_coefficients(*masses((5, 5), (8, 7)))
    quarter, fine = (torch.arange(20 * n, 1024 * n, dtype=torch.float64) / n for n in (4, 64))
    errors = [
        errors_of_float32(light, quarter, 0.0),
        errors_of_float32(BBH, quarter, 3.5),
        errors_of_float32(BNS, fine, 0.0),
        errors_of_float32(BNS, fine, 120.0),
    ]
    for (phase, mismatch), least in zip(errors, (2e-4, 1e-3, 3e-3, 0.1)):
        assert least < phase < 5 * least
        assert mismatch < 3e-5
    for table, delay in ((light, 0.0), (BBH, 3.5), (BNS, 120.0)):  # what is done: float64 until whole turns are gone
        moved = table.clone()
        moved[:, layout.TIME] += delay
        product = waveform_fd(moved, quarter) * DEFINITION(moved, quarter).conj()
        assert product.angle().abs().max() < 1e-6


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: waveform_fd(BBH[:, :9], grid(5)), r"table of shape \(4, 9\).*\[systems, 49\]"),
        (lambda: waveform_fd(BBH[0], grid(5)), r"table of shape \(49,\)"),
        (lambda: waveform_fd(BBH, grid(5)[None]), r"f of shape \(1, 5\)"),
        (lambda: waveform_fd(BBH, grid(5), torch.ones(4)), r"asd of shape \(4,\)"),
        (lambda: waveform_fd(BBH, grid(5), torch.ones(3, 5)), r"asd of shape \(3, 5\)"),
        (lambda: waveform_fd(BBH.float(), grid(5)), "table is torch.float32: phases need float64"),
        (lambda: waveform_fd(BBH, grid(5).float()), "f is torch.float32: phases need float64"),
        (lambda: waveform_fd(BBH, grid(5), torch.ones(5).long()), "asd is torch.int64: real numbers"),
        (lambda: waveform_fd(BBH, grid(5), torch.ones(5, device="meta")), "asd is on meta"),
        (lambda: waveform_fd(BBH, grid(5), dtype=torch.float32), "dtype is torch.float32: complex64 or complex128"),
        (lambda: waveform_fd(BBH.clone().requires_grad_(), grid(5)), "no gradient"),
    ],
)
def test_bad_operands_are_refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_registered() -> None:
    operator = torch.ops.mma_realtime.waveform_fd.default
    for asd in (None, torch.ones(7), torch.ones(4, 7).double()):
        for double in (False, True):
            done = torch.library.opcheck(operator, (BBH, grid(7), asd, double))
            assert set(done.values()) == {"SUCCESS"}


def test_the_check_meets_every_piece() -> None:
    """Frequencies of the checked shapes lie in all three pieces, inside and outside."""
    table, f, _ = operands(torch.Generator().manual_seed(0), **CHECK.small[0])
    for low, high in (("F_LOW", "F_AMP_INS"), ("F_AMP_INS", "F_AMP_PEAK"), ("F_AMP_PEAK", "F_CUT"),
                      ("F_LOW", "F_PSI_INS"), ("F_PSI_INS", "F_PSI_INT"), ("F_PSI_INT", "F_CUT")):  # fmt: skip
        a, b = (table[:, layout.INDEX[edge], None] for edge in (low, high))
        assert ((f > a) & (f <= b) & (b < torch.inf)).any()
    assert (table[:, layout.F_AMP_INS] == torch.inf).any()


def test_triton_kernel_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("waveform_interpreted.py"))
