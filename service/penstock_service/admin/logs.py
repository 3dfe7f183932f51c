"""Log lines, to stderr: text for people, one JSON object per line for machines."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

# Attributes that every record has; what else is on a record came with `extra=` and belongs into the JSON.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
# Libraries whose "info" is our "debug".
_QUIET = ("uvicorn.access", "uvicorn.error", "asyncio", "fsspec")


def set_up_logs(level: str, style: str) -> None:
    """Replaces whatever handlers the root logger has. `style` is auto (text on a terminal, else JSON), text or json."""
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    handler = StderrHandler()
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")
    logging.captureWarnings(True)


class StderrHandler(logging.StreamHandler[TextIO]):
    """Looks up sys.stderr at each line: while a progress bar is shown, rich stands there and keeps lines above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class TextLines(logging.Formatter):
    """12:30:01 INFO    source  3 shards found"""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname:<7} {area}  {message}", "%H:%M:%S", style="{")

    def format(self, record: logging.LogRecord) -> str:
        record.area = record.name.removeprefix("penstock_service.").split(".")[0]
        return super().format(record)


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _USUAL}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
