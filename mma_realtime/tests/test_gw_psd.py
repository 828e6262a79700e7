"""Noise curves (section 2.2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.errors import SearchError
from mma_realtime.gw import psd

GOLDEN = np.load(Path(__file__).parent / "golden" / "psds.npz")


@pytest.mark.parametrize("name", psd.DESIGN_CURVES)
def test_design_curves_are_the_reference_library_s(name: str) -> None:
    f = torch.as_tensor(GOLDEN["f"])
    asd = psd.design_curve(name).asd(f)
    torch.testing.assert_close(asd.log10(), torch.as_tensor(GOLDEN[f"log10asd_{name}"]).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(psd.design_curve(name).psd(f), asd.square())


def test_every_curve_of_the_table_has_a_name() -> None:
    assert {f"log10asd_{name}" for name in psd.DESIGN_CURVES} == set(GOLDEN) - {"f"}


def test_a_power_law_is_interpolated_exactly() -> None:
    f = torch.tensor([10.0, 100.0, 1000.0], dtype=torch.float64)
    curve = psd.NoiseCurve("slope", f, -21 - 2 * f.log10())
    torch.testing.assert_close(curve.asd(50.0), torch.tensor(1e-21 / 2500, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("f", [9.99, 2048.01, float("nan")])
def test_outside_of_the_table_is_refused(f: float) -> None:
    curve = psd.design_curve("KAGRA")
    with pytest.raises(SearchError, match="KAGRA covers 10 to 2048 Hz"):
        curve.asd(torch.tensor([100.0, f], dtype=torch.float64))


def test_in_band_includes_the_low_edge_and_not_the_high_one() -> None:
    curve = psd.design_curve("AdvVirgo")
    f = torch.arange(0, 1025, dtype=torch.float64)
    asd = curve.asd_in_band(f, 20, 400)
    assert torch.equal(asd.isfinite(), (f >= 20) & (f < 400))
    torch.testing.assert_close(asd[20:400], curve.asd(f[20:400]), rtol=0, atol=0)
    with pytest.raises(SearchError, match="covers"):
        curve.asd_in_band(f, 5, 400)


def test_unknown_curve_lists_the_known() -> None:
    with pytest.raises(SearchError, match=r"unknown noise curve 'flat': known are .*KAGRA"):
        psd.design_curve("flat")


def test_perturbations_are_smooth_bounded_reproducible_and_not_small() -> None:
    curve = psd.design_curve("aLIGOZeroDetHighPower")
    generator = torch.Generator().manual_seed(1)
    changes = torch.stack([psd.perturbed(curve, generator).log10asd - curve.log10asd for _ in range(50)])
    assert changes.abs().max() <= np.log10(2) + 1e-12
    assert changes.abs().amax(1).median() > 0.1  # half of the draws change an amplitude by a quarter or more
    slope = changes.diff(dim=1) / curve.f.log2().diff()
    assert slope.abs().max() < 1.5  # in decades an octave: no steps
    again = psd.perturbed(curve, torch.Generator().manual_seed(1)).log10asd - curve.log10asd
    assert torch.equal(again, changes[0])


def write_measured(root: Path) -> None:
    (root / "gwosc").mkdir()
    f = np.arange(10.0, 1025.0)
    log10asd = (np.arange(40)[:, None] * 0.01 - 23 + 0 * f).astype(np.float32)
    np.savez(root / psd.MEASURED, f=f, log10asd=log10asd)


def test_measured_curves_are_read_in_their_order_and_drawn_as_they_are(tmp_path: Path) -> None:
    assert psd.measured_curves(None) == psd.measured_curves(tmp_path) == []
    write_measured(tmp_path)
    curves = psd.measured_curves(tmp_path)
    assert [c.name for c in curves[18:22]] == ["H1 O3a 18", "H1 O3a 19", "L1 O3a 0", "L1 O3a 1"]
    assert float(curves[25].log10asd[3]) == pytest.approx(-22.75)
    generator = torch.Generator().manual_seed(0)
    drawn = [psd.draw_curve(curves, generator) for _ in range(200)]
    assert all(any(d is c for c in curves) for d in drawn)
    assert len({d.name for d in drawn}) > 30


def test_design_curves_are_drawn_perturbed() -> None:
    curve = psd.design_curve("KAGRA")
    drawn = psd.draw_curve([curve], torch.Generator().manual_seed(0))
    assert not torch.equal(drawn.log10asd, curve.log10asd)


def test_broken_file_of_measured_curves_is_named(tmp_path: Path) -> None:
    write_measured(tmp_path)
    (tmp_path / psd.MEASURED).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(SearchError, match=r"psds_o3a\.npz .*fetch the file again"):
        psd.measured_curves(tmp_path)
