"""The agent's pages: what a Prometheus finds there, and what strangers cannot do to it."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.http import HttpServer, Page
from agent.inventory import Disk, Load
from agent.metrics import AgentMetrics, AgentView, TaskView
from agent.runtime.base import Sample
from homeport.lifecycle import TaskState
from homeport.model import (
    Condition,
    Inventory,
    NodeStatus,
    ServiceGeneration,
    ServiceId,
    TaskId,
    TaskStatus,
)
from homeport.spec import ContainerSpec, Resources, ServiceSpec


def view() -> AgentView:
    status = TaskStatus(
        task=TaskId("shop-web-7/2/3"), attempt=3, state=TaskState.RUNNING, container_id="ab" * 32
    )
    spec = ServiceSpec(
        name="web",
        container=ContainerSpec(image="nginx:1", limits=Resources(memory_bytes=1 << 20)),
    )
    sample = Sample(
        cpu_seconds=1.5, memory_working_set_bytes=4096, network=(("eth0", 10, 20, 0, 1),)
    )
    return AgentView(
        version="1",
        inventory=Inventory(capacity=Resources(cpu_millis=4_000, memory_bytes=1 << 30)),
        node="pi",
        status=NodeStatus(conditions=(Condition(name="disk", ok=False, message="full"),)),
        load=Load(
            cpu_seconds=1,
            memory_available_bytes=1,
            memory_total_bytes=2,
            disks=(Disk(path="/", used_bytes=5, total_bytes=9),),
        ),
        is_connected=True,
        sessions=2,
        statuses=(status,),
        tasks=(
            TaskView(
                status=status,
                stack="shop",
                service_name="web",
                generation=ServiceGeneration(
                    service=ServiceId("shop-web-7"), generation=1, spec=spec
                ),
                sample=sample,
                sampled_ms=5_000,
            ),
        ),
    )


def samples(page: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_tasks_have_the_names_and_labels_that_dashboards_ask_for() -> None:
    found = samples(AgentMetrics(view).render())
    ((labels, value),) = found["container_cpu_usage_seconds_total"]
    assert value == 1.5
    assert labels == {
        "id": "/docker/" + "ab" * 32,
        "name": "shop-web-7.2.3",
        "image": "nginx:1",
        "container_label_com_docker_compose_project": "shop",
        "container_label_com_docker_compose_service": "web",
        "cpu": "total",
    }
    assert found["container_memory_working_set_bytes"][0][1] == 4096
    assert found["container_spec_memory_limit_bytes"][0][1] == 1 << 20
    assert found["container_network_transmit_errors_total"][0][1] == 1
    assert found["container_last_seen"][0][1] == 5
    assert found["machine_memory_bytes"][0][1] == 1 << 30
    # The machine itself has no name, so that no dashboard counts it as a container.
    (root, used), *_ = found["container_fs_usage_bytes"]
    assert (root["id"], root["name"], used) == ("/", "", 5)


def test_the_agent_tells_of_itself() -> None:
    found = samples(AgentMetrics(view).render())
    assert found["homeport_agent_connected"][0][1] == 1
    assert found["homeport_agent_sessions_total"][0][1] == 2
    assert found["homeport_agent_task_restarts_total"][0][1] == 2
    assert found["homeport_agent_condition"] == [({"condition": "disk"}, 0)]
    assert ({"state": "running"}, 1) in found["homeport_agent_tasks"]


def test_cadvisors_names_can_be_left_to_cadvisor() -> None:
    found = samples(AgentMetrics(view, with_tasks=False).render())
    assert all(name.startswith("homeport_") for name in found)


def test_every_series_of_a_metric_has_the_same_labels() -> None:
    for name, series in samples(AgentMetrics(view).render()).items():
        assert len({tuple(sorted(labels)) for labels, _ in series}) == 1, name


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.fixture
async def port():
    server = HttpServer({"/livez": lambda: Page(body=b"ok\n")})
    yield await server.start("127.0.0.1", 0)
    await server.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK", id="a page"),
        pytest.param(b"GET /livez?verbose HTTP/1.0\r\n\r\n", b"200 OK", id="a query is ignored"),
        pytest.param(b"GET /../etc/passwd HTTP/1.1\r\n\r\n", b"404", id="no other page"),
        pytest.param(b"POST /livez HTTP/1.1\r\n\r\n", b"405", id="no other method"),
        pytest.param(b"\x16\x03\x01\r\n\r\n", b"405", id="TLS"),
        pytest.param(b"GET /" + b"a" * 20_000 + b"\r\n\r\n", b"400", id="a very long line"),
    ],
)
async def test_requests(port: int, request_bytes: bytes, status: bytes) -> None:
    answer = await ask(port, request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_head_has_no_body(port: int) -> None:
    head, _, body = (await ask(port, b"HEAD /livez HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
    assert b"Content-Length: 3" in head
    assert body == b""
