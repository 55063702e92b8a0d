"""One service of the file, as a ServiceSpec."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from homeport.compose import (
    binds,
    build,
    container,
    deploy,
    mounts,
    needs,
    networks,
    placing,
    resources,
    stored,
    suggest,
    variables,
)
from homeport.compose.build import BuildSpec
from homeport.compose.compiling import Compiling
from homeport.compose.view import View
from homeport.spec import (
    Dependency,
    DependencyCondition,
    Driver,
    FileKind,
    FileMount,
    Mode,
    ServiceSpec,
)

_DRIVERS = {driver.name.lower(): driver for driver in Driver}
_CONDITIONS = {
    "service_started": DependencyCondition.STARTED,
    "service_healthy": DependencyCondition.HEALTHY,
    "service_completed_successfully": DependencyCondition.COMPLETED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the stack defines, for services to refer to."""

    services: Collection[str]
    inactive: Collection[str]  # services whose profile is not active
    networks: Collection[str]
    volumes: Collection[str]
    configs: Collection[str]
    secrets: Collection[str]
    awaited: Collection[str]  # services that another waits for to complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A service and what it brings along."""

    spec: ServiceSpec
    build: BuildSpec | None
    links: tuple[tuple[str, str, View], ...]  # (service, alias, place)


def read(
    name: str, service: View, names: Names, luggage: binds.Luggage, compiling: Compiling
) -> Read:
    """Read one service; what is wrong is in the report."""
    section = service.at("deploy")
    if section is not None and not section.is_map:
        section.refuse("must be a map")
        section = None
    ours = service.at("x-homeport")
    driver = ours.choice("runtime", _DRIVERS, Driver.DOCKER) if ours else Driver.DOCKER
    kind = deploy.mode(section)
    replicas = deploy.replicas(service, section, kind)
    limits = resources.limits(service)
    reservations = resources.reservations(service, limits)
    image_view = service.at("image")
    image = container.image(image_view)
    has_build = service.at("build") is not None
    if not image and has_build:
        image = f"{compiling.project.name}-{name}".lower()
    elif image_view is None and not has_build and driver is Driver.DOCKER:
        service.refuse("has neither an image nor a build", "Add `image:`")
    spec = container.read(service, limits, compiling, has_build=has_build)
    settled = binds.settle(mounts.read(service, names.volumes, compiling), luggage, compiling)
    files = (*settled.files, *_files(service, names))
    _once(service, [m.target for m in settled.mounts], [f.target for f in files])
    attachments = (
        () if spec.network_mode else networks.attachments(service, name, names.networks, replicas)
    )
    ports = spec.ports
    if spec.network_mode in ("host", "none") and ports:
        found = service.at("ports")
        if found is not None:
            found.notice(
                f"publishes nothing: with network_mode {spec.network_mode} the container has no "
                "ports of its own", "Remove it",
            )  # fmt: skip
        ports = ()
    spec = replace(
        spec,
        image=image,
        memory_reservation_bytes=reservations.memory_bytes,
        mounts=settled.mounts,
        files=files,
        networks=attachments,
        ports=ports,
        venv_requirements=_venv(ours, driver, compiling) if ours else "",
    )
    links = _links(service, names)
    return Read(
        spec=ServiceSpec(
            name=name,
            container=spec,
            driver=driver,
            mode=kind,
            replicas=replicas,
            labels=variables.plain_labels(section, "labels") if section else (),
            placement=placing.read(section, ours, names.services, names.inactive),
            reservations=reservations,
            restart=deploy.restart(service, section, kind, must_end=name in names.awaited),
            update=deploy.update(section, "update_config"),
            rollback=deploy.update(section, "rollback_config"),
            endpoint_mode=deploy.endpoint_mode(section),
            depends_on=_dependencies(name, service, names, links),
            exclusive=_exclusive(ours, replicas),
            priority=ours.whole("priority", -1_000_000, 1_000_000) if ours else 0,
            pin_node=_pin(ours, settled.pin_node),
            max_concurrent=_concurrent(ours, kind.is_job),
            devices=needs.devices(ours),
            preempts=ours.flag("preempts") if ours else False,
            preemptible=_preemptible(ours),
            min_replicas=_min_replicas(ours, kind, replicas),
        ),
        build=build.read(service, name, image, compiling) if has_build else None,
        links=links,
    )


def _once(service: View, mounted: list[str], files: list[str]) -> None:
    seen = set(mounted)
    for target in files:
        if target in seen:
            service.refuse(f"two things are mounted at {target}", "Change one of the targets")
        seen.add(target)


def _files(service: View, names: Names) -> list[FileMount]:
    configs = stored.mounts(service, FileKind.CONFIG, names.configs)
    secrets = stored.mounts(service, FileKind.SECRET, names.secrets)
    return [mount for mount, _ in (*configs, *secrets)]


