"""The command: `python -m shared.new_paper my_paper`, at the root of the repository."""

import sys

from shared.errors import one_line_errors
from shared.new_paper.lay import main

if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
