"""`make new PAPER=name`: a small, complete paper to start from, in the rooms that every paper has."""
