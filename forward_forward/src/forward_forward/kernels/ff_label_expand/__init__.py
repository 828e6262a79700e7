"""K3: first layer of all C (image, label) pairs of an image, for classification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float


def ff_label_expand(
    base: Float[Tensor, "N M"],
    s: Float[Tensor, " N"],
    w_label: Float[Tensor, "C M"],
    b: Float[Tensor, " M"],
    strength: float,
) -> tuple[Float[Tensor, "N*C M"], Float[Tensor, " N*C"]]:
    """Row `n C + c` of `H_1` is `relu(s_n (base_n + strength W_label[c]) + b)`; `q_1` its squares summed.

    `base = X_img W_img` is computed once per image, so C passes cost one product in the first layer. `s` does not
    depend on the label: all one-hot codes have the same norm (section 4.3).

    FLOPs `5 N C M`; bytes (fp32) `4 (N M + C M + N C M + N C)`, so the write of `H_1` bounds it: N = 1000, C = 10,
    M = 500 move 22 MB, 6.6 us on one H100. On a CPU, 50 to 100 images per call keep `H_1` in the cache.
    """
    if use_triton(base):
        from . import triton

        return triton.ff_label_expand(base, s, w_label, b, strength)
    return reference.ff_label_expand(base, s, w_label, b, strength)
