"""The Triton kernel of waveforms in Triton's interpreter, on the CPU. `test_kernel_waveform.py` runs this file in a
process of its own: the interpreter has to be chosen before triton is imported. By hand: `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from mma_realtime.gw.waveforms import phenomd_coefficients, taylorf2_coefficients
from mma_realtime.kernels.waveform import layout, reference, waveform_fd
from mma_realtime.kernels.waveform import triton as kernel
from mma_realtime.kernels.waveform.check import CHECK
from shared.kernels.harness import TOLERANCE, compare, draw
from torch import Tensor
from triton.runtime import interpreter


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a point that the kernel did not write shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Kernels that are launched, and their grids."""
    seen = list[tuple[str, tuple[int, ...]]]()
    launch = interpreter.GridExecutor.__call__

    def counted(self: interpreter.GridExecutor, *args: object, **kwargs: object) -> None:
        seen.append((self.fn.__name__, tuple(self.grid)[:2]))
        launch(self, *args, **kwargs)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", counted)
    return seen


def masses(*pairs: tuple[float, float]) -> tuple[Tensor, Tensor]:
    m = torch.tensor(pairs, dtype=torch.float64)
    return m[:, 0], m[:, 1]


def mixed() -> Tensor:
    """Black holes and neutron stars in one table, in strain times 1e21, 3.7 s into the series."""
    table = torch.cat([
        phenomd_coefficients(*masses((36, 29), (75, 75), (12, 5))),
        taylorf2_coefficients(*masses((1.4, 1.4), (1.6, 1.2)), distance=40.0),
    ])  # fmt: skip
    table[:, layout.AMPLITUDE] *= 1e21
    table[:, layout.TIME] += 3.7
    return table


def pointwise(got: Tensor, expected: Tensor) -> float:
    """Largest error of a point over the size of that point."""
    assert torch.equal(got == 0, expected == 0)
    there = expected != 0
    return ((got - expected)[there].abs() / expected[there].abs()).max().item()


@pytest.mark.parametrize("shape", CHECK.small, ids=str)
def test_against_the_definition(shape: dict[str, int]) -> None:
    errors = compare(CHECK, draw(CHECK, shape, "cpu", torch.float32))
    assert max(errors.values()) <= TOLERANCE[torch.float32] / 10, errors


def test_black_holes_and_neutron_stars(launches: list[tuple[str, tuple[int, ...]]]) -> None:
    """Every point to a few roundings of itself, phases of 1e5 rad and tails of 1e-6 of the peak among them."""
    f = torch.cat([torch.zeros(1), torch.linspace(15, 2040, 511)]).double()
    expected = reference.waveform_fd(mixed(), f)
    assert (expected.abs().amin(1) == 0).all()
    assert pointwise(waveform_fd(mixed(), f).to(torch.complex128), expected) < 3e-6
    assert launches == [("waveform_kernel", (5, 2))]


@pytest.mark.parametrize("curve", ["one", "each", "each, strided", "float64"])
def test_whitened(curve: str) -> None:
    f = torch.linspace(0, 900, 130, dtype=torch.float64)
    asd = 0.5 + torch.rand(5, 260, generator=torch.Generator().manual_seed(0))
    asd = {"one": asd[0, :130], "each": asd[:, :130].contiguous(), "each, strided": asd[:, ::2], "float64": asd[:, :130].double()}[curve]  # fmt: skip # noqa: E501
    expected = reference.waveform_fd(mixed(), f, asd)
    assert pointwise(waveform_fd(mixed(), f, asd).to(torch.complex128), expected) < 3e-6


@pytest.mark.parametrize("most", [2, 5, 32])
@pytest.mark.parametrize("curve", ["one", "each"])
def test_systems_of_a_program(most: int, curve: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last program that is not full; a program for all; a curve for all of them or for each."""
    monkeypatch.setattr(kernel, "PROGRAMS", 1)
    monkeypatch.setattr(kernel, "MOST_SYSTEMS", most)
    f, asd = torch.linspace(0, 900, 70, dtype=torch.float64), 0.5 + torch.rand(5, 70)
    asd = asd[0] if curve == "one" else asd
    got = waveform_fd(mixed(), f, asd)
    assert pointwise(got.to(torch.complex128), reference.waveform_fd(mixed(), f, asd)) < 3e-6


def test_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 12 Hz that lie in one piece whole, in each of the three, across its edges, and outside."""
    monkeypatch.setitem(kernel.TILE, "BLOCK", 16)
    f, table = torch.linspace(0, 315, 421, dtype=torch.float64), mixed()
    starts, ends = f[:-16:16], f[15::16]
    for edges in (
        (layout.F_LOW, layout.F_AMP_INS, layout.F_AMP_PEAK, layout.F_CUT),
        (layout.F_LOW, layout.F_PSI_INS, layout.F_PSI_INT, layout.F_CUT),
    ):
        for a, b in pairwise(edges):
            assert ((starts > table[0, a]) & (ends[: len(starts)] < table[0, b])).any()
    assert pointwise(waveform_fd(table, f).to(torch.complex128), reference.waveform_fd(table, f)) < 3e-6


def test_a_frequency_on_an_edge_belongs_to_what_is_below() -> None:
    """Pieces told apart by their constants; F_LOW and F_CUT take part."""
    table = lone(F_LOW=10, F_CUT=60, F_AMP_INS=20, F_AMP_PEAK=40, F_PSI_INS=30, F_PSI_INT=50, AMP_INT_0=2,
                 RING_STRENGTH=4e12, RING_WIDTH=1e6, PSI_INT_0=1, PSI_MRD_0=2)  # fmt: skip
    f = torch.tensor([0, 9.5, 10, 20, 20.5, 30, 30.5, 40, 40.5, 50, 50.5, 60, 60.5]).double()
    h = waveform_fd(table, f)[0].to(torch.complex128) * f.clamp(min=1) ** (7 / 6)
    size = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 0]).double()
    turned = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 0]).double()
    torch.testing.assert_close(h.abs(), size, rtol=1e-6, atol=0)
    torch.testing.assert_close(-h.angle(), turned, rtol=0, atol=1e-6)


