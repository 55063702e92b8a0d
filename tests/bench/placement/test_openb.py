"""The benchmark itself: its protocol, its policies by hand, its own small trace."""

from dataclasses import replace

import numpy as np
import pytest

from tests.bench import results
from tests.bench.placement import openb, openb_policies, openb_trace
from tests.bench.placement.openb_trace import Machine, Pod, Trace

NODES = (
    Machine(16_000, 64_000, 2, "A"),
    Machine(96_000, 400_000, 4, "B"),
    Machine(96_000, 400_000, 4, "B"),
)
SHARED = Pod(4_000, 1_000, 1, 500)
WHOLE = Pod(8_000, 1_000, 1, 1000)
PLAIN = Pod(4_000, 1_000, 0, 0)
ROWS = np.arange(3)


def state():
    return openb_policies.State(NODES)


def scores(policy, pod, *before):
    here = state()
    for other, row, gpu in before:
        here.take(other, row, gpu)
    return policy(here, pod, ROWS).tolist()


def test_pods_come_until_130_percent_of_the_gpus_are_asked_for():
    nodes, known = openb_trace.made_up()
    one, again, other = (openb_trace.trace(nodes, known, seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert sorted(one.machines) == sorted(nodes)
    asked = sum(pod.gpu_millis for pod in one.pods)
    assert 1.25 * one.capacity < asked <= 1.3 * one.capacity + 8000
    few = openb_trace.trace(nodes[:5], known, 1)
    assert sum(pod.gpu_millis for pod in few.pods) <= 1.3 * few.capacity


def test_typical_pods_are_the_most_frequent_95_percent_whatever_their_memory():
    known = [SHARED] * 50 + [replace(SHARED, memory=7)] * 40 + [WHOLE] * 6 + [PLAIN] * 4
    found = openb_trace.typical(known)
    assert [(pod, round(part, 4)) for pod, part in found] == [
        (replace(SHARED, memory=0), 0.9375),
        (replace(WHOLE, memory=0), 0.0625),
    ]


def test_packing_prefers_gpus_in_use_then_nodes_in_use_then_small_nodes():
    assert scores(openb_policies.packing, SHARED) == [31, 29, 29]
    assert scores(openb_policies.packing, SHARED, (SHARED, 1, 0)) == [31, 95, 29]
    assert scores(openb_policies.packing, WHOLE, (SHARED, 1, 0)) == [31, 49, 29]
    assert scores(openb_policies.packing, PLAIN, (SHARED, 1, 0)) == [0, 0, 0]


def test_clustering_prefers_nodes_of_its_kind():
    assert scores(openb_policies.clustering, SHARED) == [43, 37, 37]
    assert scores(openb_policies.clustering, SHARED, (SHARED, 1, 0), (WHOLE, 2, 0)) == [43, 89, 15]


def test_best_fit_and_dot_product_score_by_what_is_left_and_by_likeness():
    assert scores(openb_policies.best_fit, WHOLE) == [90, 46, 46]
    assert scores(openb_policies.dot_product, WHOLE) == [98, 94, 94]


def test_fragments_are_what_typical_pods_cannot_use():
    known = (WHOLE, WHOLE, WHOLE, SHARED)
    here = state()
    gradient = openb_policies.Gradient(Trace(NODES, (), known, 10_000), here)
    here.take(SHARED, 0, 0)  # 500 on A are no use to three of four
    here.cpu[1] = 5_000  # B has cpu for shared pods only
    here.cpu[2] = 1_000  # and this one for none
    found = gradient.fragments(here.cpu, here.model, here.free)
    assert found.tolist() == pytest.approx([0.75 * 500, 0.75 * 4000, 4000])


def test_pods_without_gpu_and_of_other_models_can_use_nothing():
    wants_a = Pod(1_000, 0, 1, 1000, ("A",))
    here = state()
    gradient = openb_policies.Gradient(Trace(NODES, (), (PLAIN, wants_a), 10_000), here)
    assert gradient.fragments(here.cpu, here.model, here.free).tolist() == [1000, 4000, 4000]


@pytest.mark.parametrize("name", openb_policies.NAMES)
def test_no_policy_gives_out_more_than_there_is(name):
    nodes, known = openb_trace.made_up()
    percent = openb_policies.run(name, openb_trace.trace(nodes, known, 3), 3)
    assert 60 < percent <= 100


def test_the_engine_gives_out_more_than_chance_on_the_made_up_trace():
    nodes, known = openb_trace.made_up()
    seeds = range(4)
    traces = [openb_trace.trace(nodes, known, seed) for seed in seeds]
    ours = [openb.run(trace)[0] for trace in traces]
    chance = [
        openb_policies.run("random", trace, seed) for trace, seed in zip(traces, seeds, strict=True)
    ]
    assert sum(chance) < sum(ours) <= 400


def test_the_targets_are_of_the_default_trace_and_of_the_mean_beside_fgd():
    found = openb.targets({"default": {"Homeport": [95.0, 95.2], "FGD": [95.3, 95.3]}})
    assert [(each.found, each.required, each.is_met) for each in found] == [
        (pytest.approx(95.1), 95.3, False),
        (pytest.approx(95.1), pytest.approx(95.3), False),
    ]
    (alone,) = openb.targets({"default": {"Homeport": [95.6]}})
    assert alone.is_met
    assert openb.targets({"made-up": {"Homeport": [95.6], "FGD": [90.0]}}) == []


def test_where_the_traces_are_not_a_made_up_one_stands_in(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(openb_trace, "FOLDER", tmp_path / "nonexistent")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert openb.measured(seeds=1, policies="Homeport,FGD") == []
    assert "not on this machine" in capsys.readouterr().out
    assert (tmp_path / "placement-openb.json").exists()
