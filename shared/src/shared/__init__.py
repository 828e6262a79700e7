"""What the paper reproductions have in common, and nothing of any paper's meaning."""
