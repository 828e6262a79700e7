"""K2b in plain PyTorch: the weight gradient, then the optimiser's update in place."""

from __future__ import annotations

from torch import Tensor

from ..ff_wgrad.reference import ff_wgrad


def ff_wgrad_step_(
    h_prev: Tensor, h: Tensor, w: Tensor, cr: Tensor,
    weight: Tensor, bias: Tensor, m_weight: Tensor, v_weight: Tensor, m_bias: Tensor, v_bias: Tensor,
    numbers: Tensor, rule: str,
) -> None:  # fmt: skip
    gradients = ff_wgrad(h_prev, h, w, cr)
    for parameter, gradient, m, v in zip((weight, bias), gradients, (m_weight, m_bias), (v_weight, v_bias)):
        update_(parameter, gradient.to(parameter.dtype), m, v, numbers.to(parameter.dtype), rule)


def update_(p: Tensor, gradient: Tensor, m: Tensor, v: Tensor, numbers: Tensor, rule: str) -> None:
    lr, beta1, beta2, epsilon, correction1, correction2, decay = numbers.unbind()
    if rule == "adam":
        gradient = gradient + decay * p
        m.lerp_(gradient, 1 - beta1)
        v.mul_(beta2).add_((1 - beta2) * gradient * gradient)
        p.sub_(lr / correction1 * m / ((v / correction2).sqrt() + epsilon))
    else:  # Hinton's: the smoothed gradient; vectors are not decayed
        m.lerp_(gradient, 1 - beta1)
        if p.ndim > 1:
            p.mul_(1 - lr * decay)
        p.sub_(lr * m)
