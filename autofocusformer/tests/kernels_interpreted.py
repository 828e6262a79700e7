"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: see `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from autofocusformer.kernels.checks import CHECKS
from autofocusformer.kernels.cluster_attention import check as attention_check
from autofocusformer.kernels.cluster_attention import cluster_attention
from autofocusformer.kernels.cluster_attention import reference as attention_reference
from autofocusformer.kernels.nearest_clusters import nearest_clusters
from autofocusformer.kernels.nearest_clusters import reference as nearest_reference
from autofocusformer.kernels.point_merge import check as merge_check
from autofocusformer.kernels.point_merge import point_merge
from autofocusformer.kernels.point_ops import qk
from shared.kernels.harness import TOLERANCE, Check, compare, draw

EMPTY = torch.empty


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""

    def empty(*args: object, **kwargs: object) -> torch.Tensor:
        x = EMPTY(*args, **kwargs)  # type: ignore[call-overload]
        return x.fill_(float("nan")) if x.is_floating_point() else x

    # PyTorch's own switch for this is for deterministic mode only, in which some of the kernels do not run.
    torch.empty = empty
    assert torch.empty(3).isnan().all()
    yield
    torch.empty = EMPTY


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_against_the_definition(check: Check, launches: list[str]) -> None:
    for shape in check.small:
        errors = compare(check, draw(check, shape, "cpu", torch.float32))
        assert max(errors.values()) <= TOLERANCE[torch.float32], errors
        assert ("grad0" in errors) == check.gradients
    assert launches


@pytest.mark.parametrize("check", [c for c in CHECKS if c.gradients], ids=lambda check: check.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_16_bits(check: Check, dtype: torch.dtype) -> None:
    errors = compare(check, draw(check, check.small[0], "cpu", dtype))
    assert max(errors.values()) <= TOLERANCE[dtype], errors


def test_attention_of_any_strides_and_twice_the_same() -> None:
    """Heads behind tokens, keys and values interleaved, as the network has them; two calls agree bit for bit."""
    shape = {"B": 1, "n": 20, "H": 2, "e": 16, "m": 8, "nnc": 2}
    q, k, v, *rest = draw(attention_check.CHECK, shape, "cpu", torch.float32)
    kv = torch.stack([k, v], 3).permute(0, 2, 1, 3, 4).contiguous()
    results = []
    for _ in range(2):
        leaves = [q.transpose(1, 2).contiguous().requires_grad_(), kv.clone().requires_grad_()]
        keys, values = leaves[1].permute(3, 0, 2, 1, 4)
        out = cluster_attention(leaves[0].transpose(1, 2), keys, values, *rest)
        results.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*results))
    torch.testing.assert_close(
        results[0][0], attention_reference.cluster_attention(q, k, v, *rest), rtol=1e-5, atol=1e-5
    )


def test_attention_with_strong_logits_does_not_overflow() -> None:
    shape = {"B": 1, "n": 18, "H": 1, "e": 16, "m": 8, "nnc": 2}
    q, *rest = draw(attention_check.CHECK, shape, "cpu", torch.float32)
    q = 60 * q
    torch.testing.assert_close(
        cluster_attention(q, *rest), attention_reference.cluster_attention(q, *rest), rtol=1e-4, atol=1e-4
    )


def test_nearest_clusters_over_several_chunks_and_tiles(launches: list[str]) -> None:
    """A grid, where distances tie everywhere; 150 centres are two chunks, 40 tokens two tiles."""
    y, x = torch.meshgrid(torch.arange(10), torch.arange(15), indexing="ij")
    centres = torch.stack([x, y], -1).view(1, -1, 2).double()
    positions = centres[:, 30:70].long()
    near = nearest_clusters(positions, centres, 6)
    assert torch.equal(near, nearest_reference.nearest_clusters(positions, centres, 6))
    assert launches == ["nearest_kernel"]


def test_deterministic_mode_uses_no_atomics(launches: list[str]) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        given = draw(merge_check.CHECK, merge_check.CHECK.small[1], "cpu", torch.float32)
        given[0].requires_grad_()
        point_merge(*given).sum().backward()
        assert launches == ["forward_kernel"]
        qk(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3), torch.zeros(1, 2, 2, dtype=torch.long))
        assert launches == ["forward_kernel"]
    finally:
        torch.use_deterministic_algorithms(False)
    point_merge(*given).sum().backward()
    assert launches[1:] == ["forward_kernel", "backward_kernel"]


def test_opcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", EMPTY)  # fake results are compared by shape, never by value
    shape = {"B": 1, "n": 5, "H": 1, "e": 16, "m": 4, "nnc": 1}
    given = [
        x.requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for x in draw(attention_check.CHECK, shape, "cpu", torch.float32)
    ]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    outcome = torch.library.opcheck(torch.ops.autofocusformer.cluster_attention.default, given, test_utils=tests)
    assert set(outcome.values()) == {"SUCCESS"}
    shape = {"B": 1, "n": 6, "kept": 2, "c": 3, "m": 4, "nnc": 1}
    merge = [
        x.requires_grad_() if x.is_floating_point() else x for x in draw(merge_check.CHECK, shape, "cpu", torch.float32)
    ]
    outcome = torch.library.opcheck(torch.ops.autofocusformer.point_merge.default, merge, test_utils=tests)
    assert set(outcome.values()) == {"SUCCESS"}
