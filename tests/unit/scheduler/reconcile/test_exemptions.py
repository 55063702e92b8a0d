"""Nothing is decided about a service of which not all can be known."""

from dataclasses import replace

import pytest

from scheduler.reconcile import exemptions
from tests.builders import World, spec


@pytest.fixture
def world():
    world = World()
    world.apply(spec("web"))
    return world


@pytest.fixture
def service(world):
    return world.tables.service_named("shop", "web").id


@pytest.mark.parametrize("key", ["services/{}", "rollouts/{}", "specs/{}/1", "tasks/{}/1/1"])
def test_a_record_of_a_newer_version_exempts_its_service(world, service, key):
    assert not exemptions.is_unreadable(world.tables, service)
    world.tables.put_unreadable(key.format(service), "it is newer", 99)
    assert exemptions.is_unreadable(world.tables, service)
    assert not exemptions.is_unreadable(world.tables, f"{service}1")
    assert not exemptions.is_unreadable(world.tables, service[:-1])


def test_a_draft_exempts_the_services_of_its_stack(world, service):
    assert not exemptions.is_drafted(world.tables, service)
    world.put(replace(world.tables.stack("shop"), draft="d"))
    assert exemptions.is_drafted(world.tables, service)
    other = world.apply(spec("web"), stack="home")
    assert not exemptions.is_drafted(world.tables, other)


def test_what_a_service_without_a_record_left_behind_is_decided_about(world):
    assert not exemptions.is_drafted(world.tables, "nobody")
    assert not exemptions.is_unreadable(world.tables, "nobody")
