"""A page to ask a trained network about scenes and pictures (see `app`)."""
