"""glibc is told once, and only where the user has not told it already."""

import os
import platform
import subprocess
import sys

import pytest

ASK = "from penstock_proto.v1.malloc import keep_freed; print(keep_freed(), keep_freed())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc here")
@pytest.mark.parametrize(("variable", "told"), [("", "True True"), ("MALLOC_TRIM_THRESHOLD_", "False False")])
def test_the_users_own_settings_stay(variable: str, told: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    if variable:
        environment[variable] = "1000000"
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == told
