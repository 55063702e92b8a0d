"""What stories of services begin with, and ask again and again."""

from homeport.spec import Mount, MountKind

BIND = Mount(kind=MountKind.BIND, source="/srv/data", target="/data")
"""What a task writes to a directory of its node."""


def running(world, *specs, **fields):
    """The ids of these services, or of the one, when all their tasks run."""
    services = [world.apply(each, **fields) for each in specs]
    world.rest()
    world.run_all()
    world.rest()
    return services if len(services) > 1 else services[0]


def newest(world, service, slot=1):
    """The last task of a slot, ended or not."""
    return world.tables.tasks_of_slot(service, slot)[-1]
