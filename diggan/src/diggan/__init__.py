"""DigGAN: Discriminator gradIent Gap Regularization for GAN Training with Limited Data (Fang, Sun, Schwing 2022).

from diggan import DIGRegularizer
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diggan.gradient_gap import DIGRegularizer

__all__ = ["DIGRegularizer"]


def __getattr__(name: str) -> Any:
    """Imported when it is first asked for: the package's commands should not wait for what they do not need."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("diggan.gradient_gap"), name)
