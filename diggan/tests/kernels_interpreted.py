"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: see `shared.kernels.interpreted`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diggan.kernels.checks import CHECKS
from diggan.kernels.fused_diffaugment import Draws, draw, fused_diffaugment
from diggan.kernels.fused_diffaugment import check as diffaugment_check
from diggan.kernels.fused_diffaugment import reference as diffaugment_reference
from diggan.kernels.fused_diffaugment import triton as diffaugment_triton
from diggan.kernels.fused_diffaugment.maps import augment
from diggan.kernels.grad_gap import check as gap_check
from diggan.kernels.grad_gap import grad_gap
from diggan.kernels.grad_gap import reference as gap_reference
from diggan.kernels.grad_gap.gap import gap
from diggan.kernels.grouped_spectral_norm import check as spectral_check
from diggan.kernels.grouped_spectral_norm import grouped_spectral_norm
from diggan.kernels.grouped_spectral_norm import reference as spectral_reference
from diggan.kernels.grouped_spectral_norm import triton as spectral_triton
from diggan.kernels.grouped_spectral_norm.layers import normalise_layers
from shared.kernels.harness import TOLERANCE, Check, compare
from shared.kernels.harness import draw as operands

GOLDEN = np.load(Path(__file__).parent / "golden" / "diffaugment.npz", allow_pickle=False)
POLICIES = ["color", "translation", "cutout", "color,translation,cutout", "translation,cutout"]
# Any order, and operations that come twice: a blank border is coloured, a coloured image shifted out and back.
EPS = 1e-8
ORDERS = ["cutout,translation,color", "color,translation,color,cutout", "translation,cutout,translation"]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_against_the_definition(check: Check, dtype: torch.dtype) -> None:
    for shape in check.small:
        errors = compare(check, operands(check, shape, "cpu", dtype))
        assert "grad0" in errors
        assert max(errors.values()) <= TOLERANCE[dtype], errors


