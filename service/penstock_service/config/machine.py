"""What this machine, or the container we run in, has to give: the defaults that depend on it."""

import contextlib
import os
import resource
import shutil
from collections.abc import Mapping
from math import ceil
from pathlib import Path

MEMORY = 5_000_000_000
STORE_MOST = 64 * 1024**3
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63


def default_memory(limit: int | None) -> int:
    """Below the container's `limit`: at that the kernel kills, and nobody learns who held what."""
    return MEMORY if limit is None else min(MEMORY, limit - limit // 10)


def container_memory(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """The least memory limit of our control group and those above it, v2 or v1; None where nothing limits us."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            limits += _limits(cgroups, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(cgroups / "memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(mount: Path, path: str, name: str) -> list[int]:
    """Limits from the group at `path` up to the mount. Inside a container the path may be one that only the host has;
    the mount itself is then ours."""
    group = Path(path.strip("/"))
    found = []
    for folder in (group, *group.parents):
        try:
            text = (mount / folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < _UNLIMITED:
            found.append(int(text))
    return found


def usable_cpus(limit: float | None) -> int:
    """CPUs that this process may use, which containers and batch systems often make fewer than there are; `limit` is
    what a container gives."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cpus = os.cpu_count() or 1
    return cpus if limit is None else max(1, min(cpus, ceil(limit)))


def container_cpus(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The least CPU limit of our control group and those above it (version 2); None where nothing limits us."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return None
    limits = []
    for path in [line.split(":", 2)[2] for line in lines if line.startswith("0::")]:
        group = Path(path.strip("/"))
        for folder in (group, *group.parents):
            try:
                quota, period = (cgroups / folder / "cpu.max").read_text().split()
            except (OSError, ValueError):
                continue
            if quota != "max":
                limits.append(int(quota) / int(period))
    return min(limits, default=None)


def default_store_bytes(store_dir: Path) -> int:
    """A quarter of the disk's free room, at most 64 GiB. The folder need not exist yet."""
    place = next((p for p in (store_dir, *store_dir.parents) if p.exists()), Path("/"))
    return min(shutil.disk_usage(place).free // 4, STORE_MOST)


def state_home(environment: Mapping[str, str]) -> Path:
    return _home(environment, "XDG_STATE_HOME", ".local/state") / "penstock"


def cache_home(environment: Mapping[str, str]) -> Path:
    return _home(environment, "XDG_CACHE_HOME", ".cache") / "penstock"


def _home(environment: Mapping[str, str], variable: str, otherwise: str) -> Path:
    """The XDG rule: an absolute path in the variable, or the default below the home folder."""
    value = environment.get(variable, "")
    return Path(value) if value.startswith("/") else Path.home() / otherwise


def raise_open_files() -> None:
    """Let this process open as many files as it may: each session takes some, and macOS begins with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (65_536, 10_240):  # macOS refuses more than that, whatever it says of its limit
        wanted = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return
