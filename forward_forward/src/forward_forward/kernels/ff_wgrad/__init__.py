"""K2: closed-form gradient of one forward-forward layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float


def ff_wgrad(
    h_prev: Float[Tensor, "N K"], h: Float[Tensor, "N M"], w: Float[Tensor, " N"], cr: Float[Tensor, " N"]
) -> tuple[Float[Tensor, "K M"], Float[Tensor, " M"]]:
    """`dW = H_prev^T diag(w) H` and `db = sum_n cr_n H_n` (sections 2.2 and 5).

    With `w = c r s` and `cr = c r` these are the gradients of a layer's loss, since `dL/da = c r h`: the ReLU's mask is
    in `h` already. `dL/da` is never materialised.

    Args:
        h_prev, h: activities below and of this layer, before normalisation.
        w: slope times residual times row scale of the input, per row.
        cr: slope times residual, per row.

    FLOPs `2 N K M`; bytes (fp32) `4 (N K + N M + K M + 2 N + M)`. Floor on one H100, N = 4096, K = M = 1000: 0.12 ms
    in fp32, 17 us in TF32.
    """
    if use_triton(h):
        from . import triton

        return triton.ff_wgrad(h_prev, h, w, cr)
    return reference.ff_wgrad(h_prev, h, w, cr)
