"""Static pages that show where a network looks (see `build`)."""
