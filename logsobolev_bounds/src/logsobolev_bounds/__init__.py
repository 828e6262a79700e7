"""PAC-Bayes bounds for unbounded losses from the log-Sobolev inequality, with an input-gradient-norm complexity.

Adi, Nemcovsky, Schwing, Hazan 2020 (arXiv 2002.09866) and Gat, Adi, Schwing, Hazan, NeurIPS 2022 (arXiv 2210.06143).
"""
