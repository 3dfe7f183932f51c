"""An environment for each set of requirements, made when first needed and again when the requirements change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

KEEP = "requirements.txt"  # a copy in the environment, written last: it is whole


class NotInstalled(Exception):
    """pip could not do it; the text is its own last error line."""


def python(folder: Path, requirements: Path | None) -> Path:
    """The interpreter of the environment of `requirements` below `folder`; None: this interpreter."""
    if requirements is None:
        return Path(sys.executable)
    place, wanted = folder / requirements.stem, requirements.read_text()
    interpreter = place / "bin" / "python"
    kept = place / KEEP
    if kept.exists() and kept.read_text() == wanted:
        return interpreter
    shutil.rmtree(place, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(place)])
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--no-compile", "-r", str(requirements)])
    _run([*pip, "check"])
    kept.write_text(wanted)
    return interpreter


def _run(command: list[str]) -> None:
    nice = ["nice", "-n", "19"] if shutil.which("nice") else []
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([*nice, *command], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or [f"exit code {done.returncode}"]
        raise NotInstalled(errors[-1])
