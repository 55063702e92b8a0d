"""`build:`: what `apply --build` builds on its own machine before it hands the images out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from homeport.compose import container, suggest
from homeport.compose.compiling import Compiling
from homeport.compose.sources import Kind, Look, resolve
from homeport.compose.variables import plain_labels
from homeport.compose.view import View
from homeport.spec import Pairs, Ulimit, pairs

_URL = re.compile(
    r"(https?|ssh|git|docker-image|oci-layout)://|git@|github\.com/|service:|target:", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSecret:
    """A secret that a build may read; its content, or the file that holds it."""

    id: str
    file: str = ""  # absolute path on this machine
    data: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """One image to build; paths are absolute ones of the machine that runs `apply`."""

    service: str
    image: str  # the name under which the service runs it
    context: str = ""  # directory, or a URL that the builder fetches itself
    dockerfile: str = ""  # absolute; empty: Dockerfile in the context
    dockerfile_inline: str = ""
    args: Pairs = ()
    target: str = ""
    labels: Pairs = ()
    tags: tuple[str, ...] = ()
    network: str = ""
    platforms: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    shm_size_bytes: int = 0
    no_cache: bool = False
    pull: bool = False
    cache_from: tuple[str, ...] = ()
    additional_contexts: Pairs = ()
    secrets: tuple[BuildSecret, ...] = ()
    ssh: Pairs = ()
    ulimits: tuple[Ulimit, ...] = ()
    privileged: bool = False
    isolation: str = ""
    entitlements: tuple[str, ...] = ()

    @property
    def needs_buildkit(self) -> bool:
        """True for what the engine's classic builder does not know."""
        return bool(
            self.secrets or self.ssh or self.additional_contexts or self.entitlements
            or self.privileged or self.ulimits or len(self.platforms) > 1
        )  # fmt: skip

    @property
    def is_remote(self) -> bool:
        """True when the builder fetches the context itself."""
        return _URL.match(self.context) is not None


def read(service: View, name: str, image: str, compiling: Compiling) -> BuildSpec | None:
    """The build of a service; None when it has none."""
    section = service.at("build")
    if section is None:
        return None
    section.notice(
        f"the image {image} is built only by `apply --build`, on the machine that runs it",
        "Run `homeport apply --build`",
    )
    if not section.is_map:
        context = _context(section, compiling)
        _look_for_dockerfile(section, context, "", compiling)
        return BuildSpec(service=name, image=image, context=context)
    context_view = section.at("context")
    context = _context(context_view, compiling) if context_view else compiling.project.directory
    inline = section.text("dockerfile_inline")
    dockerfile = section.at("dockerfile")
    path = ""
    if dockerfile is not None and inline:
        dockerfile.refuse("cannot be given together with `dockerfile_inline`", "Keep one")
    elif dockerfile is not None:
        path = dockerfile.as_text()
        path = path if _URL.match(context) else resolve(path, context)
    if not inline:
        _look_for_dockerfile(dockerfile or section, context, path, compiling)
    return BuildSpec(
        service=name,
        image=image,
        context=context,
        dockerfile=path,
        dockerfile_inline=inline,
        args=_args(section, compiling),
        target=section.text("target"),
        labels=plain_labels(section, "labels"),
        tags=tuple(map(container.image, section.listed("tags"))),
        network=section.text("network"),
        platforms=section.texts("platforms"),
        extra_hosts=container.extra_hosts(section),
        shm_size_bytes=section.size_bytes("shm_size"),
        no_cache=section.flag("no_cache"),
        pull=section.flag("pull"),
        cache_from=section.texts("cache_from"),
        additional_contexts=_contexts(section, compiling),
        secrets=_secrets(section, compiling),
        ssh=_ssh(section),
        ulimits=container.ulimits(section),
        privileged=section.flag("privileged"),
        isolation=section.choice("isolation", {"default": "default"}, ""),
        entitlements=section.texts("entitlements"),
    )


def _context(view: View, compiling: Compiling) -> str:
    text = view.as_text()
    if _URL.match(text):
        return text
    path = compiling.path(view, text)
    seen = compiling.sources.look(Look.STAT, path)
    if seen is not None and seen.kind is not Kind.DIRECTORY:
        compiling.context.report.lacks(
            view.node.where, view.path, path, f"the build context {path} is not a directory",
            "Make it before `apply --build`",
        )  # fmt: skip
    return path


def _look_for_dockerfile(view: View, context: str, path: str, compiling: Compiling) -> None:
    if _URL.match(context):
        return
    directory = compiling.sources.look(Look.STAT, context)
    file = path or resolve("Dockerfile", context)
    seen = compiling.sources.look(Look.STAT, file)
    if directory is None or seen is None or directory.kind is not Kind.DIRECTORY:
        return  # not known yet, or the missing context says it all
    if seen.kind is not Kind.FILE:
        compiling.context.report.lacks(
            view.node.where, view.path, file, f"the Dockerfile {file} does not exist",
            "Make it before `apply --build`",
        )  # fmt: skip


def _args(section: View, compiling: Compiling) -> Pairs:
    outer = compiling.project.environment
    given = []
    for name, value, _ in section.assignments("args"):
        value = outer.get(name) if value is None else value
        if value is not None:
            given.append((name, value))
    return pairs(given)


def _contexts(section: View, compiling: Compiling) -> Pairs:
    given = []
    for name, value, item in section.assignments("additional_contexts"):
        text = value or ""
        given.append((name, text if _URL.match(text) else compiling.path(item, text)))
    return pairs(given)


def _ssh(section: View) -> Pairs:
    found = section.at("ssh")
    if found is None:
        return ()
    if not found.is_map and not found.is_list:
        return ((found.as_text(), ""),)
    return section.pairs("ssh")


def _secrets(section: View, compiling: Compiling) -> tuple[BuildSecret, ...]:
    defined = compiling.project.tree.get("secrets")
    known = View(defined, "secrets", compiling.context) if defined is not None else None
    found = []
    for item in section.listed("secrets"):
        source = item.text("source") if item.is_map else item.as_text()
        target = item.text("target", source) if item.is_map else source
        entry = known.at(source) if known is not None else None
        if entry is None:
            names = [key.name for key, _ in known.entries()] if known is not None else []
            item.refuse(
                f"the secret {source[:60]!r} is not defined", suggest.nearest(source, names)
            )
            continue
        file = entry.at("file")
        variable = entry.at("environment")
        if file is not None:
            path = compiling.path(file)
            compiling.content(file, path, "file of the secret")
            found.append(BuildSecret(id=target, file=path))
        elif variable is not None:
            value = compiling.project.environment.get(variable.as_text(), "")
            found.append(BuildSecret(id=target, data=value.encode("utf-8", "surrogateescape")))
    return tuple(found)
