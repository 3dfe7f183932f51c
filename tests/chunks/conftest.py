import sys
from pathlib import Path

# Worker processes import what they run by name, so that the readers in `makers.py` must have one.
sys.path.insert(0, str(Path(__file__).parents[2]))
