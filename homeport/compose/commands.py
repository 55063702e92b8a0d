"""Command lines, health checks and hooks."""

from __future__ import annotations

import shlex

from homeport.compose.view import View
from homeport.spec import Argv, HealthCheck, Hook

ARGUMENTS_MAX = 10_000
_TESTS = ("NONE", "CMD", "CMD-SHELL")


def argv(view: View, key: str) -> Argv | None:
    """A command under a key; None keeps the image's, an empty one clears it."""
    found = view.at(key)
    return None if found is None else Argv(args=_words(found))


def _words(found: View) -> tuple[str, ...]:
    if found.is_list:
        words = tuple(item.as_text() for item in found.items())
    else:
        try:
            words = tuple(shlex.split(found.as_text()))
        except ValueError:
            found.refuse("has a quote that is never closed", "Write the command as a list")
            return ()
    if len(words) > ARGUMENTS_MAX:
        found.refuse(f"has more than {ARGUMENTS_MAX:,} words")
        return ()
    return words


def health_check(service: View) -> HealthCheck | None:
    """`healthcheck:`; None keeps the image's."""
    section = service.at("healthcheck")
    if section is None:
        return None
    if not section.is_map:
        section.refuse("must be a map")
        return None
    test = section.at("test")
    if section.flag("disable"):
        if test is not None and _test(test) not in ((), ("NONE",)):
            test.refuse("cannot be given together with `disable: true`", "Remove one of the two")
        return HealthCheck(test=("NONE",))
    return HealthCheck(
        test=_test(test) if test is not None else (),
        interval_ms=section.duration_ms("interval"),
        timeout_ms=section.duration_ms("timeout"),
        start_period_ms=section.duration_ms("start_period"),
        start_interval_ms=section.duration_ms("start_interval"),
        retries=section.whole("retries", 0, 1_000_000),
    )


def _test(test: View) -> tuple[str, ...]:
    if not test.is_list:
        return ("CMD-SHELL", test.as_text())
    words = tuple(item.as_text() for item in test.items())
    if not words:
        return ()
    if words[0] not in _TESTS:
        test.refuse(
            f"the first word must be one of {', '.join(_TESTS)}",
            "Write a single text to run it in a shell",
        )
        return ()
    if words[0] == "CMD-SHELL" and len(words) != 2:
        test.refuse("CMD-SHELL takes one command", "Write it as a single text")
    elif words[0] == "CMD" and len(words) < 2:
        test.refuse("CMD needs a program")
    return words


def hooks(service: View, key: str) -> tuple[Hook, ...]:
    """`post_start:` or `pre_stop:`."""
    found = []
    for item in service.listed(key):
        command = item.at("command")
        words = _words(command) if command is not None else ()
        if not words:
            item.refuse("needs a `command`")
            continue
        found.append(
            Hook(
                command=words,
                user=item.text("user"),
                privileged=item.flag("privileged"),
                working_dir=item.text("working_dir"),
                env=item.pairs("environment"),
            )
        )
    return tuple(found)
