from pathlib import Path

from shared.runs.reproduce import main

if __name__ == "__main__":
    raise SystemExit(main("toy", Path(__file__).parent))
