"""Three deaths of the leader under load: tests/e2e/test_leader.py in short."""

import pytest

from tests.e2e.leading import Trial
from tests.testbed.etcd import Etcd


@pytest.mark.timeout(240)
def test_a_new_leader_goes_on_and_nobody_loses_anything(tmp_path):
    # L3, S5, S8: measured by the long one, and not judged here.
    with Etcd() as etcd, Trial(tmp_path, etcd.endpoints) as trial:
        trial.kill_leaders(3)
        acknowledged, there = trial.settled()
        print(trial.report())  # noqa: T201
        assert acknowledged <= there
        assert trial.steady_facts() == trial.steady
        assert trial.noticed.reads > 10
        assert trial.noticed.failed_writes == []
        assert trial.noticed.failed_reads == []
        assert trial.noticed.stale_reads == []
