"""Who wrote a temporary file, and whether that process is still there.

A process id alone is used again; with the moment its process started it is not. The id's namespace is part of the name,
because a server in another container has processes that cannot be seen from here.
"""

import os
import sys
from pathlib import Path

import psutil

if sys.platform == "linux":

    def _namespace() -> int:
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - not a file

    def _started(pid: int) -> int | None:
        """Clock ticks since boot, from the kernel: psutil adds the boot time, which moves when the clock is set."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat[stat.rindex(b")") + 2 :].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])

else:

    def _namespace() -> int:
        return 0

    def _started(pid: int) -> int | None:
        try:
            return int(psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None


def own_name() -> str:
    """Of this process, for use in the names of its files."""
    return f"{_namespace()}-{os.getpid()}-{_started(os.getpid())}"


def is_dead(name: str) -> bool:
    """Is the process that `own_name` named gone for certain? False for one that cannot be seen from here."""
    try:
        namespace, pid, started = (int(part) for part in name.split("-"))
    except ValueError:
        return False
    return namespace == _namespace() and _started(pid) != started
