"""The helpers beside the tests (toy_training.py, wandb_file.py) are imported by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
