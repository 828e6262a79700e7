"""autofocusformer, reproduced."""
