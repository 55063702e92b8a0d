"""The leader killed thirty times under load, with a real etcd: `make e2e ONLY=leader`.

tests/integration/test_leader.py has the same in short, in every run of the tests.
"""

import pytest

from tests.e2e.leading import Trial
from tests.testbed.etcd import Etcd

KILLS = 30

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_new_leader_goes_on_and_nobody_loses_anything(tmp_path, figures, request):
    with Etcd(3) as etcd, Trial(tmp_path, etcd.endpoints) as trial:
        trial.kill_leaders(KILLS)
        acknowledged, there = trial.settled()
        request.config.get_terminal_writer().line("\n" + trial.report())
        for kill in trial.kills:
            figures.record("a new leader dispatches", kill.dispatched, "s", bound=10)
        assert acknowledged <= there
        assert trial.steady_facts() == trial.steady
        assert trial.noticed.failed_writes == []
        assert trial.noticed.failed_reads == []
        assert trial.noticed.stale_reads == []
