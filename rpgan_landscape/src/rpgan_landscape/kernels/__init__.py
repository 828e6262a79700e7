"""Custom operators: populations of GANs, enumeration of states, all-pairs loss; `reference.py` is the definition."""
