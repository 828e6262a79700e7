"""Score networks: PerceiverIO, the paper's, and the two it is compared with."""

from diffusion_fields.models.perceiver import FieldNetwork, ScoreNetwork

__all__ = ["FieldNetwork", "ScoreNetwork"]
