"""Public data sets in the formats they are published in: found, verified, read; nothing pickled, nothing guessed."""
