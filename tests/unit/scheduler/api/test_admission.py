"""What applying, scaling and removing write, and what they tell."""

import pytest

from homeport.model import (
    NodeId,
    Service,
    ServiceGeneration,
    Stack,
    StackFile,
    Task,
    Volume,
    VolumeState,
)
from homeport.spec import (
    ContainerSpec,
    FileKind,
    FileMount,
    FileSpec,
    Mode,
    NetworkAttachment,
    NetworkSpec,
    PlacementSpec,
    ServiceSpec,
    StackSpec,
    UpdateConfig,
    VolumeSpec,
    pairs,
)
from scheduler.api import admission
from scheduler.api.admission import Action
from scheduler.cluster.changes import Delete, Put
from scheduler.cluster.tables import Tables


def web(**fields):
    container = ContainerSpec(image=fields.pop("image", "nginx"), **fields.pop("container", {}))
    return ServiceSpec(name=fields.pop("name", "web"), container=container, **fields)


class Cluster:
    """Tables that take in what was decided, checking every compared version."""

    def __init__(self):
        self.tables = Tables()
        self.revision = 1

    def commit(self, *changes):
        self.revision += 1
        for change in changes:
            assert change.expect == self.tables.version(change.key), change
            if isinstance(change, Put):
                self.tables.put(change.value, self.revision)
            elif isinstance(change, Delete):
                self.tables.drop(change.key)

    def apply(self, *services, **fields):
        spec = StackSpec(name="s", services=services, **fields)
        outcome = admission.apply(self.tables, spec, now_ms=5, revision=self.revision)
        self.commit(*outcome.objects, *outcome.heads)
        return outcome

    def head(self, name="web"):
        return self.tables.service_named("s", name)

    def run_task(self, slot=1):
        head = self.head()
        task = Task(service=head.id, slot=slot, n=1, node=NodeId("n"), generation=head.generation)
        self.tables.put(task, self.revision)
        return task


def actions(outcome):
    return {each.service: each.action for each in outcome.services}


def test_a_new_stack_gets_a_head_a_spec_and_a_record_of_its_own():
    cluster = Cluster()
    outcome = cluster.apply(web(replicas=3))
    assert actions(outcome) == {"web": Action.CREATED}
    assert (cluster.head().replicas, cluster.head().generation) == (3, 1)
    assert cluster.tables.spec(cluster.head().id, 1).spec == web(replicas=3)
    assert cluster.tables.stack("s").services == ("web",)
    assert outcome.generation == 1


def test_the_same_file_again_writes_nothing():
    cluster = Cluster()
    cluster.apply(web(), networks=(NetworkSpec(name="default"),))
    again = cluster.apply(web(), networks=(NetworkSpec(name="default"),))
    assert again.objects == again.heads == ()
    assert actions(again) == {"web": Action.UNCHANGED}
    assert again.generation == 1


def test_replicas_alone_change_the_head_and_no_spec():
    cluster = Cluster()
    cluster.apply(web(replicas=1))
    outcome = cluster.apply(web(replicas=4))
    assert actions(outcome) == {"web": Action.SCALED}
    assert [type(change.value) for change in (*outcome.objects, *outcome.heads)] == [
        Service,
        Stack,
    ]
    assert (cluster.head().replicas, cluster.head().generation) == (4, 1)


def test_the_replicas_of_the_file_win_over_an_earlier_scale():
    cluster = Cluster()
    cluster.apply(web(replicas=2))
    scaled = admission.scale(cluster.tables, [(cluster.head(), 7)])
    cluster.commit(*scaled.heads)
    assert cluster.head().replicas == 7
    outcome = cluster.apply(web(replicas=2))
    assert actions(outcome) == {"web": Action.SCALED}
    assert cluster.head().replicas == 2


