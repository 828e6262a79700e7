"""The localiser against the reference's maps, its own definition written out, and bad input (section 8)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.errors import SkyMapError
from mma_realtime.gw.constants import C_M_S
from mma_realtime.gw.detectors import DETECTORS, antenna_pattern, delay
from mma_realtime.sky import healpix, likelihood, localise, moc
from mma_realtime.sky.localise import Posterior, prepared
from mma_realtime.times import gmst
from scipy import integrate, special

GOLDEN = np.load(Path(__file__).parent / "golden" / "skymaps.npz")
NAMES = ("H1", "L1", "V1")


def event(number: int, detectors: int = 3) -> dict:
    """Arguments of `localise` for a golden event, of its first detectors."""
    names = NAMES[: min(detectors, len(GOLDEN[f"event{number}_snr"]))]
    by_name = {key: dict(zip(names, GOLDEN[f"event{number}_{key}"])) for key in ("snr", "toa", "horizon")}
    return {
        **by_name,
        "sample_rate": float(GOLDEN[f"event{number}_fs"]),
        "gmst_rad": float(GOLDEN[f"event{number}_gmst"]),
    }


@pytest.fixture(scope="module", params=[0, 1, 2])
def mapped(request):
    return request.param, localise.localise(**event(request.param))


def test_maps_are_the_reference_s(mapped) -> None:
    number, m = mapped
    overlap = np.sqrt(m.rasterise(32) * GOLDEN[f"event{number}_prob_nside32_nested"]).sum()
    assert overlap >= 0.9999
    for level, area in zip((0.5, 0.9), GOLDEN[f"event{number}_area50_90"]):
        assert m.area(level) == pytest.approx(area, rel=0.005)
    truth = m.credible_level(*GOLDEN[f"event{number}_truth_ra_dec"])
    assert truth == pytest.approx(float(GOLDEN[f"event{number}_truth_cl"]), abs=0.005)
    assert len(m.uniq) == 3072 + 7 * 768 * 3
    assert moc.level_ipix(m.uniq)[0].max() <= 4 + 7


def test_distances_fit_together(mapped) -> None:
    """Each pixel's ansatz is normalised, and the whole sky's mean is the probability-weighted mean."""
    _, m = mapped
    known = np.isfinite(m.distmu)
    assert m.prob[known].sum() > 0.999999
    row = int(np.argmax(m.prob))
    norm, mu, sigma = m.distnorm[row], m.distmu[row], m.distsigma[row]
    total = integrate.quad(
        lambda r: norm * r**2 * math.exp(-((r - mu) ** 2) / (2 * sigma**2)) / math.sqrt(2 * math.pi) / sigma,
        0, mu + 20 * sigma, points=[mu],
    )  # fmt: skip
    assert total[0] == pytest.approx(1, rel=1e-6)
    mean, std = m.distance_mean_std
    assert 0 < std < mean


SILENT = 100.0  # squared SNR of event 2 (its best is above 200) below which an arrival time says nothing


def definition(arguments: dict, ra: float, dec: float) -> float:
    """ln of the likelihood of a direction as section 8 writes it, by sums and one quadrature per node."""
    names = list(arguments["snr"])
    fs, angle = arguments["sample_rate"], arguments["gmst_rad"]
    z = np.stack([arguments["snr"][n] for n in names]).astype(complex) * 0.83
    r = np.array([arguments["horizon"][n] for n in names])
    toa = np.array([arguments["toa"][n] for n in names])
    place = np.stack([DETECTORS[n].location_m.numpy() for n in names]) / C_M_S
    late = np.array([float(delay(DETECTORS[n], ra, dec, angle)) for n in names])
    late, toa = late - late.mean(), toa - toa.mean()
    window = np.linalg.norm(place - place.mean(0), axis=1).max() + 0.005
    farthest, r = r.max() / 4, 0.83 * r
    modulus, phase = np.abs(z), np.unwrap(np.angle(z), axis=1)
    u, weight_u = np.polynomial.legendre.leggauss(10)
    logs = []
    for k in range(-math.floor(window * fs), math.floor(window * fs) + 1):
        here = np.zeros(len(names), dtype=complex)
        for i in range(len(names)):
            x = z.shape[1] // 2 + k + (late[i] - toa[i]) * fs
            j, t = math.floor(x), x - math.floor(x)
            if 1 <= j < z.shape[1] - 2:
                w = np.array([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]) / 2
                here[i] = (w @ modulus[i, j - 1 : j + 3]) * np.exp(1j * (w @ phase[i, j - 1 : j + 3]))
        if (np.abs(here) ** 2).sum() < SILENT:
            continue
        for one_u, one_w in zip(u, weight_u):
            for psi in np.pi * np.arange(5) / 10:  # half of the nodes: the others repeat them, see below
                f = np.array([[float(x) for x in antenna_pattern(DETECTORS[n], ra, dec, psi, angle)] for n in names])
                m = r * ((1 + one_u**2) / 2 * f[:, 0] + 1j * one_u * f[:, 1])
                big_a, big_b = (np.abs(m) ** 2).sum(), abs((m.conj() * here).sum())

                def integrand(d, a=big_a, b=big_b):
                    return 3 * d**2 / farthest**3 * np.exp(-a / (2 * d**2) + b / d) * special.i0e(b / d)

                top = min(big_a / big_b, farthest)
                value = integrate.quad(
                    integrand, 0, farthest, points=[top, top / 2, min(1.5 * top, farthest)], limit=200
                )
                logs.append(math.log(max(value[0], 1e-300)) + math.log(one_w / 2 / 5))
    return float(special.logsumexp(logs))


def test_likelihood_is_the_definition_written_out() -> None:
    """Two directions near the maximum of a three-detector event: their difference, free of the constant."""
    arguments = event(2)
    posterior = Posterior(prepared(**arguments))
    ra, dec = GOLDEN["event2_truth_ra_dec"]
    pixels = moc.uniq_of(9, healpix.pixel_at(512, np.array([ra, ra + 0.02]), np.array([dec, dec - 0.01])))
    found = posterior(pixels)[0]
    expected = [definition(arguments, float(a), float(b)) for a, b in zip(*healpix.centre_of_uniq(pixels))]
    assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], abs=2e-3)
    assert found[0] == pytest.approx(expected[0], abs=2e-3)


@pytest.mark.parametrize("a", [1e-3, 0.3, 2.0, 6.0])
@pytest.mark.parametrize("b", [0.0, 1.0, 5.0, 30.0])
def test_distance_table_is_the_integral(a: float, b: float) -> None:
    table = likelihood.DistanceTable(7.0, 40.0)
    found = table(table.row(torch.tensor([[math.log(a)]]).double()), torch.tensor([[b]]))[:, 0, 0]

    def moment(k: int) -> float:
        """Integral of 3 y^(2+k) exp(-a^2 / 2y^2 + a b/y - b^2 / 2) I0e(a b/y) over y in [0, 1]."""

        def integrand(y: float) -> float:
            w = a / y
            return 3 * y ** (2 + k) * math.exp(-((w - b) ** 2) / 2) * special.i0e(b * w)

        near = [a / (b + d) for d in (-6, -3, 0, 3, 6) if b + d > 0]
        return integrate.quad(integrand, 0, 1, points=[p for p in near if 0 < p < 1] or None, limit=500, epsabs=0)[0]

    total = moment(0)
    assert math.log(total) + b**2 / 2 <= float(table.at_most(torch.tensor([b**2]).double()))
    assert found[0] == pytest.approx(math.log(total), abs=3e-3)
    assert found[1] == pytest.approx(moment(1) / total, rel=1e-3)
    assert found[2] == pytest.approx(moment(2) / total, rel=2e-3)


def test_nodes_are_the_model_s_products() -> None:
    """A and B of the model with antenna patterns at psi, against their linear forms; half a turn of nodes is all."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, generator=generator, dtype=torch.complex128)
    r, ra, dec, angle = torch.tensor([100.0, 70.0]).double(), 1.0, 0.4, 2.0
    at_zero = [antenna_pattern(DETECTORS[n], ra, dec, 0.0, angle) for n in ("H1", "V1")]
    a, b = (r * torch.stack([f[k] for f in at_zero]) for k in range(2))
    x, y = (a * z).sum(), (b * z).sum()
    found, squares, ln_weight = likelihood.nodes()
    big_b = torch.stack([x.abs() ** 2, y.abs() ** 2, (x * y.conj()).real, (x * y.conj()).imag]) @ found
    big_a = torch.stack([(a**2).sum(), (b**2).sum(), (a * b).sum()]) @ squares
    expected = np.empty((10, 10, 3))
    for i, (u, w) in enumerate(zip(*np.polynomial.legendre.leggauss(10))):
        for j, psi in enumerate(np.pi * np.arange(10) / 10):
            f = [antenna_pattern(DETECTORS[n], ra, dec, psi, angle) for n in ("H1", "V1")]
            m = r * torch.stack([(1 + u**2) / 2 * plus + 1j * u * cross for plus, cross in f])
            expected[i, j] = (m.abs() ** 2).sum(), (m.conj() * z).sum().abs() ** 2, w / 2 / 5
    ours = torch.stack([big_a, big_b, ln_weight.exp()], 1).reshape(10, 5, 3)
    np.testing.assert_allclose(ours, expected[:, :5], rtol=1e-9)
    np.testing.assert_allclose(ours, expected[:, 5:], rtol=1e-9)


