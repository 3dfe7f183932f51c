"""What a stream is to do about rows that are errors."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from penstock.errors import InvalidRequest
from penstock_proto.v1 import data_pb2 as pb

Policy = Literal["fail", "skip", "substitute", "quarantine"]
Wish = Policy | Mapping[Literal["substitute"], Mapping[str, Any]]
"""As users say it: a word, or `{"substitute": {column: value}}`."""

_log = logging.getLogger("penstock")
_ALLOWED = "'fail', 'skip', 'substitute', 'quarantine' or {'substitute': {column: value, ...}}"


@dataclass(frozen=True)
class OnError:
    """The policy, and the row that stands for bad ones as JSON; empty: the nearest good row of the same shard."""

    policy: Policy = "fail"
    placeholder: str = ""

    @classmethod
    def of(cls, wish: Wish) -> Self:
        """Raises InvalidRequest that says what is allowed."""
        if isinstance(wish, str):
            if wish not in ("fail", "skip", "substitute", "quarantine"):
                raise InvalidRequest(f"on_error={wish!r}: allowed are {_ALLOWED}")
            return cls(wish)
        if not isinstance(wish, Mapping) or set(wish) != {"substitute"}:
            raise InvalidRequest(f"on_error={wish!r}: allowed are {_ALLOWED}")
        values = wish["substitute"]
        if not isinstance(values, Mapping) or not values:
            raise InvalidRequest(f"on_error={wish!r}: a placeholder has a value for every column, {{'x': 0.0}}")
        try:
            return cls("substitute", json.dumps(dict(values), default=_plain))
        except (TypeError, ValueError) as error:
            raise InvalidRequest(
                f"on_error={wish!r}: a value that is no number, string, list or dict: {error}"
            ) from None

    @property
    def leaves_out(self) -> bool:
        """Are bad rows no rows of an epoch?"""
        return self.policy in ("skip", "quarantine")

    def tell(self, end: pb.EpochEnd) -> None:
        """Log what became of the bad rows of an epoch, if it had any."""
        if end.skipped_rows or end.substituted_rows:
            _log.warning(
                "epoch %d: %d bad rows were left out, %d have another row in their place (on_error=%r); "
                "the server's /api/v1/bad-rows says which and why",
                *(end.epoch, end.skipped_rows, end.substituted_rows, self.policy),
            )


def _plain(value: Any) -> Any:
    """NumPy's and torch's numbers and arrays."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} is {type(value).__name__}")