def golden(images: str, policy: str) -> tuple[torch.Tensor, Draws, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, draws, result, upstream gradient and gradient of the authors' code."""
    prefix = f"{images}/{policy.replace(',', '+')}"
    recorded = {n: torch.from_numpy(GOLDEN[f"{prefix}/{n}"]) for n in Draws._fields if f"{prefix}/{n}" in GOLDEN.files}
    tensors = [torch.from_numpy(GOLDEN[key]) for key in (f"{images}/x", f"{prefix}/out", f"{images}/upstream")]
    return tensors[0], Draws(**recorded), tensors[1], tensors[2], torch.from_numpy(GOLDEN[f"{prefix}/grad_x"])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("images", ["a", "b", "c"])
def test_diffaugment_is_the_authors(images: str, policy: str, launches: list[str]) -> None:
    x, draws, expected, upstream, gradient = golden(images, policy)
    x.requires_grad_()
    out = fused_diffaugment(x, policy, draws)
    assert launches == ["diffaugment_kernel"]
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    (grad,) = torch.autograd.grad((out * upstream).sum(), x)
    assert launches == ["diffaugment_kernel"] * 2
    torch.testing.assert_close(grad, gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("policy", [*POLICIES, *ORDERS])
@pytest.mark.parametrize("size", [(2, 3, 9, 12), (1, 1, 7, 5), (1, 5, 40, 31)], ids=str)
def test_diffaugment_in_any_order(policy: str, size: tuple[int, int, int, int]) -> None:
    """Value, gradient and the gradient of that, in float64 through the kernel, to the last digits."""
    generator = torch.Generator().manual_seed(0)
    x, up, again = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(3))
    drawn = draw(policy, size[0], *size[2:], generator)
    results = []
    for function in (augment, lambda x, names, drawn: diffaugment_reference.fused_diffaugment(x, policy, drawn)):
        leaf, seed = x.clone().requires_grad_(), up.clone().requires_grad_()
        out = function(leaf, policy.split(","), drawn)
        (grad,) = torch.autograd.grad(out, leaf, seed, create_graph=True)
        results.append((out.detach(), grad.detach(), *torch.autograd.grad(grad, seed, again)))
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("policy", ["color,translation,cutout", ORDERS[1]])
def test_diffaugment_by_finite_differences(policy: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    drawn = draw(policy, 2, 4, 5, generator)

    def function(x: torch.Tensor) -> torch.Tensor:
        return augment(x, policy.split(","), drawn)

    assert torch.autograd.gradcheck(function, x, fast_mode=True)
    # Quadratic in x, so that there is a second derivative.
    assert torch.autograd.gradgradcheck(lambda x: function(x * x), x, fast_mode=True)


@pytest.mark.parametrize("programs", [132, 4])
def test_diffaugment_of_a_large_image(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tiles in as many programs or in two, the last cut off; strides of a slice, transposed or channels last."""
    monkeypatch.setattr(diffaugment_triton, "PROGRAMS", programs)
    diffaugment_triton.constants.cache_clear()
    policy, generator = "color,translation,cutout", torch.Generator().manual_seed(3)
    whole = torch.randn(2, 67, 4, 70, generator=generator)[:, :, :3]
    drawn = draw(policy, 2, 67, 70, generator)
    for x in (whole.transpose(1, 2), whole.transpose(1, 2).contiguous(memory_format=torch.channels_last)):
        assert not x.is_contiguous()
        expected = diffaugment_reference.fused_diffaugment(x.double(), policy, drawn)
        torch.testing.assert_close(fused_diffaugment(x, policy, drawn).double(), expected, rtol=1e-5, atol=1e-5)
    diffaugment_triton.constants.cache_clear()


def test_a_hole_beyond_the_border_covers_the_edge() -> None:
    """Offsets further out than any that `draw` gives."""
    x, far = torch.ones(4, 2, 9, 6), torch.tensor([-20, 20, 4, -3])
    draws = Draws(offset_h=far, offset_w=far.flip(0))
    out = fused_diffaugment(x, "cutout", draws)
    assert torch.equal(out, diffaugment_reference.fused_diffaugment(x, "cutout", draws))
    assert ((out == 0).sum((1, 2, 3)) > 0).all()


def test_diffaugment_opcheck() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    drawn = draw("color,cutout", 2, 4, 4, torch.Generator().manual_seed(0))
    for part in ("map", "linear", "adjoint"):
        x = torch.randn(2, 3, 4, 4, requires_grad=True)
        outcome = torch.library.opcheck(torch.ops.diggan.diffaugment.default, (x, *drawn, "color,cutout", part))
        assert set(outcome.values()) == {"SUCCESS"}


def test_diffaugment_of_no_image_and_of_no_policy(launches: list[str]) -> None:
    x = torch.randn(2, 3, 4, 4)
    assert fused_diffaugment(x, "", Draws()) is x
    drawn = draw("color", 0, 4, 4, torch.Generator())
    assert fused_diffaugment(x[:0], "color", drawn).shape == (0, 3, 4, 4)
    with pytest.raises(ValueError, match="shift_h is missing"):
        fused_diffaugment(x, "translation", Draws())
    with pytest.raises(ValueError, match=r"draws.shift_h has shape \(3,\) for 2 images"):
        fused_diffaugment(x, "translation", draw("translation", 3, 4, 4, torch.Generator()))
    fused_diffaugment(x.double(), "color", draw("color", 2, 4, 4, torch.Generator()))
    assert launches == []


def test_diffaugment_plan() -> None:
    """Section 7.1 expects of the chain of operations some 30 launches and 15 passes over the images."""
    plan = diffaugment_check.plan(N=100, C=3, H=32, W=32)
    assert plan["launches"] == 1
    assert 2 * 100 * 12288 <= plan["bytes"] <= 2 * 100 * 12288 * 1.01
    assert plan["eager_launches"] >= 30
    assert plan["eager_bytes"] >= 10 * plan["bytes"]


def layers(dtype: torch.dtype, *shapes: tuple[int, ...]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Weights and a u of each."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return weights, [torch.randn(1, shape[0], generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


SHAPES = [(6, 3, 3, 3), (1, 7), (5, 6, 1, 1), (9, 4)]


def test_spectral_norm_is_the_sequence_of_the_definition(launches: list[str]) -> None:
    """Three calls in a row, each from the u of the last; u itself is left alone."""
    weights, us = layers(torch.float32, *SHAPES)
    before, exact, wide = [u.clone() for u in us], [u.double() for u in us], [w.double() for w in weights]
    for _ in range(3):
        normalised, sigma, new = grouped_spectral_norm(weights, us, EPS)
        expected = spectral_reference.grouped_spectral_norm(wide, exact, EPS)
        for got, wanted in zip((normalised, sigma, new), expected):
            for a, b in zip(got, wanted, strict=True):
                torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
                assert a.dtype is torch.float32
        assert all(torch.equal(u, b) for u, b in zip(us, before))
        us, exact, before = new, expected[2], [u.clone() for u in new]
    assert launches == ["left_kernel", "right_kernel", "scale_kernel"] * 3


def test_spectral_norm_in_every_derivative(launches: list[str]) -> None:
    """In float64 through the kernels, against autograd of the definition: both outputs, first and second derivatives.

    The second layer's sigma and the third layer's weight are not used.
    """
    weights, us = layers(torch.float64, *SHAPES)
    seeds = [torch.randn_like(w) for w in weights]
    results = []
    for function in (normalise_layers, spectral_reference.grouped_spectral_norm):
        leaves = [w.clone().requires_grad_() for w in weights]
        normalised, sigma, new = function(leaves, us, EPS)
        assert not any(u.requires_grad for u in new)
        loss = sum((s * n.pow(3)).sum() for s, n in zip(seeds[:2], normalised[:2]))
        loss = (
            loss
            + (seeds[3] * normalised[3]).exp().sum()
            + sigma[0].square().sum()
            + sigma[2].sum()
            + sigma[3].cos().sum()
        )
        grads = torch.autograd.grad(loss, leaves, create_graph=True)
        if function is normalise_layers:
            assert launches == ["left_kernel", "right_kernel", "scale_kernel", "dot_kernel", "gradient_kernel"]
        bent = sum((g.square() * s).sum() for g, s in zip(grads, seeds))
        second = torch.autograd.grad(bent, leaves, create_graph=True, materialize_grads=True)
        third = torch.autograd.grad(sum(s.square().sum() for s in second), leaves, materialize_grads=True)
        results.append([*normalised, *sigma, *new, *grads, *second, *third])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_spectral_norm_by_finite_differences() -> None:
    weights, us = layers(torch.float64, (3, 2, 2), (2, 5))

    def function(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """u and v are constants: with the u of convergence sigma is the norm, whose derivative is u v^T."""
        normalised, sigma, _ = normalise_layers([first, second], us, EPS)
        return *normalised, *sigma

    for _ in range(200):
        us = spectral_reference.grouped_spectral_norm(weights, us, EPS)[2]
    leaves = [w.requires_grad_() for w in weights]
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


def test_spectral_norm_of_tall_wide_and_strided_layers() -> None:
    """A matrix of several splits, one of several column blocks; channels last, a slice, transposed."""
    generator = torch.Generator().manual_seed(1)
    pool = torch.randn(4000, generator=generator)
    weights = [
        torch.randn(6, 5, 3, 3, generator=generator).contiguous(memory_format=torch.channels_last),
        pool[1:2098].view(3, 699),
        torch.randn(7, 4, generator=generator).T,
        torch.randn(spectral_triton.SPLIT + 3, 2, generator=generator),
    ]
    us = [torch.randn(1, len(w), generator=generator) for w in weights]
    leaves = [w.requires_grad_() for w in weights]
    exact = [w.detach().double().requires_grad_() for w in weights]
    ours = grouped_spectral_norm(leaves, us, EPS)
    expected = spectral_reference.grouped_spectral_norm(exact, [u.double() for u in us], EPS)
    seeds = [torch.randn(w.shape, generator=generator).transpose(0, -1).contiguous().transpose(0, -1) for w in weights]
    mine = torch.autograd.grad(ours[0], leaves, seeds)
    true = torch.autograd.grad(expected[0], exact, [s.double() for s in seeds])
    for a, b in zip(
        [*ours[0], *ours[1], *ours[2], *mine], [*expected[0], *expected[1], *expected[2], *true], strict=True
    ):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


def test_spectral_norm_of_zero_weights_is_that_of_the_definition() -> None:
    """0 / 0, but u and v are zero: the eps is that of a norm."""
    for weight, u in ((torch.zeros(2, 3), torch.ones(1, 2)), (torch.full((2, 3), 1e-6), torch.ones(1, 2))):
        for ours, expected in zip(
            grouped_spectral_norm([weight], [u], 1e-4), spectral_reference.grouped_spectral_norm([weight], [u], 1e-4)
        ):
            torch.testing.assert_close(ours, expected, equal_nan=True)


def test_spectral_norm_falls_back(launches: list[str]) -> None:
    weights, us = layers(torch.float64, (2, 3), (4, 2))
    grouped_spectral_norm(weights, us, EPS)
    mixed = [weights[0].float(), weights[1]], [us[0].float(), us[1]]
    assert grouped_spectral_norm(*mixed, EPS)[0][0].dtype is torch.float32
    assert grouped_spectral_norm([], [], EPS) == ([], [], [])
    assert grouped_spectral_norm([torch.zeros(0, 3)], [torch.zeros(1, 0)], EPS)[1][0].tolist() == [0.0]
    assert launches == []
    with pytest.raises(ValueError, match=r"layer 1 has 4 outputs and a u of shape \(1, 3\)"):
        grouped_spectral_norm([w.float() for w in weights], [us[0].float(), torch.ones(1, 3)], EPS)


def test_spectral_norm_is_bit_identical_and_opcheck() -> None:
    weights, us = layers(torch.float32, *SHAPES)
    first, second = (grouped_spectral_norm(weights, us, EPS) for _ in range(2))
    assert all(torch.equal(a, b) for x, y in zip(first, second) for a, b in zip(x, y))
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    weights, us = layers(torch.float32, (3, 2), (2, 2, 2))
    for w in weights:
        w.requires_grad_()
    outcome = torch.library.opcheck(torch.ops.diggan.spectral_norm.default, (weights, us, EPS))
    assert set(outcome.values()) == {"SUCCESS"}
    grads = [torch.randn(w.shape, requires_grad=True) for w in weights]
    constants = torch.ones(2), torch.ones(5), torch.ones(6)
    args = (grads, weights, torch.ones(2, requires_grad=True), *constants)
    outcome = torch.library.opcheck(torch.ops.diggan.spectral_norm_backward.default, args)
    assert set(outcome.values()) == {"SUCCESS"}


def test_spectral_norm_plan() -> None:
    """The discriminator of section 4 at 64 channels: 12 layers, 4.2 million entries."""
    w = 256
    convs = [(w, 3, 3, 3), *[(w, w, 3, 3)] * 7, (w, 3, 1, 1), (w, w, 1, 1)]
    plan = spectral_check.plan([*convs, (1, w), (10, w)])
    entries = 7 * 9 * w * w + w * w + w * 30 + 11 * w
    assert plan["launches"] == 3
    assert 16 * entries <= plan["bytes"] <= 16.5 * entries
    assert plan["eager_launches"] >= 10 * 12


def gradients(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Gradients of samples, the second and the last of them zero."""
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g[1], g[-1] = 0, 0
    return g.to(dtype)


STATE = torch.tensor([0.5, 2.0, 0.0, 3.0, 1.0, 4.0], dtype=torch.float64)


@pytest.mark.parametrize("state", [None, STATE], ids=["first", "smoothed"])
@pytest.mark.parametrize("uses", ["penalty", "norms", "both"])
def test_grad_gap_in_every_derivative(state: torch.Tensor | None, uses: str) -> None:
    """In float64 through the kernels, against autograd of the definition, up to the third derivative: rows of zero."""
    results = []
    for function in (gap, gap_reference.grad_gap):
        g = gradients(torch.float64, 6, 2, 3).requires_grad_()
        penalty, n, s = function(g, state, 0.25)
        assert not s.requires_grad
        loss = torch.zeros(())
        if uses != "norms":
            loss = loss + penalty.square() / 2
        if uses != "penalty":
            loss = loss + (n.pow(3) * torch.arange(6)).sum()
        (first,) = torch.autograd.grad(loss, g, create_graph=True)
        (second,) = torch.autograd.grad((first.square() * torch.arange(1, 4)).sum(), g, create_graph=True)
        (third,) = torch.autograd.grad(second.pow(3).sum(), g)
        results.append((penalty, n, s, first, second, third))
        assert all(x.isfinite().all() for x in results[-1])
        assert not first[1].any()
        assert not second[-1].any()
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_grad_gap_by_finite_differences() -> None:
    g = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)

    def function(g: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return gap(g, STATE[:4], 0.5)[:2]

    assert torch.autograd.gradcheck(function, g, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, g, fast_mode=True)


def test_grad_gap_reaches_the_weights_of_a_discriminator(launches: list[str]) -> None:
    """The penalty's gradient through the gradient of D's outputs by its input, as in training; weights normalised."""
    generator = torch.Generator().manual_seed(4)
    draws, x = Draws(offset_h=torch.tensor([0, 1]), offset_w=torch.tensor([2, 0])), torch.randn(2, 1, 3, 3)
    results = []
    for dtype, augmented, normalised, penalised in (
        (torch.float32, fused_diffaugment, grouped_spectral_norm, grad_gap),
        (torch.float64, diffaugment_reference.fused_diffaugment, spectral_reference.grouped_spectral_norm,
         gap_reference.grad_gap),
    ):  # fmt: skip
        generator.manual_seed(4)
        weights = [torch.randn(size, generator=generator).to(dtype).requires_grad_() for size in ((5, 9), (1, 5))]
        us = [torch.ones(1, len(w), dtype=dtype) for w in weights]
        images = x.to(dtype).requires_grad_()
        (first, second), _, _ = normalised(weights, us, EPS)
        out = torch.tanh(augmented(images, "cutout", draws).flatten(1) @ first.T) @ second.T
        (g,) = torch.autograd.grad(out.sum(), images, create_graph=True)
        penalty, _, _ = penalised(g, None, 0.5)
        results.append([penalty, *torch.autograd.grad(penalty, weights)])
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-6)
    assert set(launches) == {
        "diffaugment_kernel", "left_kernel", "right_kernel", "scale_kernel", "dot_kernel", "norms_kernel", "gap_kernel",
        "gradient_kernel",
    }  # fmt: skip


def test_grad_gap_of_strided_gradients(launches: list[str]) -> None:
    """Every second channel of a tensor, channels last, and a state that is every second entry of another."""
    spread = torch.full((6, 6, 5, 7), float("nan"))
    spread[:, ::2] = gradients(torch.float32, 6, 3, 5, 7)
    state = torch.stack([STATE.float(), torch.full((6,), float("nan"))], 1)[:, 0]
    for g in (spread[:, ::2], spread[:, ::2].contiguous(memory_format=torch.channels_last)):
        leaf, exact = g.detach().requires_grad_(), g.double().requires_grad_()
        assert not leaf.is_contiguous()
        ours, expected = grad_gap(leaf, state, 0.5), gap_reference.grad_gap(exact, STATE, 0.5)
        for a, b in zip(ours, expected):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
        mine, true = torch.autograd.grad(ours[0], leaf)[0], torch.autograd.grad(expected[0], exact)[0]
        torch.testing.assert_close(mine.double(), true, rtol=1e-5, atol=1e-6)
    assert launches == ["norms_kernel", "gap_kernel", "gradient_kernel"] * 2


def test_grad_gap_takes_pairs_only(launches: list[str]) -> None:
    with pytest.raises(ValueError, match="3 samples: there are as many fakes as reals"):
        grad_gap(torch.ones(3, 2), None, 0.5)
    with pytest.raises(ValueError, match=r"state has shape \(4,\) for 2 samples"):
        grad_gap(torch.ones(2, 2), torch.ones(4), 0.5)
    grad_gap(gradients(torch.float64, 6, 2), STATE, 0.5)
    penalty, n, _ = grad_gap(torch.zeros(4, 0), None, 0.5)
    assert (penalty.item(), n.tolist(), launches) == (0.0, [0.0] * 4, [])
    many = torch.randn(2 * 300, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grad_gap(many, None, 0.5), gap_reference.grad_gap(many, None, 0.5))


def test_grad_gap_opcheck() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # fake results are compared by shape, never by value
    g, n = gradients(torch.float32, 4, 3).requires_grad_(), torch.ones(4)
    for state in (None, n):
        outcome = torch.library.opcheck(torch.ops.diggan.grad_gap.default, (g, state, 0.5))
        assert set(outcome.values()) == {"SUCCESS"}
    for given in ((torch.ones((), requires_grad=True), None), (None, torch.ones(4, requires_grad=True))):
        outcome = torch.library.opcheck(torch.ops.diggan.grad_gap_backward.default, (g, n, n, *given, 0.5))
        assert set(outcome.values()) == {"SUCCESS"}


def test_grad_gap_plan() -> None:
    plan = gap_check.plan(B=50, D=3072)
    assert plan["launches"] == 2
    assert 4 * 100 * 3072 <= plan["bytes"] <= 4.01 * 100 * 3072
    assert plan["eager_launches"] >= 10


def test_compile_fullgraph() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False
    draws = Draws(shift_h=torch.tensor([1, 0]), shift_w=torch.tensor([-1, 1]))
    x, w = torch.randn(2, 1, 4, 4, requires_grad=True), torch.randn(3, 16, requires_grad=True)

    def loss(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        (normalised,), _, _ = grouped_spectral_norm([w], [torch.ones(1, 3)], EPS)
        penalty, _, _ = grad_gap(fused_diffaugment(x, "translation", draws).flatten(1) @ normalised.T, None, 0.5)
        return penalty

    plain, compiled = loss(x, w), torch.compile(loss, fullgraph=True, backend="aot_eager")(x, w)
    torch.testing.assert_close(compiled, plain)
    for a, b in zip(torch.autograd.grad(compiled, [x, w]), torch.autograd.grad(plain, [x, w])):
        torch.testing.assert_close(a, b)
