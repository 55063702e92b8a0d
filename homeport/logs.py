"""How both daemons log: structured lines on stderr, for people on a terminal, else as JSON.

Events are fixed sentences and everything that varies is a field: `log.info("task placed",
task=…, node=…)`. A newcomer's mistake: structlog renders the local variables of every frame
of a traceback unless told not to, and locals hold secrets.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

FORMATS = ("auto", "console", "json")
LEVELS = ("debug", "info", "warning", "error")


def configure(
    log_format: str = "auto", level: str = "info", *, stream: TextIO | None = None
) -> None:
    """Set up structlog and the standard library's logging for this process.

    `auto` writes for people when `stream` (stderr) is a terminal and JSON otherwise. Raises
    ValueError for a format or level that is not in FORMATS or LEVELS.
    """
    if log_format not in FORMATS:
        raise ValueError(f"log format {log_format!r} is none of {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    target = sys.stderr if stream is None else stream
    for_people = log_format == "console" or (log_format == "auto" and target.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(for_people, colors=for_people and target.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    # Libraries (grpc, aiohttp, asyncio) log through the standard library; only their warnings
    # are of interest, in the same form as ours.
    bridge = logging.StreamHandler(target)
    bridge.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(for_people, colors=for_people and target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [bridge]
    root.setLevel(max(threshold, logging.WARNING))


def _renderers(for_people: bool, *, colors: bool) -> list[Processor]:
    if for_people:
        return [
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(tracebacks),
        structlog.processors.JSONRenderer(),
    ]