@pytest.mark.parametrize(
    ("changed", "replaces"),
    [
        pytest.param({"image": "nginx:2"}, True, id="another image"),
        pytest.param({"container": {"env": pairs({"A": "1"})}}, True, id="another variable"),
        pytest.param(
            {"placement": PlacementSpec(max_replicas_per_node=1)}, True, id="other placement"
        ),
        pytest.param({"labels": pairs({"a": "b"})}, False, id="labels of the service"),
        pytest.param({"update": UpdateConfig(parallelism=2)}, False, id="how it is updated"),
        pytest.param({"priority": 5}, False, id="its priority"),
    ],
)
def test_tasks_are_replaced_only_when_what_they_run_changed(changed, replaces):
    cluster = Cluster()
    cluster.apply(web())
    cluster.run_task()
    outcome = cluster.apply(web(**changed))
    assert actions(outcome) == {"web": Action.CONFIGURED}
    head = cluster.head()
    assert head.generation == 2
    assert head.template_generation == (2 if replaces else 1)
    assert outcome.services[0].replaced_tasks == (1 if replaces else 0)
    assert outcome.services[0].fields


def test_a_network_that_changed_replaces_the_tasks_that_are_on_it():
    cluster = Cluster()
    on_it = web(container={"networks": (NetworkAttachment(network="back"),)})
    off_it = web(name="other")
    cluster.apply(on_it, off_it, networks=(NetworkSpec(name="back"),))
    outcome = cluster.apply(on_it, off_it, networks=(NetworkSpec(name="back", internal=True),))
    assert actions(outcome) == {"web": Action.CONFIGURED, "other": Action.UNCHANGED}
    assert outcome.services[0].fields[0].path == "networks.back.internal"
    assert cluster.head().template_generation == 2


def test_another_mode_is_another_service_under_the_same_name():
    cluster = Cluster()
    cluster.apply(web())
    before = cluster.head()
    outcome = cluster.apply(web(mode=Mode.GLOBAL))
    assert actions(outcome) == {"web": Action.CONFIGURED}
    assert cluster.head().id != before.id
    assert cluster.tables.service(before.id).removing
    assert cluster.tables.stack("s").services == ("web",)


def test_services_that_the_file_leaves_out_are_removed():
    cluster = Cluster()
    cluster.apply(web(), web(name="old"))
    outcome = cluster.apply(web())
    assert actions(outcome) == {"web": Action.UNCHANGED, "old": Action.REMOVED}
    assert cluster.head("old").removing


def test_a_removed_stack_that_is_applied_again_gets_new_services():
    cluster = Cluster()
    cluster.apply(web())
    before = cluster.head().id
    removed = admission.remove(cluster.tables, cluster.tables.stack("s"), ())
    cluster.commit(*removed.heads)
    assert cluster.tables.stack("s").removing
    outcome = cluster.apply(web())
    assert actions(outcome) == {"web": Action.CREATED}
    assert not cluster.tables.stack("s").removing
    assert cluster.head().id != before


def test_removing_one_service_leaves_the_others():
    cluster = Cluster()
    cluster.apply(web(), web(name="worker"))
    removed = admission.remove(cluster.tables, cluster.tables.stack("s"), ("worker",))
    cluster.commit(*removed.heads)
    assert cluster.head("worker").removing
    assert not cluster.head("web").removing
    assert cluster.tables.stack("s").services == ("web",)
    assert not cluster.tables.stack("s").removing


def test_a_new_content_of_a_config_is_a_new_edition_and_replaces_its_tasks():
    cluster = Cluster()
    mount = FileMount(kind=FileKind.CONFIG, source="conf", target="/conf")

    def conf(data):
        return FileSpec(kind=FileKind.CONFIG, name="conf", data=data)

    def apply(data):
        return cluster.apply(web(container={"files": (mount,)}), files=(conf(data),))

    apply(b"one")
    first = cluster.tables.spec(cluster.head().id, 1).spec.container.files[0].digest
    assert first == admission.digest_of(conf(b"one"))
    outcome = apply(b"two")
    assert actions(outcome) == {"web": Action.CONFIGURED}
    assert cluster.head().template_generation == 2
    assert cluster.tables.file("s", first).spec.data == b"one"
    assert cluster.tables.file("s", admission.digest_of(conf(b"two"))) is not None
    assert [type(change.value) for change in apply(b"two").objects] == []


