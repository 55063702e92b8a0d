"""The benchmark of two million containers, with a few: what it counts is what took place."""

import json
from dataclasses import replace

import pytest

from tests.bench import results
from tests.bench.placement import c2m


@pytest.mark.parametrize("store", ["etcd", "sqlite"])
def test_every_container_is_stored_acknowledged_and_heard_to_run(store):
    found = c2m.once(4, 1_050, store, deadline_seconds=120)
    assert found.stored == 1_050
    assert 0 < found.applied_seconds <= found.received_seconds <= found.heard_seconds
    assert 4 <= found.messages <= 1_050
    assert found.peak_mb >= found.attached_mb > 0
    assert (found.store_peak_mb > 0) == (store == "etcd")
    assert found.store_bytes > 0
    assert set(found.cpu_seconds) >= {"scheduler", "agents"}


def test_only_the_full_size_is_judged():
    fields = dict.fromkeys(c2m.Figures.__dataclass_fields__, 0) | {"store": "etcd"}
    small = c2m.Figures(**fields)
    assert c2m.targets(small) == []
    full = replace(
        small, nodes=6_100, containers=2_000_000, received_seconds=100.0, peak_mb=2_000.0
    )
    assert [each.is_met for each in c2m.targets(full)] == [True, True]
    slow = replace(full, received_seconds=151.0, peak_mb=2_200.0)
    assert [each.is_met for each in c2m.targets(slow)] == [False, False]


def test_a_run_keeps_its_figures_and_is_judged_by_time_and_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(c2m, "NODES", 3)
    monkeypatch.setattr(c2m, "CONTAINERS", 60)
    seconds, memory = c2m.measured(3, 60, ("sqlite",), deadline_seconds=120)
    assert seconds.is_most
    assert memory.is_most
    kept = json.loads((tmp_path / "placement_c2m_sqlite.json").read_text())["figures"]
    assert kept["received_seconds"] == seconds.found > 0
    assert 0 < memory.found < 2


def test_services_are_of_a_thousand_replicas_and_what_is_left_over():
    specs = list(c2m.stacks(102_500))
    replicas = [[service.replicas for service in spec.services] for spec in specs]
    assert replicas == [[1_000] * 50, [1_000] * 50, [1_000, 1_000, 500]]
    assert len({spec.name for spec in specs}) == 3
