"""A server that dies at a point of a write to the journal: `python -m tests.crashing POINT serve PATH ...`."""

import asyncio
import os
import sys
from dataclasses import dataclass

from penstock_service.admin.cli import main
from penstock_service.app.server import serve
from penstock_service.config import Settings
from tests.running import Running

POINTS = (
    "before begin",
    "after begin",
    "after the run",
    "before commit",
    "after commit",
    "before effect",
    "after effect",
)
CODE = 86


@dataclass
class Crashing(Running):
    """Dies, as if its power was cut, when it passes `point`."""

    point: str = ""

    def command(self) -> list[str]:
        words = super().command()
        at = words.index("penstock_service")
        return [*words[:at], "tests.crashing", self.point, *words[at + 1 :]]


def _run(settings: Settings) -> int:
    def passing(point: str) -> None:
        if point == sys.argv[1]:
            os._exit(CODE)

    return asyncio.run(serve(settings, passing))


if __name__ == "__main__":
    sys.exit(main(_run, sys.argv[2:]))
