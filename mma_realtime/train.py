"""Train from the command line: `python train.py fit --config configs/detector.yaml`; any setting can be added.

Also of GlitchNet (`configs/glitches.yaml`) and the denoiser (`configs/denoiser.yaml`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from mma_realtime.training import main
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:], Path(__file__).resolve().parent)
