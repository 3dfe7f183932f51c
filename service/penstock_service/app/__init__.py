"""Wires the stages: the one place where all of them are known."""

import asyncio

from penstock_service.app.server import serve
from penstock_service.config import Settings
from penstock_service.config.machine import raise_open_files


def run(settings: Settings) -> int:
    """Serve until told to stop; returns the exit code. Raises ServiceError where the server cannot start."""
    raise_open_files()
    return asyncio.run(serve(settings))
