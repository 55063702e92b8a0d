"""The whole ring over real gRPC: a user applies, agents run, the user sees it.

Real scheduler and agent processes, the SQLite store, the simulated runtime.
"""

import json
import signal
import urllib.error
import urllib.request

import grpc
import pytest

from homeport.client import AsyncClient, CallFailed, Client
from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, running, service, stack, state_of, until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two agents."""
    folder = tmp_path_factory.mktemp("ring")
    processes = [Scheduler(folder / "scheduler")]
    try:
        scheduler = processes[0].leads()
        processes += [Agent(folder / name, scheduler.address, name) for name in ("n1", "n2")]
        with Client(scheduler.address) as client:

            def both_ready():
                nodes = list(client.nodes())
                return len(nodes) == 2 and all(
                    node.state == types_pb2.NODE_STATE_READY for node in nodes
                )

            until("two nodes are ready", both_ready)
            yield scheduler, client
    finally:
        for process in reversed(processes):
            process.end()


@pytest.fixture
def client(cluster):
    """A client whose stacks are gone afterwards."""
    _, client = cluster
    yield client
    for each in client.stacks():
        client.remove_stack(control_pb2.RemoveStackRequest(stack=each.name))
    until("all stacks are gone", lambda: not list(client.stacks()))


def get(url):
    """(status, text) of a page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def apply(client, spec, **fields):
    return client.apply(control_pb2.ApplyRequest(stack=spec, **fields))


def test_what_is_applied_runs_on_both_nodes(client):
    answer = apply(client, stack("hello", service(replicas=4)))
    assert answer.generation == 1
    assert [change.action for change in answer.changes] == [
        control_pb2.ServiceChange.ACTION_CREATED
    ]
    tasks = running(client, "hello", 4)
    assert {task.node_name for task in tasks} == {"n1", "n2"}
    assert [task.name for task in tasks] == ["web.1", "web.2", "web.3", "web.4"]
    (seen,) = client.services("hello")
    assert (seen.desired, seen.running, seen.healthy, seen.waiting) == (4, 4, 4, 0)


def test_plan_says_what_apply_would_do_and_does_nothing(client):
    plan = apply(client, stack("planned", service(replicas=3)), validate_only=True)
    assert [task.slot for task in plan.tasks] == [1, 2, 3]
    assert {task.node for task in plan.tasks} == {"n1", "n2"}
    assert not list(client.stacks())


def test_plan_shows_each_field_that_would_change(client):
    apply(client, stack("hello", service(container={"env": {"PORT": "80", "DB_PASSWORD": "a"}})))
    running(client, "hello", 2)
    changed = service(container={"env": {"PORT": "81", "DB_PASSWORD": "b"}})
    plan = apply(client, stack("hello", changed), validate_only=True)
    (change,) = plan.changes
    assert change.action == control_pb2.ServiceChange.ACTION_CONFIGURED
    assert change.replaced_tasks == 2
    assert [(field.path, field.old, field.new) for field in change.fields] == [
        ("container.env.DB_PASSWORD", "(hidden)", "(hidden)"),
        ("container.env.PORT", "80", "81"),
    ]


def test_the_same_file_again_changes_nothing(client):
    first = apply(client, stack())
    running(client, "hello", 2)
    before = {task.task.service for task in client.tasks(stack="hello")}
    again = apply(client, stack())
    assert again.generation == first.generation
    assert [change.action for change in again.changes] == [
        control_pb2.ServiceChange.ACTION_UNCHANGED
    ]
    assert {task.task.service for task in client.tasks(stack="hello")} == before


def test_a_changed_file_replaces_the_tasks(client):
    apply(client, stack("hello", service(replicas=2, update={"monitor_ms": 100})))
    running(client, "hello", 2)
    apply(client, stack("hello", service(image="other", update={"monitor_ms": 100})))

    def replaced():
        tasks = list(client.tasks(stack="hello"))
        return (
            len(tasks) == 2
            and all(task.image == "other" and state_of(task) == "RUNNING" for task in tasks)
            and tasks
        )

    tasks = until("two tasks of the new image", replaced)
    assert {task.task.generation for task in tasks} == {2}


