"""`environment`, `env_file`, `labels`, `label_file`: variables and labels from several places.

Files come first and the service's own map wins over them, as in Compose. A name without a value
takes it from the environment of `apply`, and is left out when it is not set there either.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeport.compose import dotenv
from homeport.compose.compiling import Compiling
from homeport.compose.interpolation import Budget
from homeport.compose.sources import Kind, Look
from homeport.compose.view import View
from homeport.spec import Pairs, pairs

ENVIRONMENT_MAX = 1 << 20  # Linux refuses to start a program with more
RESERVED_PREFIX = "dev.homeport."


def environment(service: View, compiling: Compiling) -> Pairs:
    """The variables of a service's containers."""
    outer = compiling.project.environment
    found: dict[str, str] = {}
    files = service.at("env_file")
    if files is not None:
        for item in files.items() if files.is_list else [files]:
            found.update(_file(item, {**outer, **found}, compiling))
    for name, value, item in service.assignments("environment"):
        if value is None:
            value = outer.get(name)
            if value is None:
                found.pop(name, None)  # as in Compose: named here, it hides an env_file's too
                continue
        if "\0" in name or "=" in name:
            item.refuse("is not a name of a variable")
            continue
        found[name] = value
    if sum(len(name) + len(value) + 2 for name, value in found.items()) > ENVIRONMENT_MAX:
        service.refuse(f"the environment is larger than {ENVIRONMENT_MAX >> 20} MiB")
        return ()
    return pairs(found)


def labels(service: View, compiling: Compiling) -> Pairs:
    """The labels of a service's containers."""
    found: dict[str, str] = {}
    files = service.at("label_file")
    if files is not None:
        for item in files.items() if files.is_list else [files]:
            found.update(_file(item, compiling.project.environment, compiling))
    found.update(plain_labels(service, "labels"))
    for name in sorted(found):
        if name.startswith(RESERVED_PREFIX):
            del found[name]
            service.refuse(f"the label {name[:80]} is Homeport's own", "Use another prefix")
    return pairs(found)


def plain_labels(view: View, key: str) -> Pairs:
    """A map of labels under a key, without those that Homeport keeps for itself."""
    found = []
    for name, value, item in view.assignments(key):
        if name.startswith(RESERVED_PREFIX):
            item.refuse(
                f"labels that start with {RESERVED_PREFIX} are Homeport's own",
                "Use another prefix",
            )
        else:
            found.append((name, value or ""))
    return pairs(found)


def _file(item: View, outer: Mapping[str, str], compiling: Compiling) -> dict[str, str]:
    is_label = ".label_file" in item.path
    what = "label_file" if is_label else "env_file"
    path_view = item.at("path") if item.is_map else item
    if path_view is None:
        item.refuse("needs a `path`")
        return {}
    path = compiling.path(path_view)
    required = item.flag("required", True) if item.is_map else True
    if not required:
        seen = compiling.sources.look(Look.CONTENT, path)
        if seen is None or seen.kind is Kind.ABSENT:
            return {}
    found = compiling.content(path_view, path, what)
    if found is None or found.data is None:
        return {}
    try:
        text = found.data.decode("utf-8-sig")
    except UnicodeDecodeError:
        path_view.refuse(f"the {what} {path} is not UTF-8 text")
        return {}
    if "\0" in text:
        path_view.refuse(f"the {what} {path} holds a zero byte")
        return {}
    kind = item.choice("format", {"raw": "raw", "": ""}, "") if item.is_map else ""
    if kind == "raw":
        parsed = dotenv.parse_raw(text, path)
    else:
        parsed = dotenv.parse(text, path, outer, Budget())
    compiling.context.report.problems.extend(parsed.problems)
    for variable, where in parsed.unset:
        compiling.context.report.notice(
            where, variable, f"the variable {variable} is not set and counts as empty"
        )
    return parsed.values(outer)
