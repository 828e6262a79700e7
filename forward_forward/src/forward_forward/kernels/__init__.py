"""Custom operators of the forward-forward network; one folder each, `reference.py` is the definition."""