def test_scaling_restarts_nobody(client):
    apply(client, stack("hello", service(replicas=1)))
    (before,) = running(client, "hello", 1)
    answer = client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 3}))
    assert [change.action for change in answer.changes] == [control_pb2.ServiceChange.ACTION_SCALED]
    after = running(client, "hello", 3)
    assert [task.status.container_id for task in after if task.name == "web.1"] == [
        before.status.container_id
    ]
    client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 1}))
    running(client, "hello", 1)


def test_a_service_that_the_file_no_longer_names_goes(client):
    apply(client, stack("hello", service("web"), service("worker", 1)))
    running(client, "hello", 3)
    answer = apply(client, stack("hello", service("web")))
    assert {change.service: change.action for change in answer.changes} == {
        "web": control_pb2.ServiceChange.ACTION_UNCHANGED,
        "worker": control_pb2.ServiceChange.ACTION_REMOVED,
    }
    running(client, "hello", 2)
    until("one service is left", lambda: len(list(client.services("hello"))) == 1)


def test_what_fits_nowhere_waits_and_says_why(client):
    huge = service(replicas=1, reservations={"memory_bytes": 1 << 40})
    plan = apply(client, stack("hello", huge), validate_only=True)
    assert plan.tasks[0].node == ""
    apply(client, stack("hello", huge))
    (task,) = until("a waiting task", lambda: list(client.tasks(stack="hello")))
    assert state_of(task) == "PENDING"
    assert {each.rule for each in task.objections} == {"memory"}
    assert "1024 GiB" in task.objections[0].message
    explained = client.explain(control_pb2.ExplainRequest(stack="hello", object="web.1"))
    assert "memory" in explained.lines[0]
    assert {node.node for node in explained.tasks[0].nodes} == {"n1", "n2"}


def test_a_drained_node_gives_up_its_tasks(client):
    apply(client, stack("hello", service(replicas=4, update={"monitor_ms": 100})))
    running(client, "hello", 4)
    client.update_node(
        control_pb2.UpdateNodeRequest(node="n1", availability=types_pb2.AVAILABILITY_DRAIN)
    )
    try:
        until(
            "all tasks run on n2",
            lambda: (
                {(task.node_name, state_of(task)) for task in client.tasks(stack="hello")}
                == {("n2", "RUNNING")}
            ),
        )
    finally:
        client.update_node(
            control_pb2.UpdateNodeRequest(node="n1", availability=types_pb2.AVAILABILITY_ACTIVE)
        )


def test_labels_of_a_node_are_set_and_removed(client):
    def labels(**fields):
        request = control_pb2.UpdateNodeRequest(node="n2", **fields)
        return dict(client.update_node(request).node.labels)

    assert labels(set_labels={"disk": "ssd", "rack": "1"}) == {"disk": "ssd", "rack": "1"}
    assert labels(remove_labels=["rack"]) == {"disk": "ssd"}
    assert labels(remove_labels=["disk"], validate_only=True) == {}
    assert labels() == {"disk": "ssd"}
    assert labels(remove_labels=["disk"]) == {}


def test_an_operator_says_what_a_node_is_for(client):
    def update(**fields):
        return client.update_node(control_pb2.UpdateNodeRequest(node="n2", **fields)).node

    gpu = types_pb2.Taint(key="gpu", value="yes", effect=types_pb2.TAINT_EFFECT_EVICT)
    node = update(
        set_taints=[gpu],
        overcommit=types_pb2.Overcommit(memory_percent=120),
        set_resources={"tuner": "2"},
    )
    assert list(node.taints) == [gpu]
    assert (node.overcommit.cpu_percent, node.overcommit.memory_percent) == (100, 120)
    assert dict(node.generic) == {"tuner": "2"}
    (listed,) = [view.node for view in client.nodes() if view.node.name == "n2"]
    assert listed == node
    for wrong in (
        {"set_taints": [types_pb2.Taint(key="a b")]},
        {"set_taints": [types_pb2.Taint(key="a", effect=99)]},
        {"overcommit": types_pb2.Overcommit(cpu_percent=1)},
        {"set_resources": {"tuner": "some"}},
    ):
        with pytest.raises(CallFailed) as refused:
            update(**wrong)
        assert [path.split("[")[0].split(".")[0] for path, _ in refused.value.fields] == [*wrong]
    node = update(
        remove_taints=["gpu"],
        overcommit=types_pb2.Overcommit(memory_percent=100),
        remove_resources=["tuner"],
    )
    assert (list(node.taints), dict(node.generic)) == ([], {})


