"""What each key of a service becomes: one row per form of a key."""

from functools import reduce
from typing import Any

import pytest

from homeport.spec import (
    Argv,
    BlockIO,
    Constraint,
    ConstraintOperator,
    CpuTuning,
    Dependency,
    DependencyCondition,
    Device,
    DeviceRequest,
    Driver,
    EndpointMode,
    FailureAction,
    FileKind,
    FileMount,
    HealthCheck,
    Hook,
    Logging,
    Mode,
    NetworkAttachment,
    Port,
    PublishMode,
    PullPolicy,
    Resources,
    RestartCondition,
    RestartPolicy,
    ThrottleDevice,
    Ulimit,
    UpdateConfig,
    UpdateOrder,
)
from tests.unit.homeport.compose.conftest import Project

GB = 1 << 30
MB = 1 << 20
ANY, ON_FAILURE, NONE = (
    RestartCondition.ANY,
    RestartCondition.ON_FAILURE,
    RestartCondition.NONE,
)

CONTAINER: list[tuple[str, str, Any]] = [
    ("image: a/b:1@sha256:" + "0" * 64, "image", "a/b:1@sha256:" + "0" * 64),
    ("build: .", "image", "lab-web"),
    ("build: .\nimage: mine", "image", "mine"),
    ("annotations: {a: 1}", "annotations", (("a", "1"),)),
    ("blkio_config: {weight: 300}", "block_io.weight", 300),
    (
        "blkio_config:\n"
        "  weight_device: [{path: /dev/sda, weight: 400}]\n"
        "  device_read_bps: [{path: /dev/sda, rate: 12mb}]\n"
        "  device_write_bps: [{path: /dev/sda, rate: 1024k}]\n"
        "  device_read_iops: [{path: /dev/sda, rate: 120}]\n"
        "  device_write_iops: [{path: /dev/sda, rate: 30}]",
        "block_io",
        BlockIO(
            weight_devices=(ThrottleDevice(path="/dev/sda", rate=400),),
            read_bps=(ThrottleDevice(path="/dev/sda", rate=12 * MB),),
            write_bps=(ThrottleDevice(path="/dev/sda", rate=MB),),
            read_iops=(ThrottleDevice(path="/dev/sda", rate=120),),
            write_iops=(ThrottleDevice(path="/dev/sda", rate=30),),
        ),
    ),
    ("cap_add: [NET_ADMIN, NET_ADMIN]", "cap_add", ("NET_ADMIN",)),
    ("cap_drop: [ALL]", "cap_drop", ("ALL",)),
    ("cgroup: host", "cgroupns_mode", "host"),
    ("cgroup_parent: /mine", "cgroup_parent", "/mine"),
    ("command: echo 'a b' c", "command", Argv(args=("echo", "a b", "c"))),
    ("command: [sleep, 10]", "command", Argv(args=("sleep", "10"))),
    ("command: []", "command", Argv()),
    ('command: ""', "command", Argv()),
    ("command:", "command", None),
    ("entrypoint: [/a, b]", "entrypoint", Argv(args=("/a", "b"))),
    ("cpu_shares: 73", "cpu.shares", 73),
    (
        "cpu_period: 20ms\ncpu_quota: 5000\ncpu_rt_period: 1400us\ncpu_rt_runtime: '400ms'",
        "cpu",
        CpuTuning(period_us=20_000, quota_us=5_000, rt_period_us=1_400, rt_runtime_us=400_000),
    ),
    ("cpuset: 0-3,5", "cpu.cpuset", "0-3,5"),
    ("cpus: 0.5", "limits.cpu_millis", 500),
    ("cpus: '${CPUS}'", "limits.cpu_millis", 1_500),
    ("device_cgroup_rules: ['c 1:3 mr']", "device_cgroup_rules", ("c 1:3 mr",)),
    (
        "devices: ['/dev/a', '/dev/b:/dev/c', '/dev/d:/dev/e:r', '/dev/f:rw']",
        "devices",
        (
            Device(source="/dev/a", target="/dev/a"),
            Device(source="/dev/b", target="/dev/c"),
            Device(source="/dev/d", target="/dev/e", permissions="r"),
            Device(source="/dev/f", target="/dev/f", permissions="rw"),
        ),
    ),
    (
        "devices: [{source: /dev/a, target: /dev/b, permissions: rm}]",
        "devices",
        (Device(source="/dev/a", target="/dev/b", permissions="rm"),),
    ),
    (
        "devices: ['vendor.com/gpu=0']",
        "device_requests",
        (DeviceRequest(driver="cdi", device_ids=("vendor.com/gpu=0",)),),
    ),
    ("dns: 8.8.8.8", "dns", ("8.8.8.8",)),
    ("dns: ['8.8.8.8', '::1']", "dns", ("8.8.8.8", "::1")),
    ("dns_opt: [use-vc, ndots:2]", "dns_options", ("use-vc", "ndots:2")),
    ("dns_search: example.org", "dns_search", ("example.org",)),
    ("dns_search: [a.b, c.d]", "dns_search", ("a.b", "c.d")),
    ("domainname: example.org", "domainname", "example.org"),
    ("environment: {A: 1, B: true, C: 1.10, D: , E: x=y}", "env",
     (("A", "1"), ("B", "true"), ("C", "1.1"), ("E", "x=y"))),
    ("environment: [A=1, CPUS, NONE, 'C=']", "env", (("A", "1"), ("C", ""), ("CPUS", "1.5"))),
    ("expose: [80, '81-82', 83/UDP]", "expose", ("80", "81-82", "83/udp")),
    (
        "extra_hosts: ['a:1.2.3.4', 'b=::1', 'c:[::2]', 'd:host-gateway']",
        "extra_hosts",
        ("a:1.2.3.4", "b:::1", "c:::2", "d:host-gateway"),
    ),
    (
        "extra_hosts: {a: 1.2.3.4, b: ['1.1.1.1', '::1']}",
        "extra_hosts",
        ("a:1.2.3.4", "b:1.1.1.1", "b:::1"),
    ),
    ("gpus: all", "device_requests", (DeviceRequest(count=-1, capabilities=("gpu",)),)),
    (
        "gpus: [{driver: nvidia, count: 2, options: {a: b}}, {device_ids: ['0', '3']}]",
        "device_requests",
        (
            DeviceRequest(
                driver="nvidia", count=2, capabilities=("gpu",), options=(("a", "b"),)
            ),
            DeviceRequest(device_ids=("0", "3"), capabilities=("gpu",)),
        ),
    ),
    (
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: all}]}}}",
        "device_requests",
        (DeviceRequest(count=-1, capabilities=("gpu",)),),
    ),
    ("group_add: [mail, 1000]", "group_add", ("mail", "1000")),
    ("healthcheck: {test: a b}", "health_check", HealthCheck(test=("CMD-SHELL", "a b"))),
    (
        "healthcheck:\n  test: [CMD, a, b]\n  interval: 1m\n  timeout: 5s\n  retries: 2\n"
        "  start_period: 10s\n  start_interval: 500ms",
        "health_check",
        HealthCheck(
            test=("CMD", "a", "b"), interval_ms=60_000, timeout_ms=5_000, retries=2,
            start_period_ms=10_000, start_interval_ms=500,
        ),
    ),
    ("healthcheck: {disable: true}", "health_check", HealthCheck(test=("NONE",))),
    ("healthcheck: {test: [NONE]}", "health_check", HealthCheck(test=("NONE",))),
    ("healthcheck: {interval: 5s}", "health_check", HealthCheck(interval_ms=5_000)),
    ("user: a", "health_check", None),
    ("hostname: box.lan", "hostname", "box.lan"),
    ("init: true", "init", True),
    ("init: 'no'", "init", False),
    ("user: a", "init", None),
    ("ipc: host", "ipc_mode", "host"),
    ("isolation: default", "isolation", "default"),
    ("labels: [a=1, b]", "labels", (("a", "1"), ("b", ""))),
    ("labels: {a: 1, b: true}", "labels", (("a", "1"), ("b", "true"))),
    (
        "logging: {driver: json-file, options: {max-size: 10m, max-file: 3}}",
        "logging",
        Logging(driver="json-file", options=(("max-file", "3"), ("max-size", "10m"))),
    ),
    ("mac_address: 02:42:ac:11:65:43", "mac_address", "02:42:ac:11:65:43"),
    ("mem_limit: 1g", "limits.memory_bytes", GB),
    ("mem_limit: 1g\nmemswap_limit: 2g", "memory_swap_bytes", 2 * GB),
    ("memswap_limit: -1", "memory_swap_bytes", -1),
    ("mem_swappiness: 0", "memory_swappiness", 0),
    ("user: a", "memory_swappiness", None),
    ("mem_reservation: 64m", "memory_reservation_bytes", 64 * MB),
    ("network_mode: host", "network_mode", "host"),
    ("network_mode: none", "networks", ()),
    ("user: a", "networks", (NetworkAttachment(network="default", aliases=("web",)),)),
    (
        "container_name: box",
        "networks",
        (NetworkAttachment(network="default", aliases=("web", "box")),),
    ),
    ("oom_kill_disable: true", "oom_kill_disable", True),
    ("oom_score_adj: -500", "oom_score_adj", -500),
    ("pid: host", "pid_mode", "host"),
    ("pids_limit: 100", "limits.pids", 100),
    ("pids_limit: -1", "limits.pids", -1),
    ("platform: linux/arm64", "platform", "linux/arm64"),
    (
        "post_start: [{command: [a, b], user: root, privileged: true, working_dir: /x, "
        "environment: [A=1]}]",
        "post_start",
        (Hook(command=("a", "b"), user="root", privileged=True, working_dir="/x",
              env=(("A", "1"),)),),
    ),
    ("pre_stop: [{command: a b}]", "pre_stop", (Hook(command=("a", "b")),)),
    ("privileged: true", "privileged", True),
    ("pull_policy: always", "pull_policy", PullPolicy.ALWAYS),
    ("pull_policy: never", "pull_policy", PullPolicy.NEVER),
    ("pull_policy: if_not_present", "pull_policy", PullPolicy.MISSING),
    ("pull_policy: daily", "pull_refresh_ms", 86_400_000),
    ("pull_policy: weekly", "pull_refresh_ms", 604_800_000),
    ("pull_policy: every_1d12h", "pull_refresh_ms", 129_600_000),
    ("pull_policy: refresh\npull_refresh_after: 6h", "pull_refresh_ms", 21_600_000),
    ("read_only: true", "read_only", True),
    ("runtime: runsc", "oci_runtime", "runsc"),
    ("security_opt: ['label=user:USER', no-new-privileges]", "security_opt",
     ("label=user:USER", "no-new-privileges")),
    ("shm_size: 64m", "shm_size_bytes", 64 * MB),
    ("stdin_open: true\ntty: true", "tty", True),
    ("stop_grace_period: 1m30s", "stop_grace_ms", 90_000),
    ("user: a", "stop_grace_ms", 10_000),
    ("stop_signal: SIGUSR1", "stop_signal", "SIGUSR1"),
    ("storage_opt: {size: 1G}", "storage_opt", (("size", "1G"),)),
    ("sysctls: [net.core.somaxconn=1024]", "sysctls", (("net.core.somaxconn", "1024"),)),
    ("sysctls: {net.ipv4.tcp_syncookies: 0}", "sysctls", (("net.ipv4.tcp_syncookies", "0"),)),
    (
        "ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}, memlock: -1}",
        "ulimits",
        (
            Ulimit(name="memlock", soft=-1, hard=-1),
            Ulimit(name="nofile", soft=20_000, hard=40_000),
            Ulimit(name="nproc", soft=65_535, hard=65_535),
        ),
    ),
    ("user: 1000", "user", "1000"),
    ("user: '1000:1000'", "user", "1000:1000"),
    ("userns_mode: host", "userns_mode", "host"),
    ("uts: host", "uts_mode", "host"),
    ("working_dir: /app", "working_dir", "/app"),
    (
        "deploy: {resources: {limits: {cpus: '0.50', memory: 50M, pids: 1}}}",
        "limits",
        Resources(cpu_millis=500, memory_bytes=50 * MB, pids=1),
    ),
    (
        "deploy: {resources: {reservations: {memory: 20M}}}",
        "memory_reservation_bytes",
        20 * MB,
    ),
    ("ports: ['8080:80']", "ports", (Port(target=80, published=8080),)),
    (
        "ports: [{target: 80, published: '8080', host_ip: 127.0.0.1, protocol: udp, mode: host, "
        "name: web, app_protocol: http}]",
        "ports",
        (Port(target=80, published=8080, host_ip="127.0.0.1", protocol="udp",
              mode=PublishMode.HOST, name="web", app_protocol="http"),),
    ),
]  # fmt: skip