@pytest.mark.parametrize("detectors", [2, 3])
def test_arrival_times_left_out_do_not_matter(detectors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = moc.whole_sphere(2)
    arguments = event(0, detectors=detectors)
    few = Posterior(prepared(**arguments))(pixels)
    monkeypatch.setattr(localise, "NEGLIGIBLE", math.inf)
    monkeypatch.setattr(localise, "NEGLIGIBLE_HERE", math.inf)
    every = Posterior(prepared(**arguments))(pixels)
    assert np.abs(np.exp(few[0] - every[0].max()) - np.exp(every[0] - every[0].max())).max() < 1e-6
    near = every[0] > every[0].max() - 10
    np.testing.assert_allclose(few[:, near], every[:, near], rtol=1e-5)  # distances too


@pytest.mark.parametrize(("detectors", "most"), [(2, 4), (3, 2)])
def test_few_arrival_times_are_evaluated(detectors: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A direction's mean count, of some hundred that there are; bounded by neighbouring samples it was 14 and 8."""
    evaluated = []
    evaluate = Posterior.evaluate

    def counted(self, directions, pixel, step, least):
        evaluated.append(len(pixel))
        return evaluate(self, directions, pixel, step, least)

    monkeypatch.setattr(Posterior, "evaluate", counted)
    posterior = Posterior(prepared(**event(0, detectors=detectors)))
    pixels = moc.whole_sphere(4)
    posterior(pixels)
    assert len(pixels) <= sum(evaluated) < most * len(pixels)


@pytest.mark.parametrize("detectors", [2, 3])
def test_nothing_exceeds_its_bound(detectors: int) -> None:
    """Of every arrival time that was read, the likelihood is below what had been said that it cannot exceed."""
    posterior = Posterior(prepared(**event(2, detectors=detectors)))
    found = {}
    evaluate, bound = posterior.evaluate, posterior.bound
    posterior.bound = lambda directions: found.setdefault("bound", bound(directions)).clone()
    pairs = []

    def kept(directions, pixel, step, least):
        pairs.append((pixel, step, *evaluate(directions, pixel, step, -math.inf)[1:]))
        return evaluate(directions, pixel, step, least)

    posterior.evaluate = kept
    posterior(moc.whole_sphere(3))
    pixel, step, log = (torch.cat(column) for column in list(zip(*pairs))[:3])
    assert len(log) > 768
    assert float((log - found["bound"][pixel, step]).max()) <= 1e-3  # of the table, in float32


def test_one_detector_gives_its_antenna_pattern_and_two_a_ring() -> None:
    one = localise.localise(**event(0, detectors=1))
    two = localise.localise(**event(0, detectors=2))
    three = localise.localise(**event(0, detectors=3))
    truth = GOLDEN["event0_truth_ra_dec"]
    assert one.area(0.9) > 10_000
    assert one.area(0.9) > 5 * two.area(0.9) > 5 * three.area(0.9)
    for m in (one, two, three):
        assert m.credible_level(*truth) < 0.95
    arguments = event(0, detectors=1)
    plus, cross = antenna_pattern(DETECTORS["H1"], *one.peak, 0.0, arguments["gmst_rad"])
    assert math.hypot(plus, cross) > 0.95  # the densest place is where the detector hears best


def test_a_louder_signal_is_nearer_and_better_placed() -> None:
    loud, faint = event(2), event(2)
    faint["snr"] = {name: 0.6 * series for name, series in faint["snr"].items()}
    near, far = localise.localise(**loud), localise.localise(**faint)
    assert near.area(0.9) < far.area(0.9)
    assert far.distance_mean_std[0] == pytest.approx(near.distance_mean_std[0] / 0.6, rel=0.15)


def test_sidereal_angle_comes_from_the_arrival_times() -> None:
    arguments = event(2)
    gps = 1_240_000_000.0
    angle = float(gmst(gps + float(np.mean(list(arguments["toa"].values())))))
    by_angle = prepared(**{**arguments, "gmst_rad": angle})
    arguments.pop("gmst_rad")
    late = {**arguments, "toa": {name: gps + t for name, t in arguments["toa"].items()}}
    by_time = prepared(**late, gps=gps)
    assert by_time.angle == pytest.approx(angle, abs=1e-9)
    torch.testing.assert_close(by_time.offset, by_angle.offset, atol=2e-3, rtol=0)  # GPS s in float64: 0.2 us


def changed(**changes) -> dict:
    arguments = event(0)
    for key, edit in changes.items():
        arguments[key] = edit(arguments[key])
    return arguments


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (changed(snr=lambda s: {**s, "V1": np.full_like(s["V1"], np.nan)}), "series of V1 has values"),
        (changed(snr=lambda s: {**s, "L1": np.zeros_like(s["L1"])}), "series of L1 is zero"),
        (changed(snr=lambda s: {**s, "L1": s["L1"][1:]}), "different lengths"),
        (changed(snr=lambda s: {n: z[:3] for n, z in s.items()}), "3 samples"),
        (changed(snr=lambda s: {}), "no series"),
        (changed(snr=lambda s: {**{n: s[n] for n in ("H1", "L1")}, "X1": s["V1"]}), "unknown detector 'X1'"),
        (changed(toa=lambda t: {"H1": 0.0}), "but arrival times of H1"),
        (changed(toa=lambda t: {**t, "V1": math.nan}), "not all numbers"),
        (changed(toa=lambda t: {**t, "V1": t["V1"] + 0.1}), "these are not one signal"),
        (changed(horizon=lambda h: {**h, "V1": 0.0}), "horizon of V1 is 0.0 Mpc"),
        (changed(horizon=lambda h: {**h, "V1": math.inf}), "horizon of V1 is inf Mpc"),
        (changed(horizon=lambda h: {}), "but horizons of no detector"),
        (changed(sample_rate=lambda f: 0.0), "sample rate is 0.0 Hz"),
    ],
)
def test_bad_input_is_told(arguments: dict, says: str) -> None:
    with pytest.raises(SkyMapError, match=says):
        localise.localise(**arguments)


def test_stale_series_are_told() -> None:
    arguments = event(0)
    arguments.pop("gmst_rad")
    arguments["toa"] = {name: 1_240_000_000.0 + t for name, t in arguments["toa"].items()}
    with pytest.raises(SkyMapError, match=r"60 s from the trigger at 1240000060\.000: a stale buffer"):
        localise.localise(**arguments, gps=1_240_000_060.0)
