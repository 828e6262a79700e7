"""spatial_textvqa, reproduced."""
