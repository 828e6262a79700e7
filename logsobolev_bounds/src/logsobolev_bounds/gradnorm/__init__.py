"""Squared gradient norms of the cross-entropy: by the input for every draw of the weights, by the parameters."""

from .inputs import MLPDraws, input_grad_sq, input_grad_sqs
from .params import param_grad_sq

__all__ = ["MLPDraws", "input_grad_sq", "input_grad_sqs", "param_grad_sq"]
