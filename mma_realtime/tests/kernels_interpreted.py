"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: see `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.kernels import coinc_count, fused_inject, peak_reduce, reference, slide_hist
from mma_realtime.kernels.checks import CHECKS
from mma_realtime.kernels.slides import triton as slides_triton
from shared.kernels.harness import TOLERANCE, Check, compare
from shared.kernels.harness import draw as operands
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OURS = [check for check in CHECKS if check.kernel != "waveform"]  # that one has a file of its own
CASES = [(check, mode) for check in OURS for mode in check.modes if mode in TYPES]
INF = float("inf")


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("check", "mode"), CASES, ids=lambda x: x if isinstance(x, str) else x.name)
def test_against_the_definition(check: Check, mode: str, launches: list[str]) -> None:
    """In float64, of the same numbers; counts and places are exact."""
    for shape in check.small:
        errors = compare(check, operands(check, shape, "cpu", TYPES[mode]))
        assert max(errors.values()) <= TOLERANCE[TYPES[mode]], errors
    if check.kernel in ("peaks", "slides", "coincidence"):
        assert max(errors.values()) == 0
    assert launches


def test_two_calls_agree_bit_for_bit() -> None:
    for check in OURS:
        values = operands(check, check.small[0], "cpu", torch.float32)
        for a, b in zip(check.function(*values), check.function(*values)):
            assert torch.equal(a, b)


