"""A Triton kernel with the types and constants that it is compiled for ahead of time (`shared.kernels.build`).

Every kernel module lists its own in `AOT`; the constants come from the functions that its launcher uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")  # of a launch, which are the compiler's


@dataclass(frozen=True)
class Build:
    """One variant of a kernel.

    Args:
        kernel: the `triton.jit` function.
        variant: what tells it from the others ("fp32 ieee, large tile").
        types: Triton's name of the type of every argument that is not a constant (`*fp32`, `i32`, `fp32`).
        constants: compile-time constants, and arguments that are known to be 1 (a contiguous axis).
        aligned: arguments divisible by 16, as the launcher finds them for contiguous, aligned tensors.
        enable_fp_fusion: whether a product and a sum may become one operation, which rounds once (Triton's default).
    """

    kernel: Any
    variant: str
    types: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    enable_fp_fusion: bool = True
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = tuple(self.kernel.arg_names)
        object.__setattr__(self, "names", names)
        given = [*self.types, *self.constants]
        if sorted(given) != sorted(names):
            wrong = sorted(set(given) ^ set(names)) or sorted(n for n in given if given.count(n) > 1)
            raise ValueError(f"{self.kernel.__name__} ({self.variant}): {', '.join(wrong)} given or missing")


def variant(
    kernel: Any,
    name: str,
    *,
    dtype: str,
    pointers: dict[str, str],
    numbers: tuple[str, ...],
    constants: dict[str, Any],
    launch: dict[str, int],
    scalars: dict[str, str] | None = None,
    aligned: bool = True,
) -> Build:
    """A `Build` from groups of arguments; `pointers` maps a name to `data` (of `dtype`) or to a type of its own.

    `aligned`: contiguous tensors with sizes that are multiples of 16; otherwise nothing is known of strides and sizes.
    """
    types = {n: f"*{dtype}" if t == "data" else t for n, t in pointers.items()}
    types |= {n: "i32" for n in numbers if n not in constants} | (scalars or {})
    known = tuple(types) if aligned else ()
    known = tuple(n for n in known if n not in (scalars or {}))
    options: dict[str, Any] = {k: v for k, v in launch.items() if k in OPTIONS}
    blocks = {k: v for k, v in launch.items() if k not in options}
    return Build(kernel, name, types, constants | blocks, known, **options)
