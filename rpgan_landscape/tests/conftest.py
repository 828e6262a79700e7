"""One thread for every test, as in a run."""

import torch

torch.set_num_threads(1)