def test_equal_contents_are_one_edition_but_a_secret_never_shares_one_with_a_config():
    cluster = Cluster()
    files = tuple(
        FileSpec(kind=kind, name=name, data=b"same")
        for kind, name in (
            (FileKind.CONFIG, "one"),
            (FileKind.CONFIG, "two"),
            (FileKind.SECRET, "three"),
        )
    )
    mounts = tuple(
        FileMount(kind=file.kind, source=file.name, target=f"/{file.name}") for file in files
    )
    cluster.apply(web(container={"files": mounts}), files=files)
    one, two, three = cluster.tables.spec(cluster.head().id, 1).spec.container.files
    assert one.digest == two.digest != three.digest
    stored = {file.digest: file.spec.kind for file in cluster.tables.files_of("s")}
    assert stored == {one.digest: FileKind.CONFIG, three.digest: FileKind.SECRET}


def test_a_file_that_nobody_mounts_is_written_again_by_the_apply_that_needs_it():
    cluster = Cluster()
    mount = FileMount(kind=FileKind.CONFIG, source="conf", target="/conf")
    file = FileSpec(kind=FileKind.CONFIG, name="conf", data=b"one")
    digest = admission.digest_of(file)
    cluster.apply(web())
    # An apply that failed half way has left it behind, and the reaper may be after it.
    cluster.tables.put(StackFile(stack="s", digest=digest, spec=file), 77)
    outcome = cluster.apply(web(container={"files": (mount,)}), files=(file,))
    (again,) = [each for each in outcome.objects if isinstance(each.value, StackFile)]
    assert (again.value.digest, again.expect) == (digest, 77)
    assert cluster.apply(web(container={"files": (mount,)}), files=(file,)).objects == ()


def test_the_data_of_a_volume_that_nobody_names_is_kept_and_found_again():
    cluster = Cluster()
    data = (VolumeSpec(name="data"),)
    cluster.apply(web(), volumes=data)
    cluster.tables.put(Volume(stack="s", name="data", node=NodeId("n1")), 9)

    def state():
        return [volume.state for volume in cluster.tables.volumes_of("s", "data")]

    cluster.apply(web())
    assert state() == [VolumeState.RETAINED]
    cluster.apply(web(), volumes=data)
    assert state() == [VolumeState.ACTIVE]
    cluster.commit(*admission.remove(cluster.tables, cluster.tables.stack("s"), ()).heads)
    assert state() == [VolumeState.RETAINED]


def test_specs_and_files_come_before_the_heads_that_refer_to_them():
    cluster = Cluster()
    file = FileSpec(kind=FileKind.SECRET, name="key", data=b"x")
    outcome = cluster.apply(web(), files=(file,))
    assert {type(change.value) for change in outcome.objects} == {ServiceGeneration, StackFile}
    assert {type(change.value) for change in outcome.heads} == {Service, Stack}


def test_a_spec_left_behind_by_a_failed_apply_is_stepped_over():
    cluster = Cluster()
    cluster.apply(web())
    orphan = ServiceGeneration(service=cluster.head().id, generation=2, spec=web(image="half"))
    cluster.tables.put(orphan, 50)
    cluster.apply(web(image="whole"))
    assert cluster.head().generation == 3


def test_notices_say_what_will_surprise():
    cluster = Cluster()
    outcome = cluster.apply(web(pin_node="gone"))
    assert any("no node yet" in notice for notice in outcome.notices)
    assert any("gone" in notice for notice in outcome.notices)


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [
        ({"exclusive": True}, True),
        ({"exclusive": True, "replicas": 2}, True),
        ({"exclusive": False}, False),
        ({}, False),
        ({"exclusive": True, "pin_node": "pi"}, False),  # it waits for its node, and never stops
    ],
)
def test_an_exclusive_service_is_told_what_that_costs(fields, is_told):
    given = StackSpec(name="s", services=(ServiceSpec(name="db", **fields),))
    notices = admission.apply(Tables(), given, now_ms=1, revision=2).notices
    told = [each for each in notices if "stops 14 s after the last word from a scheduler" in each]
    assert bool(told) is is_told
