"""What placement says to people: a sentence for each rule, and why nowhere."""

import re

import pytest

from homeport.model import NodeId
from scheduler.cluster.observed import Refusal
from scheduler.placement import filters, words

GIB = str(1 << 30)
SAID = [
    ("ready", "", "", "a is not ready: its agent is not connected or has not reported yet"),
    ("availability", "", "", "a takes no new tasks: it is paused or drained"),
    ("condition", "", "its disk is full", "a takes no new tasks: its disk is full"),
    ("node", "b", "", "a is not b, where this task belongs"),
    ("bind-source", "nas", "", "a is not nas, where the files that it binds are"),
    ("fencing", "", "it sees no processes", "a can run no exclusive task: it sees no processes"),
    ("driver", "docker", "process", "a cannot run docker tasks; its agent has: process"),
    ("driver", "docker", "", "a cannot run docker tasks; its agent has: nothing"),
    (
        "platform",
        "linux/arm64",
        "linux/x86_64",
        "a is linux/x86_64, and the image is for linux/arm64",
    ),
    ("oci-runtime", "kata", "runc", "a has no OCI runtime kata; its engine has: runc"),
    ("oci-runtime", "kata", "", "a has no OCI runtime kata; its engine has: only its default"),
    ("constraint", "x == 1", "2", "a does not satisfy x == 1; there it is 2"),
    ("constraint", "x == 1", "", "a does not satisfy x == 1; there it is not set"),
    ("taint", "gpu:refuse", "", "a has the taint gpu:refuse, which this service does not tolerate"),
    (
        "path",
        "/mnt/x/y",
        "/mnt/x",
        "a has no /mnt/x, and the bind of /mnt/x/y needs it to be there already",
    ),
    ("volume", "data", "b", "a does not have volume data, whose data is on b"),
    (
        "excluded",
        "",
        "",
        "a could not run this generation a short while ago; it is tried again later",
    ),
    ("tasks-per-node", "2", "3", "a has 3 tasks of this service already, and it allows 2"),
    ("ports", "80/tcp", "", "a has port 80/tcp taken"),
    ("ports", "80/tcp", "192.0.2.1", "a has port 80/tcp taken on 192.0.2.1"),
    ("memory", GIB, "512", "a has 512 B of memory free of reservations, and 1 GiB is needed"),
    (
        "memory",
        str((1 << 30) + 1),
        GIB,
        "a has 1073741824 B of memory free of reservations, and 1073741825 B is needed",
    ),
    ("memory", "1023", "1024", "a has 1 KiB of memory free of reservations, and 1023 B is needed"),
    ("cpu", "1500", "", "a has 0 CPUs free of reservations, and 1.5 CPUs are needed"),
    ("cpu", "1000", "500", "a has 0.5 CPUs free of reservations, and 1 CPU is needed"),
    ("pids", "9", "4", "a has 4 pids free of reservations, and 9 are needed"),
    ("disk", str(3 << 20), "", "a has 0 B of disk free of reservations, and 3 MiB is needed"),
    (
        "spread",
        "node.labels.zone 1",
        "",
        "a has no node.labels.zone, by which its tasks are spread",
    ),
    (
        "spread",
        "node.labels.zone 2",
        "my east 4 1",
        "a has node.labels.zone my east with 4 tasks of this service, the emptiest has 1,"
        " and it allows a difference of 2",
    ),
    (
        "spread",
        "node.id 1",
        "n1 1 0",
        "a has 1 tasks of this service, the emptiest has 0, and it allows a difference of 1",
    ),
    (
        "neighbour",
        "near shop/db",
        "node.id n1",
        "a has no task of shop/db, and it must be near one",
    ),
    (
        "neighbour",
        "apart shop/db",
        "node.id n1",
        "a has a task of shop/db, and it must be apart from that",
    ),
    (
        "neighbour",
        "opposed shop/db",
        "node.id n1",
        "a has a task that must be apart from those of shop/db",
    ),
    (
        "neighbour",
        "near shop/db",
        "zone east",
        "a has zone east, where no task of shop/db is, and it must be near one",
    ),
    (
        "neighbour",
        "near shop/db",
        "zone ",
        "a has no zone, where no task of shop/db is, and it must be near one",
    ),
    (
        "neighbour",
        "apart shop/db",
        "zone east",
        "a has zone east, where a task of shop/db is, and it must be apart from that",
    ),
    (
        "neighbour",
        "opposed shop/db",
        "zone east",
        "a has zone east, where a task must be apart from those of shop/db",
    ),
    ("generic", "2 stick", "1", "a has 1 stick free of reservations, and 2 are needed"),
    ("generic", "1 stick", "0", "a has 0 stick free of reservations, and 1 is needed"),
    ("device", "2 gpu", "1", "a has 1 of 2 gpu"),
    ("device-free", "2 gpu", "1", "a has 1 of 2 gpu free"),
    ("device", "serial", "0", "a has 0 of 1 serial"),
    ("device-free", "/dev/ttyUSB0", "0", "a has 0 of 1 /dev/ttyUSB0 free"),
    ("device-free", "all serial", "1", "a has 1 of all serial free"),
    ("device-free", "300/1000 of gpu", "0", "a has 0 of 300/1000 of gpu free"),
    ("device-free", "gpu, tpu", "not all at once", "a has not all at once of gpu, tpu free"),
    ("moon", "full", "half", "a is refused by moon (needs full, has half)"),
]


def refusal(rule, needed="", had="", node="n"):
    return Refusal(node=NodeId(node), rule=rule, needed=needed, had=had)


@pytest.mark.parametrize(("rule", "needed", "had", "expected"), SAID)
def test_a_refusal_is_a_sentence(rule, needed, had, expected):
    assert words.sentence(refusal(rule, needed, had), "a") == expected


def test_each_rule_is_said_above():
    assert filters.ALL.keys() <= {rule for rule, *_ in SAID}


@pytest.mark.parametrize("rule", filters.ALL)
def test_each_rule_is_counted_in_words(rule):
    for count in (1, 2):
        said = words.summary([*[refusal(rule)] * count, *[refusal("moon")] * 3])
        assert re.fullmatch(rf"none of {count + 3} nodes will do: 3 moon, {count} \w+ .*", said)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], "there is no node that could run it"),
        (["ready"], "the only node that could run it is not ready: its agent is not connected"),
        (["cpu", "cpu", "ready"], "none of 3 nodes will do: 2 lack cpu, 1 is not ready"),
        (["taint", "cpu"], "none of 2 nodes will do: 1 lacks cpu, 1 has a taint that it does not"),
        (["moon", "moon"], "none of 2 nodes will do: 2 moon"),
    ],
)
def test_a_summary_counts_the_most_frequent_first(rules, expected):
    said = words.summary([refusal(rule) for rule in rules])
    assert said.startswith(expected)


def test_each_rule_can_be_counted():
    for rule in filters.ALL:
        for times in (1, 2):
            said = words.summary([refusal(rule)] * times + [refusal("x")])
            assert f" {times} {rule}" not in said, "there is a word for it"