def test_blocks_outside_the_band_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A curve that is 0 where nothing is heard; signals that begin above the band or end below it."""
    monkeypatch.setitem(kernel.TILE, "BLOCK", 16)
    table = mixed()
    table[0, layout.F_LOW], table[1, layout.F_CUT] = 2000.0, 1.0
    f = torch.linspace(0, 900, 70, dtype=torch.float64)
    h = waveform_fd(table, f, torch.where(f < 20, 0.0, 1.0))
    assert h.isfinite().all()
    assert [bool((row != 0).any()) for row in h] == [False, False, True, True, True]


def test_frequencies_in_any_order() -> None:
    f = torch.linspace(0, 900, 70, dtype=torch.float64)[torch.randperm(70, generator=torch.Generator().manual_seed(0))]
    assert pointwise(waveform_fd(mixed(), f).to(torch.complex128), reference.waveform_fd(mixed(), f)) < 3e-6


def lone(**columns: float) -> Tensor:
    """A table of one system with the given columns: amplitude f^(7/6) of 1, merger's phase at all frequencies."""
    table = layout.empty_table(1)
    table[0, [layout.F_LOW, layout.F_CUT, layout.AMPLITUDE]] = torch.tensor([1e-9, 1e9, 1.0]).double()
    table[0, [layout.F_PSI_INS, layout.F_PSI_INT]] = 0.0
    for name, value in columns.items():
        table[0, layout.INDEX[name]] = value
    return table


def test_arctangent() -> None:
    """To 2e-7 rad for arguments of any size and both signs, and at 1, where its two halves meet."""
    f = torch.cat([torch.logspace(-3, 4, 200), torch.tensor([100.0, 101.0, 99.0])]).double()
    table = lone(ATAN=1.0, ATAN_FREQUENCY=100.0, ATAN_WIDTH=1.0)
    psi = -waveform_fd(table, f)[0].to(torch.complex128).angle()
    torch.testing.assert_close(psi, (f - 100).atan(), rtol=0, atol=4e-7)
    assert ((f - 100).atan().amin() < -1.5) & ((f - 100).atan().amax() > 1.5)


@pytest.mark.parametrize("turns", [0.0, 12345.0, 1e8])
def test_sine_and_cosine_of_all_quarters(turns: float) -> None:
    """Eighths of a turn and between, of both signs, near 0 and after many turns."""
    eighths = torch.arange(-17, 18, dtype=torch.float64) / 8
    s = torch.cat([eighths, eighths + 0.03, eighths - 1e-9])
    sign = torch.where(s < 0, -1.0, 1.0)
    for one_sign in (-1.0, 1.0):  # frequencies are positive: the delay has the sign
        f = (s.abs() + turns)[sign == one_sign]
        f = f[f > 0]
        h = waveform_fd(lone(TIME=one_sign), f)[0].to(torch.complex128) * f ** (7 / 6)
        expected = torch.polar(torch.ones_like(f), -2 * torch.pi * one_sign * f.remainder(1))
        torch.testing.assert_close(h, expected, rtol=0, atol=6e-7)


def test_what_is_left_to_pytorch(launches: list[tuple[str, tuple[int, ...]]]) -> None:
    f = torch.linspace(0, 900, 7, dtype=torch.float64)
    assert waveform_fd(mixed(), f, dtype=torch.complex128).dtype is torch.complex128
    assert waveform_fd(mixed()[:0], f).shape == (0, 7)
    assert waveform_fd(mixed(), f[:0]).shape == (5, 0)
    assert launches == []


def test_two_calls_agree_bit_for_bit() -> None:
    f = torch.linspace(0, 900, 70, dtype=torch.float64)
    assert torch.equal(waveform_fd(mixed(), f), waveform_fd(mixed(), f))


def test_opcheck_and_compile() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    f, table = torch.linspace(0, 900, 9, dtype=torch.float64), mixed()
    for asd in (None, torch.ones(9), torch.ones(5, 9)):
        done = torch.library.opcheck(torch.ops.mma_realtime.waveform_fd.default, (table, f, asd, False))
        assert set(done.values()) == {"SUCCESS"}
    compiled = torch.compile(lambda t: torch.view_as_real(waveform_fd(t, f)) * 2, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(table), 2 * torch.view_as_real(waveform_fd(table, f)))
