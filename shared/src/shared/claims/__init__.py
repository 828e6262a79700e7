"""The ledger: what a paper claims, what our runs measured, and the verdict that follows."""
