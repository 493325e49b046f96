"""Logs of the operator: one JSON object a line, or text for people. Only the format: what is logged is up to the rest.

Fields that a caller passes in `extra` become fields of the JSON object.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from pulsecache_operator.settings import LogFormat

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FOREIGN_EXTRAS = frozenset({"k8s_skip", "k8s_ref", "settings"})
"""Attributes that Kopf hangs on its records."""


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _OWN and name not in _FOREIGN_EXTRAS and name not in entry:
                entry[name] = value
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps(entry, ensure_ascii=False, default=str)


def _news(record: logging.LogRecord) -> bool:
    """Kopf warns at each start that it gets no signals in its thread: they are for the program."""
    return "running not in the main thread" not in record.getMessage()


def configure(log_format: LogFormat, *, stream: TextIO | None = None) -> None:
    """Sends every log record of the process to `stream` (stderr) from level INFO on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    match log_format:
        case LogFormat.JSON:
            handler.setFormatter(JsonFormatter())
        case LogFormat.HUMAN:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Kopf tells of each watch that it opens and each event that it hands over; its warnings are enough.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").addFilter(_news)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
