"""Diffusion probabilistic fields: a diffusion model over functions on metric spaces, with an exact yardstick."""
