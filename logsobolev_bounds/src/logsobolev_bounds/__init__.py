"""PAC-Bayes bounds from the log-Sobolev inequality: complexity as an input gradient's norm (2020, 2022)."""
