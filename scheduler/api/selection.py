"""Which tasks a user means by a service's name, a slot (`web.1`, `stack/web.1`) or a task id."""

from __future__ import annotations

from collections.abc import Iterable

from homeport.model import Event, Service, ServiceId, Task, TaskId, split_task_id
from scheduler.api.errors import NotFound
from scheduler.cluster.view import View


def split(stack: str, given: str) -> tuple[str, str]:
    """(stack, object) of `stack/object`, where the stack may have been given apart."""
    before, slash, after = given.partition("/")
    return (before, after) if slash and not stack else (stack, given)


def services(view: View, stack: str) -> list[Service]:
    """The services of a stack, or of all. Raises NotFound."""
    if not stack:
        return sorted(view.services(), key=lambda each: (each.stack, each.name, each.id))
    found = view.services_of(stack)
    if not found and view.stack(stack) is None:
        raise NotFound("stack", stack)
    return found


def slot(view: View, stack: str, given: str) -> tuple[Service, int | None]:
    """The service, and the slot if one is named. Raises NotFound."""
    try:
        service_id, number, _ = split_task_id(TaskId(given))
    except ValueError:
        pass
    else:
        service = view.service(service_id)
        if service is not None:
            return service, number
    stack, name = split(stack, given)
    for service in _named(view, stack, name):
        return service, None
    base, dot, last = name.rpartition(".")
    if dot:
        for service in _named(view, stack, base):
            if last.isdecimal():
                return service, int(last)
            node = view.node_named(last)
            if service.mode.is_global and node is not None:
                return service, node.number
    where = f" in stack {stack}" if stack else ""
    raise NotFound("service or task", f"{name}{where}", "homeport ps lists what there is")


def tasks(view: View, stack: str, given: Iterable[str]) -> list[Task]:
    """All tasks that these names mean; every task of the stack for no name. Raises NotFound."""
    names = list(given)
    if not names:
        return [
            task for service in services(view, stack) for task in view.tasks_of_service(service.id)
        ]
    found: dict[TaskId, Task] = {}
    for name in names:
        exact = view.task(TaskId(name))
        if exact is not None:
            found[exact.id] = exact
            continue
        service, number = slot(view, stack, name)
        chosen = (
            view.tasks_of_service(service.id)
            if number is None
            else view.tasks_of_slot(service.id, number)
        )
        found.update((task.id, task) for task in chosen)
    return list(found.values())


def is_of_stack(view: View, event: Event, stack: str) -> bool:
    """Whether an event is about this stack or something of it; every one is for no stack."""
    if not stack or event.object == stack:
        return True
    service = view.service(ServiceId(event.object.partition("/")[0]))
    if service is not None:
        return service.stack == stack
    return event.object.startswith(f"{stack}-")  # of a service that is gone


def is_about(view: View, event: Event, stack: str, given: str) -> bool:
    """Whether an event is about what a user calls by this name."""
    if event.object == given or event.node == given or event.object.startswith(f"{given}/"):
        return True
    try:
        service, number = slot(view, stack, given)
    except NotFound:
        return False
    prefix = f"{service.id}/" if number is None else f"{service.id}/{number}/"
    return event.object == service.id or event.object.startswith(prefix)


def _named(view: View, stack: str, name: str) -> list[Service]:
    if stack:
        found = view.service_named(stack, name)
        return [found] if found is not None else []
    return sorted(
        (service for service in view.services() if service.name == name),
        key=lambda each: (each.removing, each.stack, each.id),
    )
