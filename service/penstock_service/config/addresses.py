"""Addresses to listen on, and datasets as they are named on the command line."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s/]+):(\d{1,5})")


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of "HOST:PORT" or "[IPv6]:PORT", the brackets gone."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[2]) > 65535:
        raise ValueError(
            "an address is HOST:PORT with a port from 0 to 65535 (0 picks a free one), such as 127.0.0.1:7400"
        )
    return found[1].strip("[]"), int(found[2])


def is_loopback(host: str) -> bool:
    """Can only this machine reach `host`?"""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class DatasetArgument:
    """A "[NAME=]PATH". Without a name the server makes one from the path. Shard ranges may follow: "PATH#0-99"."""

    path: str
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> "DatasetArgument":
        """`year=2024` is a dataset called year unless such a file or folder exists; `./year=2024` is always a path."""
        if not text.strip():
            raise ValueError("a dataset is [NAME=]PATH, such as data/ or titanic=data/titanic.csv; this one is empty")
        found = _NAMED.fullmatch(text)
        if found is None or Path(text).exists():
            return cls(path=text)
        return cls(name=found[1], path=found[2])
