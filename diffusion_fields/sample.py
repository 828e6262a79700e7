"""Sample a network anywhere: `python sample.py --checkpoint runs/fit/<run>/final.ckpt`; see `--help`."""

from __future__ import annotations

import sys

from diffusion_fields.sample_command import main
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