SERVICE: list[tuple[str, str, Any]] = [
    ("user: a", "mode", Mode.REPLICATED),
    ("user: a", "replicas", 1),
    ("scale: 3", "replicas", 3),
    ("deploy: {replicas: '3'}", "replicas", 3),
    ("deploy: {replicas: 0}", "replicas", 0),
    ("scale: 2\ndeploy: {replicas: 2}", "replicas", 2),
    ("deploy: {mode: global}", "mode", Mode.GLOBAL),
    ("deploy: {mode: replicated-job}", "mode", Mode.REPLICATED_JOB),
    ("deploy: {mode: global-job}", "mode", Mode.GLOBAL_JOB),
    ("deploy: {endpoint_mode: dnsrr}", "endpoint_mode", EndpointMode.DNSRR),
    ("deploy: {labels: {a: 1}}", "labels", (("a", "1"),)),
    ("user: a", "restart", RestartPolicy(condition=ANY)),
    ('restart: "no"', "restart", RestartPolicy(condition=NONE)),
    ("restart: no", "restart", RestartPolicy(condition=NONE)),
    ("restart: always", "restart", RestartPolicy(condition=ANY)),
    ("restart: unless-stopped", "restart", RestartPolicy(condition=ANY)),
    ("restart: on-failure", "restart", RestartPolicy(condition=ON_FAILURE)),
    ("restart: on-failure:3", "restart", RestartPolicy(condition=ON_FAILURE, max_attempts=3)),
    (
        "restart: always\n"
        "deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, "
        "window: 120s}}",
        "restart",
        RestartPolicy(condition=ON_FAILURE, delay_ms=5_000, max_attempts=3, window_ms=120_000),
    ),
    ("deploy: {mode: replicated-job}", "restart", RestartPolicy(condition=ON_FAILURE)),
    (
        "deploy: {update_config: {parallelism: 2, delay: 10s, failure_action: rollback, "
        "monitor: 1m, max_failure_ratio: 0.1, order: start-first}}",
        "update",
        UpdateConfig(parallelism=2, delay_ms=10_000, failure_action=FailureAction.ROLLBACK,
                     monitor_ms=60_000, max_failure_ratio=0.1, order=UpdateOrder.START_FIRST),
    ),
    (
        "deploy: {rollback_config: {parallelism: 0, failure_action: continue}}",
        "rollback",
        UpdateConfig(parallelism=0, failure_action=FailureAction.CONTINUE),
    ),
    (
        "deploy: {placement: {constraints: ['node.labels.disk==ssd', 'node.role != worker']}}",
        "placement.constraints",
        (
            Constraint(key="node.labels.disk", operator=ConstraintOperator.EQ, value="ssd"),
            Constraint(key="node.role", operator=ConstraintOperator.NE, value="worker"),
        ),
    ),
    (
        "deploy: {placement: {preferences: [{spread: node.labels.zone}]}}",
        "placement.spread",
        ("node.labels.zone",),
    ),
    (
        "deploy: {placement: {max_replicas_per_node: 1}}",
        "placement.max_replicas_per_node",
        1,
    ),
    (
        "deploy: {resources: {reservations: {cpus: 0.25, memory: 20M, generic_resources: "
        "[{discrete_resource_spec: {kind: gpu, value: 2}}]}}}",
        "reservations",
        Resources(cpu_millis=250, memory_bytes=20 * MB, generic=(("gpu", "2"),)),
    ),
    ("mem_reservation: 20M", "reservations.memory_bytes", 20 * MB),
    ("x-homeport: {exclusive: true}", "exclusive", True),
    ("user: a", "exclusive", None),
    ("x-homeport: {runtime: simulated}", "driver", Driver.SIMULATED),
    ("x-homeport: {node: nas}", "pin_node", "nas"),
    ("x-homeport: {priority: 10}", "priority", 10),
    (
        "deploy: {mode: replicated-job}\nx-homeport: {max_concurrent: 2}",
        "max_concurrent",
        2,
    ),
]  # fmt: skip