def test_the_strategy_is_the_clusters(client):
    def strategy(**fields):
        request = control_pb2.UpdateClusterRequest(**fields)
        client.update_cluster(request)
        return client.get_cluster(control_pb2.GetClusterRequest()).cluster.strategy

    spread, binpack = types_pb2.STRATEGY_SPREAD, types_pb2.STRATEGY_BINPACK
    assert strategy() == spread
    assert strategy(strategy=binpack, validate_only=True) == spread
    assert strategy(strategy=binpack) == binpack
    assert strategy(strategy=spread) == spread


def test_an_answer_that_got_lost_is_given_again(client):
    request = control_pb2.ApplyRequest(stack=stack(), request_id="once-1")
    first = client.apply(request)
    running(client, "hello", 2)
    again = client.apply(request)
    assert again == first
    with pytest.raises(CallFailed) as caught:
        apply(client, stack("hello", service(replicas=5)), request_id="once-1")
    assert caught.value.code is grpc.StatusCode.ALREADY_EXISTS
    assert caught.value.reason == "REQUEST_ID_USED"
    assert len(list(client.tasks(stack="hello"))) == 2


def test_who_saw_an_older_generation_is_told_so(client):
    apply(client, stack())
    with pytest.raises(CallFailed) as caught:
        apply(client, stack("hello", service(replicas=1)), expected_generation=7)
    assert caught.value.code is grpc.StatusCode.ABORTED
    assert "generation 1" in str(caught.value)


def test_all_problems_of_a_spec_are_told_at_once(client):
    bad = service("web", replicas=-1, image="", depends_on=[{"service": "nobody"}])
    with pytest.raises(CallFailed) as caught:
        apply(client, stack("hello", bad))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {path for path, _ in caught.value.fields} == {
        "services.web.replicas",
        "services.web.container.image",
        "services.web.depends_on",
    } - ({"services.web.container.image"} if bad.driver != types_pb2.DRIVER_DOCKER else set())


def test_what_does_not_exist_is_named(client):
    with pytest.raises(CallFailed, match="there is no stack nope") as caught:
        list(client.tasks(stack="nope"))
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    with pytest.raises(CallFailed, match="there is no node nope"):
        client.update_node(control_pb2.UpdateNodeRequest(node="nope"))


def test_lists_come_in_pages(client):
    apply(client, stack("hello", *(service(f"s{number}", 2) for number in range(4))))
    running(client, "hello", 8)
    names, token = [], ""
    while True:
        answer = client.list_tasks(
            control_pb2.ListTasksRequest(stack="hello", page_size=3, page_token=token)
        )
        assert len(answer.tasks) <= 3
        names.extend(task.name for task in answer.tasks)
        token = answer.next_page_token
        if not token:
            break
    assert names == [f"s{number}.{slot}" for number in range(4) for slot in (1, 2)]
    with pytest.raises(CallFailed, match="page_token"):
        client.list_tasks(control_pb2.ListTasksRequest(page_token="nonsense"))


def test_a_watch_goes_on_where_it_stopped(client):
    apply(client, stack("hello", service(replicas=1)))
    running(client, "hello", 1)
    watching = client.watch(control_pb2.WatchRequest(stack="hello", kinds=["tasks"]))
    first = next(watching)
    assert first.reset
    position, names = None, set()
    for change in watching:
        position = change.position
        if change.synced:
            break
        names.add(change.task.name)
    watching.close()
    assert names == {"web.1"}

    client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 2}))
    running(client, "hello", 2)
    resumed = client.watch(control_pb2.WatchRequest(stack="hello", kinds=["tasks"], after=position))
    seen = {}
    for change in resumed:
        assert not change.reset
        if change.synced:
            break
        seen[change.task.name] = state_of(change.task)
    resumed.close()
    assert seen == {"web.2": "RUNNING"}

    foreign = client.watch(
        control_pb2.WatchRequest(
            kinds=["tasks"], after=control_pb2.WatchPosition(epoch=99_999, sequence=1)
        )
    )
    assert next(foreign).reset
    foreign.close()


