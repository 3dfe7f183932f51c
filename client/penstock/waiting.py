"""What a loop waits for besides steps: rows that the server still makes, and its own pace."""

import logging
from typing import Final

from penstock.link import Link
from penstock.profile import Clock
from penstock_proto.v1 import data_pb2 as pb

_TELL_EVERY: Final = 5.0  # seconds between log lines while waiting for rows

_log = logging.getLogger("penstock")


class Waiting:
    """Belongs to one rank; outlives its connections."""

    def __init__(self, link: Link, clock: Clock, max_rows_per_s: float | None) -> None:
        self._link, self._clock = link, clock
        self._rows_per_s = max_rows_per_s
        self._rows = 0  # that were ready when the server last said so
        self._told = 0.0  # when the log last said what we wait for
        self._due = 0.0  # when the next step may be handed out, where that is paced

    def filling(self, filling: pb.Filling) -> bool:
        """The server makes rows. Does it get on?"""
        gets_on = filling.rows > self._rows
        self._rows = filling.rows
        now = self._link.now()
        if now - self._told > _TELL_EVERY:
            self._told = now
            _log.info("waiting for the server: %s (%d of %d rows ready)", filling.stage, filling.rows, filling.of)
        return gets_on

    def over(self) -> None:
        """Rows came."""
        self._rows = 0

    def pace(self, rows: int) -> None:
        """Hold a step of so many rows back until the steps before it have had their time."""
        if self._rows_per_s is None:
            return
        now = self._link.now()
        due = max(now, self._due)
        self._due = due + rows / self._rows_per_s
        if due > now:
            self._clock.paced += due - now
            self._link.sleep(due - now)
