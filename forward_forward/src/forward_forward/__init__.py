"""Layer Collaboration in the Forward-Forward Algorithm (Lorberbom et al., AAAI 2024)."""
