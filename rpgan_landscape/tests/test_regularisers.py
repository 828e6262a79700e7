"""Gradient penalties against closed forms: a linear and a quadratic critic, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rpgan_landscape.regularisers import RegulariserError, r1, r1_r2, r2, wgan_gp
from torch import Tensor


def images(n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 2, 2, generator=g, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def w() -> Tensor:
    return torch.linspace(-1, 2, 12, dtype=torch.float64).requires_grad_()


def linear(x: Tensor, w: Tensor) -> Tensor:
    """D(x) = w . x, gradient w."""
    return x.flatten(1) @ w[:, None]


def quadratic(x: Tensor, w: Tensor) -> Tensor:
    """D(x) = 1/2 sum_j w_j x_j^2, gradient w * x."""
    return (x.flatten(1).square() @ w[:, None]) / 2


def test_linear_critic(w: Tensor) -> None:
    """gamma/2 |w|^2, a sum over pixels whatever the batch, with gradient gamma w."""
    x = images(5, 0)
    value = r1(linear(x, w), x, gamma=3.0)
    assert value.item() == pytest.approx(1.5 * w.detach().square().sum().item(), rel=1e-14)
    torch.testing.assert_close(torch.autograd.grad(value, w)[0], 3 * w)
    assert r2 is r1


def test_quadratic_critic(w: Tensor) -> None:
    """gamma/2 mean_i |w x_i|^2, with gradients gamma w mean x^2 and gamma w^2 x_i / n."""
    x = images(5, 0)
    value = r1(quadratic(x, w), x, gamma=0.7)
    flat = x.flatten(1)
    assert value.item() == pytest.approx(0.35 * (w * flat).square().sum(1).mean().item(), rel=1e-14)
    dw, dx = torch.autograd.grad(value, [w, x])
    torch.testing.assert_close(dw, 0.7 * w * flat.square().mean(0))
    torch.testing.assert_close(dx.flatten(1), 0.7 * w.square() * flat / 5)


def test_both_in_one_pass(w: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches may differ in size; each penalty is its own, and the critic is differentiated once."""
    real, fake = images(5, 0), images(3, 1)
    r, f = quadratic(real, w), quadratic(fake, w)
    separate = [r1(r, real, 2.0).item(), r2(f, fake, 0.5).item()]
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(a) or grad(*a, **k))
    together = r1_r2(r, real, f, fake, (2.0, 0.5))
    assert len(calls) == 1
    assert together.tolist() == pytest.approx(separate, rel=1e-14)
    torch.testing.assert_close(r1_r2(r, real, f, fake, 2.0), together * torch.tensor([1.0, 4.0]))


def test_gradients_of_the_penalties() -> None:
    """Double backward through a critic with a non-linear layer, by finite differences."""
    x, y = images(2, 0), images(2, 1)
    g = torch.Generator().manual_seed(2)
    u = torch.randn(12, 4, generator=g, dtype=torch.float64, requires_grad=True)
    mix = torch.tensor([0.3, 0.8], dtype=torch.float64)

    def critic(x: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ u).square().sum(1)

    assert torch.autograd.gradcheck(lambda x, y, u: r1_r2(critic(x, u), x, critic(y, u), y, (2.0, 3.0)), (x, y, u))
    assert torch.autograd.gradcheck(lambda u: wgan_gp(lambda s: critic(s, u), x, y, 10.0, mix), (u,))


def test_wgan_gp(w: Tensor) -> None:
    """lambda (|w| - 1)^2 for the linear critic; lambda mean (|w x_i| - 1)^2 at the mixed points for the quadratic."""
    real, fake = images(4, 0).detach(), images(4, 1).detach()
    expected = 10 * (w.detach().norm() - 1) ** 2
    assert wgan_gp(lambda x: linear(x, w), real, fake).item() == pytest.approx(expected.item(), rel=1e-14)
    mix = torch.tensor([0.0, 1.0, 0.25, 0.5], dtype=torch.float64)
    x = (mix[:, None] * real.flatten(1) + (1 - mix[:, None]) * fake.flatten(1)) * w.detach()
    value = wgan_gp(lambda s: quadratic(s, w), real, fake, 2.0, mix)
    assert value.item() == pytest.approx(2 * (x.norm(dim=1) - 1).square().mean().item(), rel=1e-14)


def test_wgan_gp_mixes_at_random(w: Tensor) -> None:
    """Each sample at a point of its own on the line from fake to real."""
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return linear(x, w)

    torch.manual_seed(0)
    wgan_gp(critic, torch.ones(50, 12, dtype=torch.float64), torch.zeros(50, 12, dtype=torch.float64))
    x = seen[0]
    assert (x == x[:, :1]).all()
    assert x.min() >= 0
    assert x.max() <= 1
    assert x[:, 0].std() > 0.2


def test_a_flat_critic_has_a_finite_penalty() -> None:
    zero = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    real, fake = images(2, 0).detach(), images(2, 1).detach()
    value = wgan_gp(lambda x: linear(x, zero), real, fake)
    assert value.item() == pytest.approx(10)
    assert torch.autograd.grad(value, zero)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_of_sixteen_bit_gradients(dtype: torch.dtype) -> None:
    """|w|^2 = 1e5 overflows float16."""
    w = torch.full((10,), 100.0, dtype=dtype)
    x = torch.ones(2, 10, dtype=dtype, requires_grad=True)
    value = r1((x * w).sum(1), x, gamma=2.0)
    assert value.dtype is torch.float32
    assert value.item() == pytest.approx(1e5)


def test_samples_that_need_gradients(w: Tensor) -> None:
    x = images(2, 0).detach()
    message = r"call samples.requires_grad_\(\) before the critic"
    for wrong in (lambda: r1(linear(x, w), x, 1.0), lambda: r1(linear(images(2, 0), w), images(2, 0), 1.0)):
        with pytest.raises(RegulariserError, match=message):
            wrong()
    late = linear(x, w)
    with pytest.raises(ValueError, match=message):
        r1_r2(late, x.clone().requires_grad_(), late, x, 1.0)
    with pytest.raises(ValueError, match=r"shapes \(2, 3, 2, 2\) and \(3, 3, 2, 2\)"):
        wgan_gp(lambda s: linear(s, w), x, images(3, 1).detach())


def test_a_critic_that_fails_says_so_itself(w: Tensor) -> None:
    """Errors of the backward pass are not taken for missing gradients."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.sum()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            raise RuntimeError("out of paper")

    x = images(2, 0)
    with pytest.raises(RuntimeError, match="out of paper"):
        r1(Broken.apply(x), x, 1.0)
