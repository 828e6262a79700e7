"""What one pass of a PerceiverIO costs, counted and not measured: for the dry run at the paper's sizes (8.4)."""

from __future__ import annotations

from typing import NamedTuple

from diffusion_fields.models.attention import Layer
from diffusion_fields.models.perceiver import ScoreNetwork


class Cost(NamedTuple):
    """FLOPs of matrix products (multiply and add counted apart) and activations of one field; state of the net."""

    parameters: int
    forward_flops: int
    #: forward and backward: a product has two gradients, each as dear as itself
    training_flops: int
    #: parameters, their gradients, AdamW's two moments and the moving average, float32
    state_bytes: int
    #: activations that one field's backward pass keeps at ``bytes_per_number`` (attention weights are recomputed)
    activation_bytes: int


def cost(net: ScoreNetwork, num_context: int, num_query: int, bytes_per_number: int = 2) -> Cost:
    """Cost of one field with N_c context and N_q query pairs on a grid that the batch shares.

    The coordinate part of the tokens is the grid's, not the field's, and is left out; so are normalisations and
    activations' arithmetic (below 1 % of the whole at the paper's sizes).
    """
    tok, latents, decoder = net.tok, net.latents.shape[0], net.dec["cross"]
    assert isinstance(decoder, Layer)
    d_model = decoder.q.in_features
    flops, kept = 0, 0
    for points in (num_context, num_query):
        flops += 0 if tok.raw else 2 * points * tok.signal_dim * tok.width
        flops += 2 * points * tok.signal_width * d_model
        kept += points * (3 * d_model + (0 if tok.raw else 3 * tok.width))
    for cross, own in net.blocks():
        for layer, keys in [(cross, num_context), *((layer, latents) for layer in own)]:
            layer_flops, layer_kept = _layer(layer, latents, keys)
            flops, kept = flops + layer_flops, kept + layer_kept
    layer_flops, layer_kept = _layer(decoder, num_query, latents)
    flops, kept = flops + layer_flops, kept + layer_kept
    flops += 2 * num_query * (d_model + tok.signal_width) * tok.signal_dim
    numbers = net.num_parameters()
    return Cost(numbers, flops, 3 * flops, 5 * 4 * numbers, kept * bytes_per_number)


def _layer(layer: Layer, queries: int, keys: int) -> tuple[int, int]:
    """FLOPs forward, and numbers kept for the backward pass, of one layer."""
    dim, width = layer.q.in_features, layer.q.out_features
    source = layer.k.in_features
    products = queries * dim * width + 2 * keys * source * width  # q; k and v
    products += 2 * queries * keys * width  # scores, weighted sum
    products += queries * width * dim + 2 * queries * dim * dim  # o; MLP
    kept = queries * (2 * width + 6 * dim) + keys * (2 * width + (source if layer.crosses else 0))
    return 2 * products, kept
