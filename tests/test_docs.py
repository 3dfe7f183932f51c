"""The documentation names what there is: links, flags, settings, arguments, code that compiles."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]\b")
_SETTING = re.compile(r"^\| `([^`]+)` \| `PENSTOCK__([A-Z0-9_]+)` \| (.*?) \| .+ \|$", re.MULTILINE)


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).exists()] or GUIDES


def prose(text: str) -> str:
    """Without what stands in fences."""
    return _FENCE.sub("", text)