def _links(service: View, names: Names) -> tuple[tuple[str, str, View], ...]:
    found = []
    for item in service.listed("links"):
        target, _, alias = item.as_text().partition(":")
        if target not in names.services:
            near = suggest.nearest(target, names.services)
            item.refuse(f"there is no service {target[:60]!r} to link to", near)
            continue
        if alias and alias != target:
            item.notice(
                f"the name {alias[:60]} is known to every service on the network that the two "
                "share, not to this one alone", f"Use the service's own name, {target}",
            )  # fmt: skip
        found.append((target, alias or target, item))
    return tuple(found)


def _dependencies(
    name: str, service: View, names: Names, links: tuple[tuple[str, str, View], ...]
) -> tuple[Dependency, ...]:
    found: dict[str, Dependency] = {}
    section = service.at("depends_on")
    if section is not None and section.is_list:
        for item in section.items():
            target = item.as_text()
            if _may_depend(name, target, item, names, required=True):
                found[target] = Dependency(service=target)
    elif section is not None:
        for key, item in section.entries():
            required = item.flag("required", True)
            condition = item.choice("condition", _CONDITIONS, DependencyCondition.STARTED)
            if not item.is_map:
                item.refuse("must be a map with a `condition`")
            restart = item.at("restart")
            if restart is not None and restart.as_bool():
                restart.notice(
                    f"is recorded, but a restart of {key.name} does not restart this service",
                    "To restart both, remove them with `homeport rm` and `homeport apply` again",
                )
            if _may_depend(name, key.name, item, names, required=required):
                found[key.name] = Dependency(
                    service=key.name,
                    condition=condition,
                    required=required,
                    restart=restart.as_bool() if restart is not None else False,
                )
    for target, _, _ in links:
        if target != name:
            found.setdefault(target, Dependency(service=target))
    return tuple(found[target] for target in sorted(found))


def _may_depend(name: str, target: str, item: View, names: Names, *, required: bool) -> bool:
    if target == name:
        item.refuse("a service cannot depend on itself")
        return False
    if target in names.services:
        return True
    if not required:
        return False
    if target in names.inactive:
        item.refuse(
            f"the service {target} is in a profile that is not active",
            "Activate it with --profile, or write `required: false`",
        )
    else:
        near = suggest.nearest(target, names.services)
        item.refuse(f"there is no service {target[:60]!r} to depend on", near)
    return False


def awaited(service: View) -> list[str]:
    """The services that this one waits for to complete."""
    section = service.at("depends_on")
    if section is None or not section.is_map:
        return []
    return [
        key.name
        for key, item in section.entries()
        if item.text("condition") == "service_completed_successfully"
    ]


def _exclusive(ours: View | None, replicas: int) -> bool | None:
    found = ours.at("exclusive") if ours else None
    if found is None:
        return None
    exclusive = found.as_bool()
    if exclusive and replicas > 1:
        found.refuse(f"at most one copy may run, and {replicas} replicas are asked for")
    return exclusive


def _preemptible(ours: View | None) -> bool | None:
    found = ours.at("preemptible") if ours else None
    return found.as_bool() if found is not None else None


def _min_replicas(ours: View | None, kind: Mode, replicas: int) -> int:
    found = ours.at("min_replicas") if ours else None
    if found is None or ours is None:
        return 0
    least = ours.whole("min_replicas", 0, deploy.REPLICAS_MAX)
    if kind.is_global:
        found.refuse("is for services with a number of replicas", "Write `preemptible: false`")
    elif least > replicas:
        found.refuse(f"is more than the {replicas} replicas that there are to be")
    return least


def _pin(ours: View | None, bind_node: str) -> str:
    found = ours.at("node") if ours else None
    if found is None:
        return bind_node
    node = found.as_text()
    if bind_node and node != bind_node:
        found.refuse(
            f"a relative bind source is on node {bind_node}, and this pins the service to {node}",
            "Use an absolute path, or remove the pin",
        )
    return node


def _concurrent(ours: View | None, is_job: bool) -> int:
    found = ours.at("max_concurrent") if ours else None
    if found is None or ours is None:
        return 0
    if not is_job:
        found.refuse("is for jobs only", "Set `deploy.mode` to replicated-job")
    return ours.whole("max_concurrent", 0, deploy.REPLICAS_MAX)


def _venv(ours: View, driver: Driver, compiling: Compiling) -> str:
    found = ours.at("venv")
    if found is None:
        return ""
    if driver is not Driver.PROCESS:
        found.refuse("is for the process runtime", "Add `runtime: process`")
        return ""
    path = compiling.path(found)
    seen = compiling.content(found, path, "list of requirements")
    if seen is None or seen.data is None:
        return ""
    try:
        return seen.data.decode()
    except UnicodeDecodeError:
        found.refuse(f"{path} is not UTF-8 text")
        return ""
