"""Custom operators: each a folder with its definition (`reference.py`), its Triton kernel and its public function."""