def test_a_watch_tells_what_is_gone(client):
    apply(client, stack("hello", service(replicas=1)))
    (task,) = running(client, "hello", 1)
    watching = client.watch(control_pb2.WatchRequest(kinds=["tasks", "stacks"]))
    for change in watching:
        if change.synced:
            break
    client.remove_stack(control_pb2.RemoveStackRequest(stack="hello"))
    gone = {f"tasks/{task.task.service}/1/1", "stacks/hello"}
    for change in watching:
        gone.discard(change.deleted)
        if not gone:
            break
    watching.close()


def scripted(name="web", replicas=1, **script):
    """A service whose simulated containers follow this script."""
    labels = {f"sim.{key}": str(value) for key, value in script.items()}
    return service(name, replicas, container={"labels": labels})


def test_logs_of_all_tasks_come_with_their_names(client):
    apply(client, stack("hello", scripted("web", 2, log="hi"), scripted("db", log="ready")))
    running(client, "hello", 3)

    def logs(**fields):
        lines = list(client.logs(control_pb2.LogsRequest(stack="hello", tail=-1, **fields)))
        assert not [line.error for line in lines if line.error]
        return sorted((line.name, line.output.data.decode().strip()) for line in lines)

    assert logs() == [("db.1", "ready"), ("web.1", "hi"), ("web.2", "hi")]
    assert logs(objects=["web"]) == [("web.1", "hi"), ("web.2", "hi")]
    assert logs(objects=["web.2"]) == [("web.2", "hi")]
    with pytest.raises(CallFailed, match="there is no service or task nope"):
        logs(objects=["nope"])


def test_logs_that_follow_take_up_tasks_that_appear_later(client):
    apply(client, stack("hello", scripted("web", 1, log="hi")))
    running(client, "hello", 1)
    following = client.logs(control_pb2.LogsRequest(stack="hello", follow=True, tail=-1))
    first = next(following)
    assert (first.name, first.output.data) == ("web.1", b"hi\n")
    client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 2}))
    second = next(following)
    assert (second.name, second.output.data) == ("web.2", b"hi\n")
    following.close()


def test_the_logs_of_a_hundred_tasks_are_followed_at_once(client):
    apply(client, stack("hello", scripted("web", 100, log="hi")))
    running(client, "hello", 100)
    following = client.logs(control_pb2.LogsRequest(stack="hello", follow=True, tail=-1))
    lines = [next(following) for _ in range(100)]
    assert not [line.error for line in lines if line.error]
    assert sorted(line.name for line in lines) == sorted(f"web.{slot}" for slot in range(1, 101))
    # They are still followed: a hundred and first line comes from a task that starts now.
    client.scale(control_pb2.ScaleRequest(stack="hello", replicas={"web": 101}))
    assert next(following).name == "web.101"
    following.close()


def test_a_container_that_ends_is_restarted_in_place_and_counted(client):
    apply(client, stack("hello", scripted(run_for_ms=200, exit_code=3)))

    def restarted():
        (task,) = list(client.tasks(stack="hello")) or [None]
        return task is not None and task.status.attempt >= 2 and task

    task = until("a second start", restarted)
    assert task.task.n == 1
    assert state_of(task) in ("RUNNING", "BACKOFF", "STARTING", "PREPARING", "READY")


def test_what_a_node_cannot_run_is_rejected_with_its_reason(client):
    rejected = scripted(fail_prepare="no such image: example")
    apply(client, stack("hello", rejected))

    def told():
        tasks = client.tasks(stack="hello", all=True)
        return [task for task in tasks if "no such image" in task.status.message]

    assert until("the reason is shown", told)


