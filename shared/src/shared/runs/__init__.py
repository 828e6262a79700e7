"""Runs: what identifies one, where it lives, which ones a tier needs, how they are started and resumed."""
