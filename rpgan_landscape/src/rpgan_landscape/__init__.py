"""Towards a Better Global Loss Landscape of GANs (Sun, Fang and Schwing, NeurIPS 2020)."""
