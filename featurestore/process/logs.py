"""Logs of a process: one event per line on stderr, UTC; as text, or each a JSON object.

What an event is about stands in fields of its own, `log.info("…", extra={"batch_id": …})`: `name=value` behind the
text, members of the JSON object.
"""

import json
import logging
import time
from datetime import UTC, datetime

from featurestore.errors import SettingsError

FIELDS = ("batch_id", "batch_ids", "target", "job_id", "run_id", "upload_id")


def configure(level: str, style: str = "text") -> None:
    """Set up logging once, at the entry point.

    Raises:
        SettingsError: there is no such style.
    """
    if style not in _FORMATTERS:
        raise SettingsError(f"FEATURESTORE_LOG_FORMAT: {style!r} is neither {' nor '.join(_FORMATTERS)}")
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[style]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("azure").setLevel(logging.WARNING)  # one line per request otherwise


class TextFormatter(logging.Formatter):
    """For people."""

    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s  %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # its name in the standard library
        fields = "".join(f"  {name}={value}" for name, value in _fields(record).items())
        return super().formatMessage(record) + fields


class JsonFormatter(logging.Formatter):
    """For programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


_FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
