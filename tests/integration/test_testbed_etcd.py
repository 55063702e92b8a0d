"""Verify the testbed's etcd: members die, freeze and come back as tests of failures demand."""

import pytest

from tests.testbed.etcd import Etcd
from tests.testbed.ledger import current_run


@pytest.fixture(scope="module")
def three():
    with Etcd(3, tls=True, auth=True) as etcd:
        yield etcd


def test_three_members_agree_over_tls_and_with_a_password(three):
    three.ctl("put", "a", "1", endpoints=[three.members[0].endpoint])

    assert three.ctl("get", "a", "--print-value-only", endpoints=[three.endpoints[2]]) == "1\n"
    assert len(three.followers()) == 2


def test_who_shows_no_certificate_is_turned_away(three):
    with pytest.raises(RuntimeError):
        three.ctl("get", "a", "--cert=", "--key=")


def test_a_member_that_lost_its_disk_has_everything_again(three):
    three.ctl("put", "kept", "1")
    lost = three.leader()

    lost.restart_empty()

    assert three.ctl("get", "kept", "--print-value-only", endpoints=[lost.endpoint]) == "1\n"
    assert len(three.followers()) == 2


def test_a_paused_member_answers_again_once_it_may(three):
    member = three.followers()[0]

    member.pause()
    try:
        assert member.status() is None
    finally:
        member.resume()

    member.wait()


def test_a_single_member_keeps_what_it_has_over_a_restart_and_leaves_nothing_behind():
    with Etcd() as etcd:
        etcd.ctl("put", "a", "1")
        revision = etcd.revision()
        etcd.members[0].restart()
        assert etcd.revision() == revision
        directory = etcd.directory

    assert not directory.exists()
    assert not any("etcd" in left for left in current_run().leftovers() if directory.name in left)
