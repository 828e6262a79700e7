"""One thread for every test, as in a run; small data sets in the real layouts."""

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.append(str(Path(__file__).parent))  # for `folder_layouts`
