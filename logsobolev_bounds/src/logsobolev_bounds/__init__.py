"""PAC-Bayes bounds from the log-Sobolev inequality, with an input-gradient norm as the complexity."""
