"""A stack of five hundred services, near what one request carries, over the wire and a crash."""

import signal

import pytest

from homeport.client import CallFailed, Client
from homeport.v1 import control_pb2
from tests.integration.processes import Scheduler, service, stack, until

pytestmark = pytest.mark.timeout(300)

PATIENCE_SECONDS = 90
"""How fast it is is not judged here."""


@pytest.fixture
def start(tmp_path):
    """Starts a scheduler, the next one where the last was."""
    started = []

    def begin():
        listen = started[-1].address if started else "127.0.0.1:0"
        scheduler = Scheduler(tmp_path / "s", listen=listen, start_seconds=PATIENCE_SECONDS)
        started.append(scheduler)
        return scheduler

    yield begin
    for scheduler in started:
        scheduler.end(signal.SIGKILL)


def answered(call, request):
    """What it answers once it does; the request keeps its id."""

    def ask():
        try:
            return call(request, 60)
        except CallFailed:
            return None

    return until("an answer", ask, PATIENCE_SECONDS)


def test_five_hundred_services_are_there_at_once_and_after_kill_9_once(start):
    text = "x" * 7_000
    many = [
        service(f"s{number}", replicas=0, container={"env": {"TEXT": text}})
        for number in range(500)
    ]
    request = control_pb2.ApplyRequest(stack=stack("large", *many), request_id="r1")
    assert request.ByteSize() > 3_500_000
    scheduler = start()
    with Client(scheduler.address) as client:
        first = answered(client.apply, request)
        scheduler.end(signal.SIGKILL)  # whatever is still to be written out
    assert first.generation == 1
    with Client(start().address) as client:
        repeated = answered(client.apply, request)
        assert (repeated.generation, repeated.revision) == (1, first.revision)
        assert len(list(client.services("large"))) == 500
        # It can go on from here: the heads have been written out.
        more = control_pb2.ScaleRequest(stack="large", replicas={"s1": 1, "s2": 1}, request_id="r2")
        assert len(answered(client.scale, more).changes) == 2
