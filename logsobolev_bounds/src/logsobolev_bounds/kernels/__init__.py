"""Custom operators (section 7): one folder each, with the definition in plain PyTorch."""
