"""The operators as they run on a CPU, against golden values and plain loops; the collection of kernels; the
interpreter's tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.kernels import coinc_count, fused_inject, peak_reduce, reference, slide_hist
from mma_realtime.kernels.checks import CHECKS
from mma_realtime.kernels.slides import reference as slides_reference
from shared.kernels.build import kernel_modules, listed
from shared.kernels.harness import TOLERANCE, Check, compare, draw
from shared.kernels.interpreted import assert_passes, run_python
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
INF = float("inf")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def golden() -> dict[str, Tensor]:
    file = np.load(GOLDEN / "time_slides.npz", allow_pickle=False)
    return {k: torch.from_numpy(np.atleast_1d(file[k])) for k in file.files}


@pytest.mark.slow
def test_triton_kernels_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("kernels_interpreted.py"))


def test_the_checks_need_nothing_but_pytorch() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = None\n"
        "from mma_realtime.kernels.checks import CHECKS\n"
        "from shared.kernels.harness import compare, draw\n"
        "import torch\n"
        "for c in CHECKS: assert max(compare(c, draw(c, c.small[0], 'cpu', torch.float32)).values()) < 1e-4, c.name\n"
        "bad = {'lightning', 'pytorch_lightning', 'wandb', 'rich', 'astropy', 'scipy'} & set(sys.modules)\n"
        "print('done', bad)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def test_every_folder_is_checked_and_compiled() -> None:
    folders = {module.split(".")[-2] for module in kernel_modules("mma_realtime")}
    assert folders == {check.kernel for check in CHECKS}
    assert folders >= {"inject", "peaks", "slides", "coincidence"}
    assert all(listed(module) for module in kernel_modules("mma_realtime"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_cpu_form_against_the_definition(check: Check) -> None:
    """In float64, of the same numbers."""
    for shape in check.small:
        errors = compare(check, draw(check, shape, "cpu", torch.float32))
        assert max(errors.values()) <= TOLERANCE[torch.float32], (shape, errors)


# fused_inject


def injected(noise, n, roll, flip, signals, s, delay, snr, mute, length, glitches, g, glitch_delay, glitch_snr):  # type: ignore[no-untyped-def]
    """The formula of section 11, sample by sample."""
    B, C = n.shape
    out = torch.zeros(B, C, length, dtype=torch.float64)

    def at(bank: Tensor, row: int, sample: int) -> float:
        return bank[row, sample].item() if 0 <= sample < bank.shape[1] else 0.0

    for b in range(B):
        for c in range(C):
            for t in range(length):
                value = flip[b, c] * noise[n[b, c], (t + roll[b, c]) % noise.shape[1]]
                value += mute[b, c] * snr[b, c] * at(signals, s[b, c], int(t + delay[b, c]))
                value += glitch_snr[b, c] * at(glitches, g[b, c], int(t + glitch_delay[b, c]))
                out[b, c, t] = value
    return out


@pytest.mark.parametrize("function", [fused_inject, reference.fused_inject])
def test_injection_is_the_formula(function: Callable[..., Tensor]) -> None:
    """Rolls of both signs and more than once round, signals that begin before and after the window."""
    inject = next(c for c in CHECKS if c.kernel == "inject")
    values = inject.operands(torch.Generator().manual_seed(3), B=6, C=2, L=11, S=9, T=25, G=6)
    torch.testing.assert_close(function(*values), injected(*values), rtol=0, atol=1e-12)


def test_injection_is_linear_in_the_signal_and_leaves_muted_detectors_alone() -> None:
    noise, signals = normal(2, 40), normal(3, 20, seed=1)
    zero, one = torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.float64)
    index = torch.tensor([[1, 2]])

    def at(snr: Tensor, mute: Tensor) -> Tensor:
        return fused_inject(noise, zero, zero + 3, one, signals, index, zero, snr, mute, 16)

    quiet, loud = at(0 * one, one), at(7 * one, one)
    torch.testing.assert_close(loud - quiet, 7 * signals[index][..., :16])
    muted = at(7 * one, torch.tensor([[True, False]]))
    assert torch.equal(muted[:, 0], loud[:, 0])
    assert torch.equal(muted[:, 1], quiet[:, 1])
    assert torch.equal(at(7 * one[:, 0], one[:, 0]), loud)  # one value for all detectors


def test_banks_in_16_bits_and_strided_ones() -> None:
    inject = next(c for c in CHECKS if c.kernel == "inject")
    values = inject.operands(torch.Generator().manual_seed(3), B=4, C=1, L=30, S=9, T=25, G=6)
    half = [x.half() if isinstance(x, Tensor) and x.is_floating_point() else x for x in values]
    got = fused_inject(*half)
    assert got.dtype is torch.float16
    torch.testing.assert_close(got.double(), fused_inject(*values), rtol=0, atol=0.05)
    apart = [torch.stack([x, -x], -1)[..., 0] if isinstance(x, Tensor) else x for x in values]
    assert torch.equal(fused_inject(*apart), fused_inject(*values))


def test_rows_that_are_not_read_may_have_any_index() -> None:
    i, x = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1)
    for function in (fused_inject, reference.fused_inject):
        out = function(torch.ones(1, 5), i, i, x + 1, torch.full((1, 4), torch.nan), i + 99, i, x, x + 1, 5)
        assert torch.equal(out, torch.ones(1, 1, 5))


# slide_hist


def slid(s1, s2, shifts, threshold, gap, valid1, valid2, single=-INF):  # type: ignore[no-untyped-def]
    """Clusters hop by hop: `(maxima, loudest, clusters, valid hops)`."""
    T, maxima, loudest, clusters, hops = len(s1), [], [], [], []
    for k in shifts.tolist():
        found, last, top, valid = [], None, -INF, 0
        for t in range(T):
            u = (t - k) % T
            if not (valid1[t] and valid2[u]):
                continue
            valid += 1
            if not (s1[t] > single and s2[u] > single):
                continue
            total = (s1[t] + s2[u]).item()
            top = max(top, total)
            if total > threshold:
                if last is not None and t - last < gap:
                    found[-1] = max(found[-1], total)
                else:
                    found.append(total)
                last = t
        maxima += found
        loudest.append(top)
        clusters.append(len(found))
        hops.append(valid)
    return sorted(maxima), loudest, clusters, hops


SCORE = st.integers(-24, 40).map(lambda n: n / 8)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_slides_equal_brute_force(data: st.DataObject) -> None:
    """Both forms, float32 and float64; gaps in either detector, shifts of any sign, clusters over blocks of hops."""
    T = data.draw(st.integers(1, 30))
    s1, s2 = (torch.tensor(data.draw(st.lists(SCORE, min_size=T, max_size=T)), dtype=torch.float64) for _ in "ab")
    v1, v2 = (torch.tensor(data.draw(st.lists(st.booleans(), min_size=T, max_size=T))) for _ in "ab")
    shifts = torch.tensor(data.draw(st.lists(st.integers(-2 * T, 2 * T), min_size=1, max_size=4)))
    threshold, gap = data.draw(SCORE), data.draw(st.floats(1.01, 9))
    single = data.draw(st.sampled_from([-INF, -1.0, 0.5]))
    edges = torch.tensor([-6.0, 0, 0.5, 1, 4, 9])
    maxima, loudest, clusters, hops = slid(s1, s2, shifts, threshold, gap, v1, v2, single)
    counts = np.histogram(maxima, edges.numpy())[0].tolist()
    hidden = torch.where(v1, s1, torch.nan)  # what is not valid may be anything
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slides_reference, "BLOCK", data.draw(st.integers(1, 150)))
        for function in (slide_hist, reference.slide_hist):
            for dtype in (torch.float32, torch.float64):
                for listed_ in (True, False):
                    got = function(
                        hidden.to(dtype), s2.to(dtype), shifts, edges, threshold, gap, v1, v2, single, listed_
                    )
                    assert got.hist.tolist() == counts
                    assert got.loudest.tolist() == loudest
                    assert got.clusters.tolist() == clusters
                    assert got.valid_hops.tolist() == hops
                    assert got.maxima is None or got.maxima.tolist() == maxima
                    assert (got.maxima is not None) == listed_


def test_clusters_are_joined_below_the_gap_and_not_at_it() -> None:
    """0.35 s at 16 Hz are 5.6 hops: 5 apart are one event, 6 apart two. A gap in the data parts nothing by itself."""
    for apart, expected in ((5, 1), (6, 2)):
        s = torch.full((30,), -1.0)
        s[3], s[3 + apart] = 4, 5
        valid = torch.ones(30, dtype=torch.bool)
        valid[5:7] = False
        got = slide_hist(s, s, torch.tensor([0]), torch.tensor([0.0, INF]), 1.0, 0.35 * 16, valid, None)
        assert got.clusters.tolist() == [expected]
        assert got.valid_hops.tolist() == [28]


def test_histogram_of_many_slides_is_that_of_the_list() -> None:
    """More slides than are counted at once."""
    s1, s2 = normal(300), normal(300, seed=1)
    edges = torch.linspace(1, 6, 11, dtype=torch.float64)
    got = slide_hist(s1, s2, torch.arange(300), edges, 1.0, 5.6, maxima=True)
    assert got.maxima is not None
    assert got.hist.tolist() == np.histogram(got.maxima.numpy(), edges.numpy())[0].tolist()
    assert torch.equal(slide_hist(s1, s2, torch.arange(300), edges, 1.0, 5.6).hist, got.hist)
    assert got.maxima.max() == got.loudest.max()
    exact = reference.slide_hist(s1, s2, torch.arange(300), edges, 1.0, 5.6, maxima=True)
    assert all(torch.equal(a, b) for a, b in zip(got, exact))


@pytest.mark.parametrize(
    ("slides_of", "pairs_of"), [(slide_hist, coinc_count), (reference.slide_hist, reference.coinc_count)]
)
def test_a_bin_holds_its_lower_edge_and_the_last_one_both(slides_of: Any, pairs_of: Any) -> None:
    edges, s = torch.tensor([1.0, 2, 4]), torch.tensor([0.5, 1, 1.5, 2, 2.5])
    got = slides_of(s, s, torch.tensor([0]), edges, 0.0, 1.001, torch.ones(5, dtype=torch.bool), None)
    # Neighbours lie 1 hop apart: one cluster, whose maximum, 5, is in no bin.
    assert (got.clusters.tolist(), got.hist.tolist()) == ([1], [0, 0])
    sparse, valid = torch.zeros(15), torch.arange(15) % 3 == 0
    sparse[::3] = s
    assert slides_of(sparse, sparse, torch.tensor([0]), edges, 0.0, 2.0, valid, None).hist.tolist() == [1, 3]
    t = 3 * torch.arange(5).double()
    assert pairs_of(t, s, t, s, t[:1], 20.0, 0.1, edges).hist.tolist() == [1, 3]


# peak_reduce


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize(("T", "size"), [(100, 7), (64, 64), (5, 9), (9, 1), (70_000, 100), (70_000, 40_000)])
def test_peaks_bin_by_bin(T: int, size: int, dtype: torch.dtype) -> None:
    z = torch.complex(normal(2, T), normal(2, T, seed=1)).to(dtype)
    for function in (peak_reduce, reference.peak_reduce):
        got = function(z, size, 1.5)
        for m in range(2):
            parts = [z[m, i : i + size].abs() for i in range(0, T, size)]
            assert got.sample[m].tolist() == [i * size + int(p.argmax()) for i, p in enumerate(parts)]
            assert got.loud[m].tolist() == [int((p > 1.5).sum()) for p in parts]
            torch.testing.assert_close(got.power[m].sqrt(), torch.stack([p.max() for p in parts]))


def test_a_peak_is_refused_nothing_by_a_conjugate_view() -> None:
    z = torch.complex(normal(1, 8), normal(1, 8, seed=1))
    assert torch.equal(peak_reduce(z.conj(), 4, 1.0).power, peak_reduce(z, 4, 1.0).power)


# coinc_count


@pytest.mark.parametrize("function", [coinc_count, reference.coinc_count])
def test_golden_time_slides(function: Callable[..., Any]) -> None:
    v = golden()
    if function is reference.coinc_count:  # matrices of all pairs: the first slides, and no histogram
        v |= {"slides": v["slides"][:20], "coinc_count": v["coinc_count"][:20], "max_stat": v["max_stat"][:20]}
    shifts, rest = v["slides"] * v["step"], (v["livetime"].item(), v["window"].item(), v["hist_edges"])
    triggers = (v["t1"], v["s1"], v["t2"], v["s2"])
    got = function(*triggers, shifts, *rest, sums=True)
    assert torch.equal(got.pairs, v["coinc_count"])
    assert torch.equal(got.loudest.masked_fill(got.loudest.isneginf(), -1), v["max_stat"])
    assert len(got.sums) == v["coinc_count"].sum()
    if function is coinc_count:
        assert torch.equal(function(*triggers, shifts[1:], *rest).hist, v["background_hist"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_coincidences_equal_brute_force(data: st.DataObject) -> None:
    """Times on a grid, so that differences equal the window; equal times; shifts that wrap."""
    size = data.draw(st.integers(2, 40))
    ticks = st.lists(st.integers(0, 4 * size - 1), max_size=25).map(sorted)
    t1, t2 = (torch.tensor(data.draw(ticks), dtype=torch.float64) / 4 for _ in "ab")
    s1, s2 = (torch.tensor([data.draw(SCORE) for _ in t], dtype=torch.float64) for t in (t1, t2))
    shifts = torch.tensor(data.draw(st.lists(st.integers(-100, 200), max_size=4)), dtype=torch.float64) / 4
    edges = torch.tensor([-6.0, 0, 1, 4])
    counts, loudest, sums = [], [], []
    for shift in shifts.tolist():
        values = [
            (x + y).item()
            for a, x in zip(t1.tolist(), s1)
            for b, y in zip(t2.tolist(), s2)
            if abs(a - (b + shift) % size) <= 0.5
        ]
        counts.append(len(values))
        loudest.append(max(values, default=-INF))
        sums += values
    for function in (coinc_count, reference.coinc_count):
        got = function(t1, s1, t2, s2, shifts, float(size), 0.5, edges, sums=True)
        assert got.pairs.tolist() == counts
        assert got.loudest.tolist() == loudest
        assert got.sums.tolist() == sorted(sums)
        assert got.hist.tolist() == np.histogram(sums, edges.numpy())[0].tolist()


# bad operands

I, X, BANK = torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1), torch.ones(3, 8)
S, K, E, T = torch.ones(4), torch.tensor([1]), torch.tensor([0.0, 1]), torch.arange(4).double()


def injection(**other: Any) -> Tensor:
    values: dict[str, Any] = {
        "noise": BANK, "noise_index": I, "roll": I, "flip": X, "signals": BANK, "signal_index": I, "delay": I,
        "snr": X, "mute": X, "length": 4,
    }  # fmt: skip
    return fused_inject(**(values | other))


def slides(**other: Any) -> object:
    return slide_hist(**({"s1": S, "s2": S, "shifts": K, "edges": E, "threshold": 0.0, "gap": 2.0} | other))


def coincidences(**other: Any) -> object:
    values: dict[str, Any] = {
        "t1": T, "s1": S, "t2": T, "s2": S, "shifts": T, "livetime": 9.0, "window": 1.0, "edges": E,
    }  # fmt: skip
    return coinc_count(**(values | other))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: injection(noise=BANK[0]), r"noise is \(8,\)"),
        (lambda: injection(noise=BANK[:, :0]), "noise bank has no samples"),
        (lambda: injection(signals=BANK.double()), "signals is torch.float64"),
        (lambda: injection(noise_index=I[:, 0]), r"noise_index has shape \(2,\)"),
        (lambda: injection(noise_index=I + 3), "noise_index holds 3, the bank has 3 rows"),
        (lambda: injection(signal_index=I - 1), "signal_index holds -1, the bank has 3 rows"),
        (lambda: injection(delay=I.double()), "delay is torch.float64: integers"),
        (lambda: injection(snr=X[:1]), r"snr has shape \(1, 1\): \(2, 1\) or \(2,\)"),
        (lambda: injection(length=-1), "length is -1"),
        (lambda: injection(glitches=BANK), "or none of them"),
        (
            lambda: injection(glitches=BANK, glitch_index=I + 9, glitch_delay=I, glitch_snr=X),
            "glitch_index holds 9, the bank has 3 rows",
        ),
        (lambda: slides(s2=S[:3]), r"s2 \(3,\)"),
        (lambda: slides(s2=S.double()), "same dtype"),
        (lambda: slides(s1=S.log(), s2=S / 0), "valid2 calls valid is not finite"),
        (lambda: slides(shifts=S), "shifts are .* whole hops"),
        (lambda: slides(edges=E.flip(0)), "edges have to ascend"),
        (lambda: slides(edges=E[:1]), "edges have to ascend"),
        (lambda: slides(gap=1.0), "gap is 1.0 hops"),
        (lambda: slides(threshold=float("nan")), "threshold is nan"),
        (lambda: slides(valid1=S), r"valid1 is \(4,\) torch.float32: a bool"),
        (lambda: peak_reduce(S, 2, 1.0), r"z is \(4,\) torch.float32"),
        (lambda: peak_reduce(torch.ones(1, 4) * 1j, 0, 1.0), "a bin of 0 samples"),
        (lambda: peak_reduce(torch.ones(1, 4) * 1j, 2, -1.0), "threshold is -1.0"),
        (lambda: coincidences(t1=T.float()), "float64 times"),
        (lambda: coincidences(t2=T.flip(0)), r"t2 has to ascend in \[0, 9\) s"),
        (lambda: coincidences(t1=T + 6), r"t1 has to ascend in \[0, 9\) s"),
        (lambda: coincidences(s2=S.double()), "s2 torch.float64"),
        (lambda: coincidences(window=9.0), "a window of 9.0 s in a livetime of 9.0 s"),
        (lambda: coincidences(edges=E.flip(0)), "edges have to ascend"),
    ],
)
def test_bad_operands_are_refused(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
