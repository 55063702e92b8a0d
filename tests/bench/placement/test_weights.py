"""The weighing of tasks: what it finds is what tasks make the difference of."""

import json

from tests.bench import results
from tests.bench.placement import weights


def test_all_structures_are_weighed_and_the_sum_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    found = weights.measured(120, 4, 30, lines=3)
    # A record and a status are 176 bytes each, whatever else there is.
    assert found.by_structure["statuses"] > 120 * 160
    assert sum(each > 0 for each in found.by_structure.values()) >= 7
    assert found.per_task > 400
    assert sum(size for _, size, _ in found.by_line) / 120 == found.per_task
    kept = json.loads((tmp_path / "placement_weights.json").read_text())["figures"]
    assert kept["per_task"] == found.per_task


def test_services_have_as_many_replicas_as_asked_for_and_what_is_left_over():
    assert [each.replicas for each in weights.services(70, 30)] == [30, 30, 10]