def test_the_health_of_a_container_is_seen(client):
    check = {"test": ["CMD", "true"], "interval_ms": 50}
    labels = {"sim.health": "healthy", "sim.health_after_ms": "1500"}
    container = {"labels": labels, "health_check": check}
    apply(client, stack("hello", service("web", 1, container=container)))
    (task,) = running(client, "hello", 1)
    assert task.status.health == types_pb2.HEALTH_STARTING
    assert [each.healthy for each in client.services("hello")] == [0]
    until("it is healthy", lambda: [each.healthy for each in client.services("hello")] == [1])


def test_a_command_runs_in_a_task_and_its_exit_code_comes_back(client):
    apply(client, stack("hello", scripted()))
    running(client, "hello", 1)

    def run(*command):
        work = {"command": command}
        start = control_pb2.ExecStart(stack="hello", object="web.1", work=work)
        answers = list(client.exec(iter([control_pb2.ExecRequest(start=start)])))
        assert answers[-1].WhichOneof("body") == "end"
        output = b"".join(each.output.data for each in answers[:-1])
        return output.strip(), answers[-1].end.exit_code, answers[-1].end.error

    assert run("echo", "hello") == (b"hello", 0, "")
    assert run("sh", "-c", "exit 7") == (b"", 7, "")


def test_a_command_in_a_task_that_does_not_run_is_refused(client):
    huge = service(replicas=1, reservations={"memory_bytes": 1 << 40})
    apply(client, stack("hello", huge))
    until("a waiting task", lambda: list(client.tasks(stack="hello")))
    start = control_pb2.ExecStart(stack="hello", object="web.1", work={"command": ["true"]})
    with pytest.raises(CallFailed, match=r"web\.1 has no task") as caught:
        list(client.exec(iter([control_pb2.ExecRequest(start=start)])))
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_events_tell_the_story(client):
    apply(client, stack("hello", service(replicas=1)))
    running(client, "hello", 1)
    answer = client.list_events(control_pb2.ListEventsRequest(page_size=1000))
    reasons = {event.reason for event in answer.events}
    assert {"NodeJoined", "NodeReady", "Placed"} <= reasons
    sequences = [event.sequence for event in answer.events]
    assert sequences == sorted(sequences)


def test_a_name_belongs_to_one_node(client, cluster, tmp_path):
    scheduler, _ = cluster
    second = Agent(tmp_path / "again", scheduler.address, "n1")
    try:
        until(
            "the refusal is logged",
            lambda: "the name n1 belongs to node" in second.log_file.read_text(),
        )
    finally:
        second.end()
    assert len(list(client.nodes())) == 2


def test_pages_for_prometheus_and_supervisors(client, cluster):
    scheduler, _ = cluster
    apply(client, stack("hello", service(replicas=1)))
    running(client, "hello", 1)
    status, text = get(f"{scheduler.http}/metrics")
    assert status == 200
    assert 'homeport_service_status_replicas_available{service="web",stack="hello"} 1.0' in text
    assert 'homeport_node_status_phase{node="n1",phase="Ready"} 1.0' in text
    assert "homeport_scheduler_is_leader 1.0" in text
    assert 'grpc_server_handled_total{grpc_code="OK",grpc_method="Apply"' in text
    assert get(f"{scheduler.http}/livez") == (200, "ok\n")
    assert get(f"{scheduler.http}/readyz?verbose")[0] == 200
    status, text = get(f"{scheduler.http}/sd/prometheus")
    assert sorted(each["labels"]["__meta_homeport_node"] for each in json.loads(text)) == [
        "n1",
        "n2",
    ]
    for each in json.loads(text):
        assert get(f"http://{each['targets'][0]}/metrics")[0] == 200


