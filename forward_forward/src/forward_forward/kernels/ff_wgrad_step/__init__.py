"""K2b: closed-form gradient of one layer and the optimiser's update of its weights, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

Rule = Literal["adam", "smoothed"]


def ff_wgrad_step_(
    h_prev: Float[Tensor, "N K"], h: Float[Tensor, "N M"], w: Float[Tensor, " N"], cr: Float[Tensor, " N"],
    weight: Float[Tensor, "K M"], bias: Float[Tensor, " M"],
    m_weight: Float[Tensor, "K M"], v_weight: Float[Tensor, "K M"],
    m_bias: Float[Tensor, " M"], v_bias: Float[Tensor, " M"],
    numbers: Float[Tensor, 7], rule: Rule = "adam",
) -> None:  # fmt: skip
    """Update `weight`, `bias` and the optimiser's state in place by the gradients of `ff_wgrad`, which are not stored.

    Args:
        h_prev, h, w, cr: as for `ff_wgrad`.
        m_*, v_*: first and second moments (`smoothed`: the smoothed gradient; v is not used).
        numbers: lr, beta1, beta2, epsilon, 1 - beta1^t, 1 - beta2^t, weight decay, on the device: a captured step reads
            them where they are. `smoothed` uses lr, beta1 and the decay (section 2.6).
        rule: `adam` (torch.optim.Adam) or `smoothed` (`SmoothedSGD`).

    FLOPs `2 N K M`; bytes (fp32) `4 (N K + N M + 6 K M)`: without it dW is written and read once more, `8 K M`. Floor
    on one H100, N = 4096, K = M = 1000: 0.12 ms in fp32; N = 200: 7 us of memory.
    """
    args = (h_prev, h, w, cr, weight, bias, m_weight, v_weight, m_bias, v_bias, numbers, rule)
    if use_triton(h):
        from .triton import ff_wgrad_step_ as on_gpu

        on_gpu(*args)
    else:
        reference.ff_wgrad_step_(*args)


def numbers_of(group: dict, step: Tensor, rule: Rule, device: torch.device) -> Float[Tensor, 7]:
    """`numbers` of an optimiser's group at step t (already counted), without waiting for the device."""
    beta1, beta2 = group["betas"] if rule == "adam" else (group["momentum"], 0.0)
    lr = group["lr"] if isinstance(group["lr"], Tensor) else torch.tensor(group["lr"], device=device)
    fixed = [beta1, beta2, group.get("eps", 0.0), group["weight_decay"]]
    b1, b2, epsilon, decay = (torch.full((), value, device=device) for value in fixed)
    t = step.to(device, torch.float32)
    return torch.stack([lr.float(), b1, b2, epsilon, 1 - b1**t, 1 - b2**t, decay])
