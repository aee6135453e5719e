"""Structured logs: one JSON object a line, for programs that collect them. Contents of uploads never go in."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

_EXTRAS = ("job", "owner", "attempt", "bytes", "method", "path", "status", "seconds", "client", "pid", "what")


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, event, the extras that we use, and the trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in _EXTRAS if hasattr(record, name)}
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def log_as_json(logger: logging.Logger, level: str) -> None:
    """Make a logger and all below it write JSON lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    # The queue's own messages tell of every wake-up, the rows of every job: ours are enough.
    logging.getLogger("huey").setLevel(logging.WARNING)
