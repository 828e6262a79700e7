"""Heads on the points of a backbone."""