def part(value: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), value)


@pytest.mark.parametrize(("body", "field", "expected"), CONTAINER)
def test_the_container(project: Project, body: str, field: str, expected: Any) -> None:
    assert part(project.container(body, environment={"CPUS": "1.5"}), field) == expected


@pytest.mark.parametrize(("body", "field", "expected"), SERVICE)
def test_the_service(project: Project, body: str, field: str, expected: Any) -> None:
    assert part(project.service(body), field) == expected


def test_env_files_come_before_environment(project: Project) -> None:
    project.write({"a.env": "A=1\nB=1\nC=1\nH=${HOME}\n", "b.env": "B='2' # $X\nD=$A\n"})
    body = "env_file: [a.env, {path: b.env, format: raw}, {path: none.env, required: false}]\n"
    container = project.container(body + "environment: {C: 3}", environment={"HOME": "/home/me"})
    assert dict(container.env) == {
        "A": "1", "B": "'2' # $X", "C": "3", "D": "$A", "H": "/home/me",
    }  # fmt: skip


def test_an_env_file_sees_the_ones_before_it(project: Project) -> None:
    project.write({"a.env": "A=1\n", "b.env": "B=$A\n"})
    assert dict(project.container("env_file: [a.env, b.env]").env)["B"] == "1"


def test_labels_come_from_files_too(project: Project) -> None:
    project.write({"labels": "a=1\nb=1\n"})
    container = project.container("label_file: labels\nlabels: {b: 2}")
    assert container.labels == (("a", "1"), ("b", "2"))


