"""How object stores are reached: settings, read once by whoever starts the server, and given to all who read."""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from penstock_service.core.retry import Retry

Scheme = Literal["file", "s3", "gs", "az"]
SCHEMES: tuple[Scheme, ...] = ("file", "s3", "gs", "az")
ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
"""Other names of the same; `az` stands for all of Azure Blob Storage."""


@dataclass(frozen=True)
class Stores:
    """Picklable: worker processes get it too. It holds no credentials: pyarrow takes those from the environment, the
    store's own configuration files, or the role of the machine."""

    schemes: tuple[Scheme, ...] = SCHEMES
    s3_endpoint: str = ""  # "http://127.0.0.1:5000"; empty: AWS
    s3_region: str = ""  # empty: asked of AWS, or us-east-1 with an endpoint
    azure_account: str = ""
    anonymous: bool = False
    connect_timeout: float = 5.0  # seconds
    read_timeout: float = 20.0  # seconds without a byte
    retry: Retry = field(default_factory=lambda: Retry(max_retries=4))
    ranges: int = 8  # in flight for each object that is being read
    range_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.schemes) - set(SCHEMES)):
            raise ValueError(f"schemes has {', '.join(unknown)}; there are {', '.join(SCHEMES)}")
        if self.s3_endpoint:
            check_endpoint(self.s3_endpoint)
        if self.connect_timeout <= 0 or self.read_timeout <= 0:
            raise ValueError(f"time-outs are {self.connect_timeout} and {self.read_timeout}; they must be more than 0")
        if self.ranges < 1 or self.range_bytes < 1:
            raise ValueError(f"ranges is {self.ranges} and range_bytes {self.range_bytes}; each must be 1 or more")


def check_endpoint(endpoint: str) -> None:
    """Raises ValueError, which repeats nothing of an endpoint that holds credentials."""
    parts = urlsplit(endpoint)
    if "@" in endpoint or parts.query:
        raise ValueError("an endpoint holds no credentials and no options: those come from AWS_* variables or the role")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("an endpoint is http://HOST[:PORT] or https://HOST[:PORT]")


DEFAULTS = Stores()
