"""Structured logs on standard error: one JSON object per line, or readable text on a terminal.

Call sites pass fields, not sentences with numbers in them: `logger.info("serving", extra=fields(grpc=address))`.
"""

import datetime
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

_FIELDS = "pointsman_fields"


def fields(**values: Any) -> Mapping[str, Any]:
    """Named values for `extra=` of a logging call. Values must be JSON types or have a useful `str`."""
    return {_FIELDS: values}


class JsonFormatter(logging.Formatter):
    """`{"time": RFC 3339 UTC, "level", "logger", "event", …fields}`; an exception adds `"exception"`."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, tz=datetime.UTC)
        entry: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:00:00 level event key=value …`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%H:%M:%S")
        values = " ".join(f"{key}={value}" for key, value in getattr(record, _FIELDS, {}).items())
        line = f"{time} {record.levelname.lower():7} {record.getMessage()} {values}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _CallersWhoWentAway(logging.Filter):
    """Turns gRPC's traceback about a caller who goes away just as its answer is sent into a line of information.

    gRPC keeps silent about it once it knows that the caller has gone; a moment before, it logs an error.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith("ExecuteBatchError raised in core"):
            return True
        record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
        return logging.getLogger().isEnabledFor(logging.INFO)


def configure(level: str, style: str) -> None:
    """Send all logs to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json`, `text`, or `auto` (text on a terminal, JSON elsewhere).
    """
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("grpc._cython.cygrpc").addFilter(_CallersWhoWentAway())
    # The HTTP client logs each request's URL at INFO: noise, and URLs are not ours to publish.
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
