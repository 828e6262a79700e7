"""Squared gradient norms of the cross-entropy: by the input for every draw of the weights, by the parameters."""

from .inputs import MLPDraws, input_grad_sq
from .params import param_grad_sq

__all__ = ["MLPDraws", "input_grad_sq", "param_grad_sq"]