def test_an_index_outside_a_bank_is_nan_and_reads_nothing() -> None:
    """On a GPU nobody looks at the indices; here the launcher is called, since the public function does look."""
    from mma_realtime.kernels.inject.rows import inject_rows

    at, one = torch.tensor([0, 3, -1, 0, 0]), torch.ones(5)
    zero = torch.zeros(5, dtype=torch.int64)
    signal = torch.tensor([0, 0, 0, 7, 7])
    out = inject_rows(
        torch.ones(3, 8), torch.ones(2, 4), None, at, zero, one, signal, zero, torch.tensor([1.0, 1, 1, 1, 0]), one,
        None, None, None, 6,
    )  # fmt: skip
    assert out.isnan().tolist() == [[False] * 6, [True] * 6, [True] * 6, [True] * 6, [False] * 6]
    assert out[0].tolist() == [2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("span", [1, 3, 24])
def test_clusters_over_any_number_of_spans(span: int, monkeypatch: pytest.MonkeyPatch, launches: list[str]) -> None:
    """Against the definition: clusters that end with a span, that cover several, spans with none."""
    monkeypatch.setattr(slides_triton, "SHORTEST", span)
    monkeypatch.setattr(slides_triton, "PROGRAMS", 10**6)
    s1, s2 = ((normal(24, seed=seed) * 8).round() / 8 for seed in (1, 2))
    valid = normal(24, seed=3) > -1.5
    shifts, edges = torch.tensor([0, 1, 17, 23]), torch.tensor([-1.0, 0, 0.5, 1, 2, 2.5])
    for threshold, gap in ((0.5, 3.0), (-1.0, 1.5), (2.0, 9.0), (-INF, 2.0), (50.0, 2.0)):
        got = slide_hist(s1, s2, shifts, edges, threshold, gap, valid, None, maxima=True)
        exact = reference.slide_hist(s1.double(), s2.double(), shifts, edges.double(), threshold, gap, valid, None,
                                     maxima=True)  # fmt: skip
        for name, a, b in zip(got._fields, got, exact):
            assert torch.equal(a.double(), b.double()), (name, threshold, gap)
    assert launches.count("span_kernel") == launches.count("join_kernel") == 9  # no second walk for no cluster


def test_golden_slides_of_triggers(launches: list[str]) -> None:
    """A few slides of the golden file: float32 statistics, float64 times."""
    golden = np.load(GOLDEN / "time_slides.npz", allow_pickle=False)
    v = {k: torch.from_numpy(np.atleast_1d(golden[k])) for k in golden.files}
    some = torch.tensor([0, 1, 77, 200])
    got = coinc_count(
        v["t1"], v["s1"].float(), v["t2"], v["s2"].float(), some * v["step"], v["livetime"].item(), v["window"].item(),
        v["hist_edges"].float(), sums=True,
    )  # fmt: skip
    assert launches == ["coincidence_kernel"] * 2
    assert torch.equal(got.pairs, v["coinc_count"][some])
    loudest = got.loudest.double().masked_fill(got.loudest.isneginf(), -1)
    torch.testing.assert_close(loudest, v["max_stat"][some], rtol=1e-6, atol=0)
    assert got.sums is not None
    assert len(got.sums) == got.pairs.sum() == got.hist.sum()
    assert torch.equal(got.sums, got.sums.sort().values)


def test_peaks_of_a_broken_series() -> None:
    """A NaN spoils its bin and no other, and is not counted; the first of equals is taken."""
    z = torch.tensor([[3 + 4j, 1, 3 + 4j, complex("nan"), 9, 1, 5, 0, -5j]], dtype=torch.complex64)
    for function in (peak_reduce, reference.peak_reduce):
        power, sample, count = function(z, 3, 4.0)
        assert power.nan_to_num(-1).tolist() == [[25, -1, 25]]
        assert sample[0, ::2].tolist() == [0, 6]
        assert count.tolist() == [[2, 1, 2]]


def test_the_first_of_equal_peaks_in_a_bin_of_several_tiles() -> None:
    z = torch.zeros(1, 2900, dtype=torch.complex64)
    z[0, [40, 1300, 2000, 2899]] = torch.tensor([2, 2j, 1, -1], dtype=torch.complex64)
    got = peak_reduce(z, 1500, 1.5)
    assert got.sample.tolist() == [[40, 2000]]
    assert got.power.tolist() == [[4, 1]]
    assert got.loud.tolist() == [[2, 0]]


def test_what_is_left_to_pytorch(launches: list[str]) -> None:
    """float64 and nothing."""
    one = torch.ones(2, 1)
    zero = torch.zeros(2, 1, dtype=torch.int64)
    for dtype, rows, length in ((torch.float64, 2, 5), (torch.float32, 0, 5), (torch.float32, 2, 0)):
        w, z = one[:rows], zero[:rows]
        bank = torch.ones(1, 9, dtype=dtype)
        assert fused_inject(bank, z, z, w, bank, z, z, w, w, length).shape == (rows, 1, length)
    assert peak_reduce(torch.ones(1, 4, dtype=torch.complex128), 2, 1.0).power.dtype is torch.float64
    assert peak_reduce(torch.ones(0, 4, dtype=torch.complex64), 2, 1.0).power.shape == (0, 2)
    s, k, edges = normal(5), torch.tensor([1]), torch.tensor([0.0, 1])
    assert slide_hist(s.double(), s.double(), k, edges, 0.0, 2.0).loudest.dtype is torch.float64
    assert slide_hist(s[:0], s[:0], k, edges, 0.0, 2.0, maxima=True).clusters.tolist() == [0]
    assert slide_hist(s, s, k[:0], edges, 0.0, 2.0).hist.tolist() == [0]
    t = torch.arange(5).double()
    assert coinc_count(t, s.double(), t, s.double(), t[:1], 9.0, 0.1, edges).pairs.tolist() == [5]
    assert coinc_count(t[:0], s[:0], t, s, t[:1], 9.0, 0.1, edges, sums=True).pairs.tolist() == [0]
    assert launches == []


def test_opcheck() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    ops = torch.ops.mma_realtime
    i, x = torch.tensor([0, 1, 0]), torch.tensor([1.0, 0, 2])
    s, t, k = normal(9), torch.arange(9).double(), torch.tensor([0, 4])
    edges = torch.tensor([0.0, 1, 2])
    for operator, args in (
        (ops.fused_inject, (normal(2, 9), normal(2, 7), None, i, i, x, i, i, x, x, None, None, None, 5)),
        (ops.fused_inject, (normal(2, 9), normal(2, 7), normal(2, 3), i, i, x, i, i, x, x, i, i, x, 5)),
        (ops.peak_reduce, (torch.complex(normal(2, 9), normal(2, 9)), 4, 1.0)),
        (ops.slide_hist, (s, s, k, edges, 0.5, 2)),
        (ops.slide_maxima, (s, s, k, edges, -INF, 2, 2)),
        (ops.coinc_count, (t, s, t, s, k.double(), 9.0, 0.1, edges)),
        (ops.coinc_sums, (t, s, t, s, k.double(), 9.0, 0.1, edges, 18)),
    ):
        assert set(torch.library.opcheck(operator.default, args).values()) == {"SUCCESS"}


def test_compile_fullgraph() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False
    check = next(c for c in CHECKS if c.kernel == "inject")
    values = operands(check, check.small[1], "cpu", torch.float32)
    compiled = torch.compile(fused_inject, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*values), fused_inject(*values), rtol=0, atol=0)
