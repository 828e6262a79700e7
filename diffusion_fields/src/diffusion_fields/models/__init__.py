"""Score networks: PerceiverIO, the paper's, and the two it is compared with."""

from __future__ import annotations

from typing import Any

from diffusion_fields.errors import FieldError
from diffusion_fields.models.ablations import MixerNetwork, TransformerNetwork
from diffusion_fields.models.cost import Cost, cost
from diffusion_fields.models.perceiver import FieldNetwork, ScoreNetwork

__all__ = [
    "NETWORKS",
    "PAPER_SIZES",
    "Cost",
    "FieldNetwork",
    "MixerNetwork",
    "ScoreNetwork",
    "TransformerNetwork",
    "build",
    "cost",
]

NETWORKS: dict[str, type[FieldNetwork]] = {
    "perceiver": ScoreNetwork,
    "transformer": TransformerNetwork,
    "mlp_mixer": MixerNetwork,
}

#: D, L, d, blocks, self-attentions per block and heads of the reference's three sizes (section 3).
PAPER_SIZES: dict[str, dict[str, int]] = {
    name: dict(
        zip(("d_model", "num_latents", "d_latents", "num_blocks", "self_per_block", "heads"), sizes, strict=True)
    )
    for name, sizes in {
        "small": (512, 128, 256, 6, 2, 4),
        "base": (1024, 512, 512, 8, 2, 4),
        "large": (1024, 1024, 1024, 12, 2, 8),
    }.items()
}


def build(name: str, **kwargs: Any) -> FieldNetwork:
    """The network ``name`` (a key of :data:`NETWORKS`) with its constructor's arguments."""
    if name not in NETWORKS:
        raise FieldError(f"network is {name!r}: use one of {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**kwargs)
    except TypeError as error:  # a missing or unknown argument, named by Python
        raise FieldError(f"network {name!r}: {error}") from error
