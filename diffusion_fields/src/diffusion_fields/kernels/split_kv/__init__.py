"""Attention of few latents to many context tokens, split over the tokens (section 8.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.kernels.backend import BACKEND, autocast, use_triton
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .. import inputs
from .attention import attention

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["split_kv_cross_attention"]
WIDEST = 128  # entries of a head that the kernel takes
# Unsplit attention has a program for 128 queries of a head: this many fill a large GPU, which leaves nothing to split.
FULL, MANY_KEYS = 132, 2048


def worthwhile(q: Tensor, k: Tensor) -> bool:
    """Whether there are too few queries to fill a GPU, and many keys."""
    B, H, L, _ = q.shape
    return B * H * -(-L // 128) < FULL and k.shape[2] >= MANY_KEYS


def split_kv_cross_attention(
    q: Float[Tensor, "B H L h"], k: Float[Tensor, "B H N h"], v: Float[Tensor, "B H N h"]
) -> Float[Tensor, "B H L h"]:
    """`softmax(q k' / sqrt(h)) v` for few queries and many keys, in the dtype of q (of the surrounding autocast).

    Sampling is what it is for. Where a gradient is wanted, on a CPU, and where queries alone fill the GPU it is
    `scaled_dot_product_attention`, which it equals to 1e-5 in float32 and 2e-3 in bfloat16.

    Args:
        q: of the latents.
        k, v: of the context tokens; at least one.

    Raises:
        ValueError: shapes that do not fit, no key, operands that differ in dtype or device or are not real numbers.

    Two launches: a program for each block of latents, head and span of keys writes its largest logit, sum of weights
    and weighted sum of values; a second kernel joins the spans. FLOPs: 4 B H L N h. Bytes: keys and values read once,
    4 B H N h in bf16, and 4 B H S L (h + 2) written and read for S spans. Floor for B = 1, H = 8, h = 64, L = 64,
    N = 65536 in bf16 on one H200 (4.3 TB/s, 600 TFLOP/s): 31 us for the bytes, 14 us for the FLOPs. Unsplit, 8 of 132
    multiprocessors work.
    """
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        raise ValueError(
            f"split_kv_cross_attention: q has shape {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)}: "
            "[B, H, L, h] and twice [B, H, N, h] are needed"
        )
    if not k.shape[2] * k.shape[3]:
        raise ValueError(f"split_kv_cross_attention: k has shape {tuple(k.shape)}: there is no key to attend to")
    inputs.check("split_kv_cross_attention", q=q, k=k, v=v)
    inputs.same_dtype("split_kv_cross_attention", q=q, k=k, v=v)
    q, k, v = autocast(q, k, v)
    fits = q.numel() > 0 and q.shape[3] <= WIDEST and not inputs.wants_gradient(q, k, v)
    if fits and use_triton(q) and (BACKEND != "auto" or worthwhile(q, k)):
        return attention(q, k, v)
    return scaled_dot_product_attention(q, k, v)
