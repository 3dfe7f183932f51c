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
        self._rows = 0  # the most that were ready since rows came last, over all connections
        self._told = 0.0  # when the log last said what we wait for
        self._due = 0.0  # when the next step may be handed out, where that is paced

    def filling(self, filling: pb.Filling) -> bool:
        """The server makes rows. Are we closer to them than ever?

        One that fails and begins again where it was is not: else it would be tried for ever.
        """
        gets_on = filling.rows > self._rows
        self._rows = max(self._rows, filling.rows)
        now = self._link.now()
        if now - self._told > _TELL_EVERY:
            self._told = now
            _log.info("waiting for the server: %s (%d of %d rows ready)", filling.stage, filling.rows, filling.of)
        return gets_on

    def over(self) -> None:
        """Rows came, or others are waited for."""
        self._rows = 0

    def pace(self) -> float:
        """Hold the next step back until the steps before it have had their time; how many seconds that was."""
        if self._rows_per_s is None:
            return 0.0
        began = self._link.now()
        if self._due <= began:
            return 0.0
        self._link.sleep(self._due - began)
        held = self._link.now() - began
        self._clock.paced += held
        return held

    def took(self, rows: int) -> None:
        """A step of so many rows was handed out."""
        if self._rows_per_s is not None:
            self._due = max(self._link.now(), self._due) + rows / self._rows_per_s
