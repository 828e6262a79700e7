"""Custom operators of AutoFocusFormer: one folder each, with the definition in plain PyTorch."""