def test_a_seccomp_profile_goes_with_its_content(project: Project) -> None:
    project.write({"profile.json": '{"defaultAction": "SCMP_ACT_ALLOW"}'})
    container = project.container("security_opt: ['seccomp:./profile.json', seccomp=unconfined]")
    assert container.security_opt == (
        'seccomp={"defaultAction": "SCMP_ACT_ALLOW"}', "seccomp=unconfined",
    )  # fmt: skip


def test_dependencies_in_both_forms(project: Project) -> None:
    text = (
        "services:\n"
        "  a: {image: x, depends_on: [b, c]}\n"
        "  b: {image: x}\n"
        "  c:\n    image: x\n    depends_on:\n"
        "      b: {condition: service_healthy, restart: true, required: false}\n"
        "  d: {image: x, depends_on: {b: {condition: service_completed_successfully}}}\n"
    )
    a, b, c, d = project.load(text).stack.services
    assert a.depends_on == (Dependency(service="b"), Dependency(service="c"))
    assert c.depends_on == (
        Dependency(
            service="b", condition=DependencyCondition.HEALTHY, required=False, restart=True
        ),
    )
    assert d.depends_on[0].condition is DependencyCondition.COMPLETED
    assert b.restart.condition is ON_FAILURE


def test_links_make_aliases_and_dependencies(project: Project) -> None:
    text = "services:\n  a: {image: x, links: [b, 'b:db']}\n  b: {image: x}\n"
    a, b = project.load(text).stack.services
    assert a.depends_on == (Dependency(service="b"),)
    assert b.container.networks[0].aliases == ("b", "db")


