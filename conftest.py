"""Import each project before its tests: their folders bear the same names and would shadow them as namespaces."""

import importlib
from pathlib import Path

for source in sorted(Path(__file__).parent.glob("*/src/*/__init__.py")):
    importlib.import_module(source.parent.name)
