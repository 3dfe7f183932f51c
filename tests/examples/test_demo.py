"""`make demo`, as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.mark.examples
@pytest.mark.timeout(400)
def test_the_demo_trains_two_models_shows_numbers_and_leaves_nothing_behind() -> None:
    done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for library in ("torch", "mlx"):
        found = re.search(rf"{library}: test accuracy ([\d.]+)% on 360 digits, [\d,]+ rows/s\n{library}: ", done.stdout)
        assert found is not None, done.stdout
        assert float(found[1]) > 95
    assert re.search(r'penstock_rows_sent_total\{dataset="digits"\} \d', done.stdout)
    assert "left nothing behind" in done.stdout.splitlines()[-1]