def test_networks_of_a_service(project: Project) -> None:
    body = (
        "networks:\n  front:\n  back:\n    aliases: [db]\n    ipv4_address: 172.20.0.5\n"
        "    ipv6_address: 2001:db8::5\n    link_local_ips: [57.123.22.11]\n"
        "    mac_address: 02:42:ac:11:65:43\n    driver_opts: {a: 1}\n    interface_name: eth7\n"
        "    priority: 10\n    gw_priority: -1"
    )
    container = project.container(body, "networks: {front: , back: }\n")
    assert container.networks == (
        NetworkAttachment(network="front", aliases=("web",)),
        NetworkAttachment(
            network="back", aliases=("web", "db"), ipv4_address="172.20.0.5",
            ipv6_address="2001:db8::5", link_local_ips=("57.123.22.11",),
            mac_address="02:42:ac:11:65:43", driver_opts=(("a", "1"),), interface_name="eth7",
            priority=10, gw_priority=-1,
        ),
    )  # fmt: skip


def test_configs_and_secrets_of_a_service(project: Project) -> None:
    body = (
        "configs: [a, {source: a, target: /etc/a.conf, uid: '103', gid: '104', mode: 0440}]\n"
        "secrets: [s, {source: s, target: other, mode: '0400'}]"
    )
    rest = "configs: {a: {content: x}}\nsecrets: {s: {environment: S}}\n"
    loaded = project.load(
        "services:\n  web:\n    image: x\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        + rest,
        environment={"S": "hidden"},
    )
    config, secret = FileKind.CONFIG, FileKind.SECRET
    assert loaded.stack.services[0].container.files == (
        FileMount(kind=config, source="a", target="/a"),
        FileMount(kind=config, source="a", target="/etc/a.conf", uid="103", gid="104", mode=0o440),
        FileMount(kind=secret, source="s", target="/run/secrets/s"),
        FileMount(kind=secret, source="s", target="/run/secrets/other", mode=0o400),
    )
    assert [(f.name, f.data) for f in loaded.stack.files] == [("a", b"x"), ("s", b"hidden")]
    assert "hidden" not in str(loaded.notices)


def test_a_program_of_the_process_runtime_needs_no_image(project: Project) -> None:
    project.write({"requirements.txt": "flask\n"})
    text = (
        "services:\n  web:\n    command: [python3, app.py]\n"
        "    x-homeport: {runtime: process, venv: requirements.txt}\n"
    )
    service = project.load(text).stack.services[0]
    assert service.driver is Driver.PROCESS
    assert service.container.venv_requirements == "flask\n"
