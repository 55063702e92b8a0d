"""Stranded GPU: what it is on one node, and the same over arrays."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from homeport.spec import DeviceNeed
from scheduler.placement import fragmentation, gpus, stranding
from scheduler.placement.fragmentation import IMPOSSIBLE, STEP, UNIT, VIEWS, Typical
from scheduler.placement.gpus import Room
from scheduler.placement.requirements import NOTHING, Requirements

LOOKS = (("nvidia", "T4"), ("nvidia", "A2"), ("amd", "T4"))
GIB = 1 << 30


def gpu(share=1000, count=1, **what):
    return DeviceNeed(kind="gpu", share_millis=share, count=count, **what)


def asks(cpu, memory, *needs):
    return Requirements(cpu_millis=cpu, memory_bytes=memory, devices=needs)


def room(*free, cpu=8000, memory=64 * GIB, look=LOOKS[0]):
    return Room(cpu, memory, (look,) * len(free), free)


def mix_of(held):
    census = fragmentation.Census()
    for needs, count in held.items():
        census.count(needs, count)
    return census.mix()


def typical(cpu, memory, need, weight=1):
    return Typical(cpu, memory, need, weight)


# ---------------------------------------------------------------- gpus


@pytest.mark.parametrize(
    ("need", "free", "expected"),
    [
        pytest.param(gpu(), (1000, 400, 1000), ((0,),), id="a whole one: the first that is free"),
        pytest.param(gpu(), (900, 400), (), id="no whole one is left"),
        pytest.param(gpu(count=2), (1000, 400, 1000), ((0, 2),), id="two whole ones"),
        pytest.param(gpu(count=2), (1000, 400), (), id="two, and one is there"),
        pytest.param(gpu(300), (1000, 400, 1000, 300), ((3,), (1,), (0,)), id="a share: each kind"),
        pytest.param(gpu(500), (400, 300), (), id="shares of two do not add up"),
        pytest.param(
            gpu(300, count=2), (1000, 400, 500), ((1, 2),), id="shares of the fullest two"
        ),
        pytest.param(gpu(count=-1), (1000, 1000), ((0, 1),), id="all of them"),
        pytest.param(gpu(count=-1), (1000, 999), (), id="all, and one is in use"),
        pytest.param(gpu(count=-1), (), (), id="all of none"),
        pytest.param(gpu(models=("a*",)), (1000,), (), id="another model"),
    ],
)
def test_a_task_may_choose_between(need, free, expected):

    assert gpus.options(need, room(*free)) == expected


def test_a_share_of_each_different_gpu_is_worth_a_thought():
    mixed = Room(0, 0, LOOKS, (500, 500, 500))
    assert gpus.options(gpu(500), mixed) == ((0,), (1,), (2,))
    assert gpus.options(gpu(500, vendor="nvidia", models=("t?",)), mixed) == ((0,),)


# ---------------------------------------------------------------- the mix


def test_typical_is_what_is_held_often_enough():
    held = {
        asks(1000, GIB, gpu(500)): 60,
        asks(2000, GIB, gpu()): 30,
        asks(2000, GIB, gpu(), DeviceNeed(name="/dev/ttyUSB0", kind="serial")): 8,
        asks(1000, GIB, gpu(10)): 1,
        asks(1000, GIB, gpu(count=-1)): 50,
        asks(1000, GIB, gpu(), gpu()): 50,
        asks(1000, GIB, gpu(0)): 50,
        asks(1000, GIB, DeviceNeed(kind="gpu", name="GPU-1")): 50,
        NOTHING: 50,
    }
    assert mix_of(held) == (
        typical(1000, GIB, gpu(500), 39),
        typical(2000, GIB, gpu(), 25),
        typical(1000, GIB, gpu(10), 1),
    )
    held[asks(1000, GIB, gpu(500))] = 600
    assert [each.weight for each in mix_of(held)] == [60, 4]
    assert mix_of({}) == ()


def test_the_order_of_what_is_held_does_not_matter():
    held = [(asks(cpu, GIB, gpu(share)), 3) for cpu in (1, 2, 3) for share in (300, 700)]
    assert mix_of(dict(held)) == mix_of(dict(reversed(held)))


# ---------------------------------------------------------------- stranded


@pytest.mark.parametrize(
    ("need", "node", "now", "end"),
    [
        pytest.param(gpu(), room(1000, 1000), 0, 0, id="all of it can be used"),
        pytest.param(gpu(), room(1000, 300), 300, 300, id="a rest that is too small"),
        pytest.param(gpu(400), room(1000, 300), 300, 500, id="shares leave rests"),
        pytest.param(gpu(), room(1000, 1000, cpu=5000), 0, 1000, id="cpu for one of two"),
        pytest.param(gpu(), room(1000, 1000, cpu=3000), 2000, 2000, id="cpu for none"),
        pytest.param(gpu(), room(1000, 1000, memory=9 * GIB), 0, 1000, id="memory for one"),
        pytest.param(gpu(count=2), room(1000, 1000, 1000), 0, 1000, id="pairs"),
        pytest.param(gpu(count=2), room(1000, 300), 1300, 1300, id="one, and two are needed"),
        pytest.param(gpu(vendor="amd"), room(1000), 1000, 1000, id="not of this vendor"),
    ],
)
def test_idle_gpu_is_stranded(need, node, now, end):
    mix = (typical(4000, 8 * GIB, need, 3),)
    expected = 3 * (fragmentation.NOW * now + fragmentation.END * end)
    assert fragmentation.stranded(mix, node) == expected


def test_what_asks_for_no_cpu_and_memory_is_not_limited_by_them():
    assert fragmentation.stranded((typical(0, 0, gpu()),), room(1000, cpu=0, memory=0)) == 0


def test_a_task_takes_the_gpu_whose_rest_is_of_use():
    mix = (typical(1000, GIB, gpu(500), 32), typical(1000, GIB, gpu(300), 32))
    points, option = fragmentation.best(mix, room(1000, 500, 800), asks(1000, GIB, gpu(500)))
    assert option == (1,)
    assert points > fragmentation.best(mix, room(1000), asks(1000, GIB, gpu(500)))[0]


def test_a_task_without_gpu_strands_by_taking_the_cpu():
    mix = (typical(4000, GIB, gpu(), 64),)
    tight, ample = room(1000, 1000, cpu=8000), room(1000, 1000, cpu=16000)
    assert fragmentation.best(mix, tight, asks(1000, GIB))[0] < 0
    assert fragmentation.best(mix, ample, asks(1000, GIB)) == (0, ())
    assert fragmentation.best(mix, room(), asks(1000, GIB)) == (0, ())


# ---------------------------------------------------------------- arrays

whats = st.fixed_dictionaries(
    {},
    optional={"vendor": st.sampled_from(("nvidia", "amd")), "models": st.just(("T*",))},
)
shares = st.sampled_from((1, 160, 300, 500, 640, 810, 999, 1000))


@st.composite
def needs_of_gpus(draw):
    count = draw(st.sampled_from((1, 1, 1, 2, 4, -1)))
    return gpu(draw(shares), count, **draw(whats))


classes = st.builds(
    asks,
    st.sampled_from((0, 1000, 4000, 11300)),
    st.sampled_from((0, GIB, 48 * GIB)),
    needs_of_gpus(),
)
plain = st.builds(asks, st.sampled_from((0, 1000, 4000)), st.sampled_from((0, GIB)))


@st.composite
def rooms(draw):
    size = draw(st.integers(0, 5))
    return Room(
        draw(st.integers(-10, 100_000)),
        draw(st.integers(-10, 200)) * GIB,
        tuple(draw(st.sampled_from(LOOKS)) for _ in range(size)),
        tuple(draw(st.sampled_from((0, 190, 300, 530, 700, 999, 1000, 1000))) for _ in range(size)),
    )


def arrays(nodes):
    width = max(1, *(len(node.free) for node in nodes))
    look = np.full((len(nodes), width), -1)
    free = np.zeros((len(nodes), width), dtype=np.int64)
    for row, node in enumerate(nodes):
        look[row, : len(node.free)] = [LOOKS.index(each) for each in node.looks]
        free[row, : len(node.free)] = node.free
    return stranding.Rooms(
        np.array([node.cpu_millis for node in nodes], dtype=np.float64),
        np.array([node.memory_bytes for node in nodes], dtype=np.float64),
        look,
        free,
    )


@given(
    st.lists(rooms(), min_size=1, max_size=6),
    st.dictionaries(classes, st.integers(1, 40), max_size=6),
    st.one_of(classes, plain),
)
def test_arrays_give_the_points_of_the_reference(nodes, held, asked):
    mix = mix_of(held)
    table = stranding.Table(mix, LOOKS)
    expected = [fragmentation.best(mix, node, asked)[0] for node in nodes]
    assert table.points(arrays(nodes), asked).tolist() == expected


@given(rooms(), st.dictionaries(classes, st.integers(1, 40), max_size=6), classes)
def test_points_are_of_the_best_choice_among_all_gpus(node, held, asked):
    """Every GPU that could be given is tried: the choices that are offered miss none better."""
    mix = mix_of(held)
    need = gpus.need_of(asked)
    assume(need.count == 1)
    points, option = fragmentation.best(mix, node, asked)
    tried = {}
    for place, (look, free) in enumerate(zip(node.looks, node.free, strict=True)):
        if free < need.share_millis or not gpus.accepts(need, look):
            continue
        after = node.without(asked, (place,), need.share_millis)
        left = (after.cpu_millis + 16 * sum(after.free)) // 25
        saved = fragmentation.stranded(mix, node) - fragmentation.stranded(mix, after) - left
        tried[place] = saved
    if not tried:
        assert (points, option) == (IMPOSSIBLE, ())
    elif need.share_millis < 1000:
        assert points == max(tried.values()) // (UNIT * STEP)
        assert tried[option[0]] == max(tried.values())
    else:
        assert option == (min(tried),)


@given(rooms(), st.dictionaries(classes, st.integers(1, 40), max_size=6))
def test_no_more_is_stranded_than_is_idle(node, held):
    mix = mix_of(held)
    weights = sum(each.weight for each in mix)
    assert 0 <= fragmentation.stranded(mix, node) <= weights * VIEWS * sum(node.free)


@given(st.dictionaries(classes, st.integers(1, 40), max_size=6))
def test_weights_are_parts_of_all_that_is_held(held):
    kinds = Counter()
    for needs, count in held.items():
        if gpus.need_of(needs).count > 0:
            kinds[(needs.cpu_millis, needs.memory_bytes, gpus.need_of(needs))] += count
    total = sum(kinds.values())
    for each in mix_of(held):
        exact = 64 * kinds[(each.cpu_millis, each.memory_bytes, each.need)] / total
        assert abs(each.weight - exact) <= 0.5
