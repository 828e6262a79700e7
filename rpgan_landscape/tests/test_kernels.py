"""State enumeration against closed forms; the collection of kernels; starts the interpreter's tests."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from rpgan_landscape.kernels.checks import CHECKS
from rpgan_landscape.kernels.enumerate_states import codes, enumerate_states
from rpgan_landscape.landscape import analyse, value
from shared.errors import UserError
from shared.kernels.build import kernel_modules, listed
from shared.kernels.interpreted import assert_passes, run_python


def test_triton_kernels_in_the_interpreter() -> None:
    assert_passes(Path(__file__).with_name("kernels_interpreted.py"))


def test_the_checks_need_nothing_but_pytorch() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['jaxtyping'] = None\n"
        "from rpgan_landscape.kernels.checks import CHECKS\n"
        "from shared.kernels.harness import compare, draw\n"
        "import torch\n"
        "for c in CHECKS: assert max(compare(c, draw(c, c.small[0], 'cpu', torch.float32)).values()) < 1e-4, c.name\n"
        "bad = {'lightning', 'pytorch_lightning', 'wandb', 'rich'} & set(sys.modules)\n"
        "print('done', bad)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "done set()", done.stderr


def test_every_folder_is_checked_and_compiled() -> None:
    folders = {module.split(".")[-2] for module in kernel_modules("rpgan_landscape")}
    assert folders == {check.kernel for check in CHECKS} == {
        "allpairs_relativistic", "enumerate_states", "population_train",
    }  # fmt: skip
    assert all(listed(module) for module in kernel_modules("rpgan_landscape"))


@pytest.mark.parametrize("n", range(1, 7))
def test_counts_are_the_closed_forms(n: int) -> None:
    """Section 3: n!/(n-c)! (c + 1) (n + 1)^(n-c-1) states have c cyclic nodes; on data n!/(n-c)! c n^(n-c-1)."""
    found = enumerate_states(n)
    falling = [math.perm(n, c) for c in range(n + 1)]
    assert found.cycles == [round(falling[c] * (c + 1) * (n + 1.0) ** (n - c - 1)) for c in range(n + 1)]
    assert found.cycles_on_data == [round(falling[c] * c * float(n) ** (n - c - 1)) for c in range(n + 1)]
    for multiplicities, count in found.occupancy.items():
        outside = n - sum(multiplicities)
        arrangements = math.factorial(n) // math.prod(map(math.factorial, (*multiplicities, outside)))
        repeats = math.prod(map(math.factorial, Counter(multiplicities).values()))
        assert count == arrangements * math.perm(n, len(multiplicities)) // repeats


def test_histograms_of_values_follow_from_the_counts() -> None:
    """The exact analyser's own enumeration, by another way."""
    n = 5
    found = enumerate_states(n)
    by_value: Counter[float] = Counter()
    for multiplicities, count in found.occupancy.items():
        state = [k for k, m in enumerate(multiplicities) for _ in range(m)] + [n] * (n - sum(multiplicities))
        by_value[round(value("js", tuple(state)), 9)] += count
    assert by_value == {round(g, 9): count for g, count in analyse("js", n).hist_all.items()}
    by_cycles = {-round(math.log(2) * c / n, 9) + 0.0: count for c, count in enumerate(found.cycles)}
    assert by_cycles == {round(g, 9) + 0.0: count for g, count in analyse("rs", n).hist_all.items()}


def test_occupancies_are_numbered_without_collision() -> None:
    for n in range(1, codes.MOST + 1):
        every = {tuple(sorted((c for c in counts if c), reverse=True)) for counts in product(range(n + 1), repeat=n)
                 if sum(counts) <= n} if n <= 5 else None  # fmt: skip
        listed_ones = codes.occupancies(n)
        assert every is None or every == set(listed_ones)
        assert len({codes.code(m, *codes.weights(n)) for m in listed_ones}) == len(listed_ones)


def test_too_many_points_for_this_machine() -> None:
    with pytest.raises(UserError, match="n is 9: states are enumerated for n = 1 to 8 on a CPU; on a GPU up to 9"):
        enumerate_states(9, "cpu")
    with pytest.raises(UserError, match="n is 0"):
        enumerate_states(0)
