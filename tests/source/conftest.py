import sys
from pathlib import Path

# `tests.source.files` is imported by name, also by worker processes.
sys.path.insert(0, str(Path(__file__).parents[2]))
