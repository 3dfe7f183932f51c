"""`python -m penstock_service`: what must be settled before anything heavy is loaded."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
import penstock_service.__main__ as entry
assert "pyarrow" not in sys.modules, "its allocator has read its settings already"
sys.argv = ["penstock", "version"]
try:
    entry.main()
except SystemExit:
    pass
print(os.environ["MIMALLOC_PURGE_DELAY"])
"""


def test_arrows_allocator_is_told_how_long_to_keep_memory_before_it_is_loaded() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "100"


def test_what_the_operator_says_about_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMALLOC_PURGE_DELAY", "25")
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert found.stdout.splitlines()[-1] == "25"
