"""Custom operators (section 8): one folder each, with the definition in plain PyTorch."""