def test_reflection_and_health_answer(cluster):
    scheduler, _ = cluster
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with grpc.insecure_channel(scheduler.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "homeport.v1.Control", "homeport.v1.Dispatcher"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = reflection.ServerReflectionInfo(iter([request]))
        names = {service.name for service in answer.list_services_response.service}
    assert {"homeport.v1.Control", "homeport.v1.Dispatcher"} <= names


def test_a_message_of_five_megabytes_is_refused(client):
    files = [types_pb2.FileSpec(kind=1, name=f"f{n}", data=b"x" * (1 << 20)) for n in range(5)]
    with pytest.raises(CallFailed) as caught:
        apply(client, stack("hello", files=files))
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stack_larger_than_one_commit_is_applied_whole(client):
    for name, number in (("large", 80), ("larger", 130)):
        many = stack(name, *(service(f"s{n}", 0) for n in range(number)))
        answer = apply(client, many)
        assert len(answer.changes) == number
        assert len(list(client.services(name))) == number
    assert sorted(each.name for each in client.stacks()) == ["large", "larger"]


def test_an_image_archive_is_handed_over_in_pieces(client):
    import hashlib

    data = bytes(range(256)) * 4000
    image = "sha256:" + "ab" * 32
    digest = hashlib.sha256(data).hexdigest()

    def chunk(offset, size=300_000):
        return control_pb2.PushImageRequest(
            image_id=image,
            chunk={
                "offset": offset,
                "data": data[offset : offset + size],
                "total_bytes": len(data),
                "archive_digest": digest,
            },
        )

    with pytest.raises(CallFailed, match="300000 of 1024000 bytes"):
        client.push_image([chunk(0)])
    known = client.stat_image(control_pb2.StatImageRequest(image_id=image))
    assert (known.complete, known.received_bytes) == (False, 300_000)
    rest = [chunk(offset) for offset in range(300_000, len(data), 300_000)]
    assert client.push_image(rest).total_bytes == len(data)
    assert client.stat_image(control_pb2.StatImageRequest(image_id=image)).complete
    with pytest.raises(CallFailed, match="no image id"):
        client.stat_image(control_pb2.StatImageRequest(image_id="../../etc/passwd"))


def test_a_second_scheduler_on_the_same_port_or_store_is_refused(cluster, tmp_path):
    scheduler, _ = cluster
    import subprocess
    import sys

    def start(listen, folder):
        return subprocess.run(
            [
                *(sys.executable, "-m", "scheduler", "--listen", listen, "--http", ""),
                *("--state-dir", str(folder)),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )

    taken = start(scheduler.address, tmp_path)
    assert taken.returncode == 1
    assert f"cannot listen on {scheduler.address}" in taken.stderr
    assert "Traceback" not in taken.stderr
    locked = start("127.0.0.1:0", scheduler.folder / "state")
    assert locked.returncode == 1
    assert "Traceback" not in locked.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_scheduler_in_order(tmp_path, number):
    scheduler = Scheduler(tmp_path / "one", store="memory").leads()
    assert scheduler.end(number) == 0
    assert "Traceback" not in scheduler.log_file.read_text()


async def test_the_asyncio_client_does_the_same(client, cluster):
    scheduler, _ = cluster
    async with AsyncClient(scheduler.address) as homeport:
        applied = await homeport.apply(
            control_pb2.ApplyRequest(stack=stack("hello", scripted(replicas=2, log="hi")))
        )
        assert applied.generation == 1
        running(client, "hello", 2)
        assert [task.name async for task in homeport.tasks("hello")] == ["web.1", "web.2"]
        assert [node.node.name async for node in homeport.nodes()] == ["n1", "n2"]
        logs = homeport.logs(control_pb2.LogsRequest(stack="hello", tail=-1))
        assert sorted([line.name async for line in logs]) == ["web.1", "web.2"]
        async for change in homeport.watch(control_pb2.WatchRequest(kinds=["stacks"])):
            if change.synced:
                break
            assert change.reset or change.stack.name == "hello"

        async def requests():
            work = {"command": ["echo", "hi"]}
            start = control_pb2.ExecStart(stack="hello", object="web", work=work)
            yield control_pb2.ExecRequest(start=start)

        answers = [each async for each in homeport.exec(requests())]
        assert answers[-1].end.exit_code == 0
        with pytest.raises(CallFailed, match="there is no stack nope"):
            await homeport.scale(control_pb2.ScaleRequest(stack="nope", replicas={"a": 1}))


def test_a_scheduler_that_is_asked_writes_what_it_holds_to_its_log(client, cluster):
    scheduler, _ = cluster
    scheduler.child.send_signal(signal.SIGUSR1)
    state = scheduler.logged("state")
    assert state["leads"] is True
    assert len(state["sessions"]) == 2
    assert "controller" in state["background"]
