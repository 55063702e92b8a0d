"""What is refused or told about, each with its place, its sentence and the way out."""

import pytest

from homeport.compose import rows
from homeport.compose.rows import Standing
from tests.unit.homeport.compose.conftest import Project


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("imagee: x", "4:5: services.web.imagee: Compose knows no such key here. "
                      "Did you mean `image`?"),
        ("replicas: 2", "4:5: services.web.replicas: Compose knows no such key here. "
                        "Write it under `deploy:`"),
        ("deploy: {update_config: {oder: x}}", "Did you mean `order`?"),
        ("x-homeport: {exlusive: true}", "Did you mean `exclusive`?"),
        ("volumes_from: [x]", "4:5: services.web.volumes_from: is not supported: "),
        ("external_links: [x]", "Put both on one network with `external: true`"),
        ("credential_spec: {file: x}", "is not supported"),
        ("cpu_count: 2", "4:5: services.web.cpu_count: is not supported: is for Windows "
                         "containers; Homeport runs Linux containers. Limit the cores with `cpus`"),
        ("cpu_percent: 50", "4:5: services.web.cpu_percent: is not supported: is for Windows "
                            "containers; Homeport runs Linux containers. Limit the cores with"),
        ("provider: {type: x}", "is not supported"),
        ("models: [x]", "is not supported"),
        ("use_api_socket: true", "is not supported"),
        ("network_mode: service:db", "two containers share one network only on one node"),
        ("network_mode: container:x", "Join both to a network of the stack"),
        ("pid: service:db", "two containers share this only on one node"),
        ("ipc: container:x", "two containers share this only on one node"),
        ("network_mode: host\nnetworks: [default]", "cannot be given together with `networks`"),
        ("isolation: hyperv", "'hyperv' is not one of default"),
        ("image: -v/:/x", "is not the name of an image"),
        ("image: 'a:" + "x" * 10_000 + "'", "is not the name of an image"),
        ("image: x@sha256:12", "is not the name of an image"),
        ("image: true", "must be text, not true. Put it into quotes"),
        ("image: [a]", "must be text, not a list"),
        ("command: {a: b}", "must be text, not a map"),
        ("command: \"echo 'a\"", "has a quote that is never closed"),
        ("environment: x", "must be a map, not a single value"),
        ("environment: {A: {b: c}}", "must be a single value, not a map"),
        ("environment: ['=x']", "has no name before the ="),
        ("cap_add: NET_ADMIN", "must be a list, not a single value"),
        ("cap_add: ['a b']", "is not a capability"),
        ("cpus: nan", "'nan' is not a number of cores"),
        ("cpus: .nan", "'.nan' is not a number"),
        ("cpus: -1", "is negative"),
        ("mem_limit: 1e99", "is not a size such as 512M"),
        ("mem_limit: 1k", "is less than the 6 MiB that Docker needs"),
        ("mem_limit: 64m\nmem_reservation: 65m", "is more than the memory limit"),
        ("mem_limit: 64m\nmemswap_limit: 32m", "is less than the memory limit"),
        ("memswap_limit: 32m", "needs a memory limit"),
        ("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}",
         "differs from deploy.resources.limits.memory. Remove one of the two"),
        ("cpus: 1\ndeploy: {resources: {limits: {cpus: 2}}}", "differs from deploy.resources"),
        ("pids_limit: 1\ndeploy: {resources: {limits: {pids: 2}}}", "differs from deploy"),
        ("cpus: 1\ncpu_quota: 5000", "say the same twice"),
        ("deploy: {resources: {limits: {cpus: 1}, reservations: {cpus: 2}}}",
         "is more than the cpu limit"),
        ("scale: 2\ndeploy: {replicas: 3}", "differs from deploy.replicas"),
        ("deploy: {replicas: 2147483648}", "is not between 0 and 10000"),
        ("deploy: {replicas: -1}", "is not between 0 and 10000"),
        ("deploy: {replicas: lots}", "'lots' is not a whole number"),
        ("deploy: {mode: global, replicas: 2}", "a global service has one task on every node"),
        ("deploy: {mode: gobal}", "'gobal' is not one of replicated, global"),
        ("deploy: [x]", "must be a map"),
        ("deploy: {mode: replicated-job}\nrestart: always", "but it is meant to end: a job"),
        ("restart: sometimes", "'sometimes' is not one of no, always"),
        ("restart: on-failure:x", "'x' is not a whole number"),
        ("deploy: {placement: {constraints: [node.labels.a=b]}}", "is not a constraint such as"),
        ("deploy: {placement: {constraints: [node.colour==b]}}", "is not a fact of nodes"),
        ("deploy: {placement: {preferences: [{spread: zone}]}}", "is not a fact of nodes"),
        ("deploy: {update_config: {order: start-frist}}", "is not one of stop-first, start-first"),
        ("deploy: {update_config: {max_failure_ratio: 2}}", "is not a number between 0 and 1"),
        ("deploy: {rollback_config: {failure_action: rollback}}", "is not one of pause, continue"),
        ("healthcheck: {test: [a, b]}", "the first word must be one of NONE, CMD, CMD-SHELL"),
        ("healthcheck: {test: [CMD]}", "CMD needs a program"),
        ("healthcheck: {interval: 1ns}", "is shorter than a millisecond"),
        ("healthcheck: {interval: 10}", "is not a duration such as 1m30s"),
        ("healthcheck: {test: a, disable: true}", "cannot be given together with `disable: true`"),
        ("stop_grace_period: -1s", "is not a duration"),
        ("stop_signal: 'rm -rf'", "is not a signal"),
        ("devices: [ttyUSB0]", "is not the path of a device"),
        ("devices: ['/dev/a:/dev/b:xyz']", "are not permissions of r, w and m"),
        ("gpus: some", "must be `all`, or a list"),
        ("gpus: [{count: 1, device_ids: ['0']}]", "cannot be given together with `device_ids`"),
        ("dns: 8.8.8", "is not the address of a name server"),
        ("extra_hosts: ['a']", "is not an address"),
        ("extra_hosts: {a: b}", "is not an address"),
        ("sysctls: ['a b=1']", "is not a kernel parameter"),
        ("ulimits: {nofile: {soft: 5, hard: 2}}", "the soft limit is above the hard one"),
        ("ulimits: {nofile: {soft: 5}}", "needs both `soft` and `hard`"),
        ("oom_score_adj: 5000", "is not between -1000 and 1000"),
        ("mem_swappiness: 101", "is not between 0 and 100"),
        ("blkio_config: {weight: 5}", "is not between 10 and 1000"),
        ("hostname: '-a'", "is not a host name"),
        ("container_name: 'a b'", "is not a name that other containers can use"),
        ("mac_address: xx", "is not a MAC address"),
        ("pull_policy: sometimes", "is not one of always"),
        ("pull_policy: build", "needs a `build:`"),
        ("pull_policy: refresh", "needs `pull_refresh_after`"),
        ("security_opt: [magic=1]", "is not a security option"),
        ("labels: {dev.homeport.task: x}", "labels that start with dev.homeport."),
        ("depends_on: [web]", "a service cannot depend on itself"),
        ("depends_on: [wbe2]", "there is no service 'wbe2' to depend on"),
        ("depends_on: {web2: {condition: maybe}}", "is not one of service_started"),
        ("links: [x]", "there is no service 'x' to link to"),
        ("networks: [x]", "the network 'x' is not defined. Add it under the top-level"),
        ("configs: [x]", "the config 'x' is not defined"),
        ("secrets: [{source: x}]", "the secret 'x' is not defined"),
        ("post_start: [{user: a}]", "needs a `command`"),
        ("tty: maybe", "must be true or false"),
        ("cgroup: other", "is not one of host, private"),
        ("x-homeport: {runtime: podman}", "is not one of docker, process, simulated"),
        ("x-homeport: {venv: r.txt}", "is for the process runtime"),
        ("x-homeport: {max_concurrent: 2}", "is for jobs only"),
        ("x-homeport: {exclusive: true}\nscale: 2", "at most one copy may run"),
        ("env_file: [{required: false}]", "needs a `path`"),
        ("env_file: /dev/null", "is a device, a pipe or a socket"),
    ],
)  # fmt: skip
def test_a_service_is_refused(project: Project, body: str, sentence: str) -> None:
    found = project.refused(body)
    assert any(sentence in problem for problem in found), found


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ("networks: {n: {external: true, driver: x}}", "cannot be given for what is `external`"),
        ("networks: {n: {ipam: {config: [{subnet: 1.2.3}]}}}", "is not a range of addresses"),
        ("networks: {n: {name: '../x'}}", "is not a name that the engine takes"),
        ("networks: {'-n': {}}", "'-n' cannot be a name"),
        ("networks: {'\uff4e': {}}", "cannot be a name"),
        ("networks: [n]", "must be a map, not a list"),
        ("volumes: {v: [x]}", "must be a map"),
        ("volumes: {'..': {}}", "'..' cannot be a name"),
        ("volumes: {v: {driver_opts: {o: bind, type: none, device: ./x}}}",
         "is a relative path, which means nothing on the nodes"),
        ("configs: {c: {external: true}}", "is not supported: there is no store of configs"),
        ("configs: {c: {template_driver: golang}}", "templates are not filled in"),
        ("secrets: {s: {driver: vault}}", "secret drivers are plugins of Swarm"),
        ("models: {m: {model: x}}", "is not supported: models need Docker's model runner"),
        ("volume: {}", "Did you mean `volumes`?"),
        ("x-homeport: {}", "Compose knows no such key here"),
        ("services2: {}", "Did you mean `services`?"),
    ],
)  # fmt: skip
def test_a_section_is_refused(project: Project, rest: str, sentence: str) -> None:
    found = project.refused("user: a", rest + "\n")
    assert any(sentence in problem for problem in found), found


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ("configs: {c: {}}", "a config needs exactly one of file, content, environment"),
        ("configs: {c: {file: a, content: b}}", "a config needs exactly one of"),
        ("configs: {c: {environment: NONE}}", "the variable NONE that holds the config is not set"),
        ("configs: {c: x}", "must be a map with one of"),
        ("configs: {c: {file: /dev/zero}}", "is a device, a pipe or a socket"),
    ],
)
def test_a_config_is_refused(project: Project, files: str, sentence: str) -> None:
    found = project.refused("configs: [c]", files + "\n")
    assert any(sentence in problem for problem in found), found


@pytest.mark.parametrize("target", ["../../../etc/cron.d/x", "/run/../../etc/x", "/", "."])
def test_a_secret_stays_where_it_belongs(project: Project, target: str) -> None:
    body = f"secrets: [{{source: s, target: {target!r}}}]"
    (problem,) = project.refused(body, "secrets: {s: {environment: S}}\n", environment={"S": "x"})
    assert "is not a path of a file in the container" in problem


def test_the_same_target_for_two_files_is_refused(project: Project) -> None:
    body = "configs: [c]\nvolumes: ['vol:/c']"
    (problem,) = project.refused(body, "configs: {c: {content: x}}\nvolumes: {vol: }\n")
    assert "two things are mounted at /c" in problem


def test_all_problems_are_reported_at_once_and_in_order(project: Project) -> None:
    body = "imagee: x\nports: ['70000:80', '80:99999']\ncpus: x\nvolumes_from: [a]"
    assert [problem.partition(": ")[0] for problem in project.refused(body)] == [
        "compose.yaml:4:5", "compose.yaml:5:13", "compose.yaml:5:25", "compose.yaml:6:11",
        "compose.yaml:7:5",
    ]  # fmt: skip


def test_services_that_wait_for_each_other_are_refused(project: Project) -> None:
    text = (
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n"
        "  c: {image: x, depends_on: [a]}\n"
    )
    (problem,) = project.problems(text)
    assert "these services wait for each other: a waits for b waits for c waits for a" in problem


def test_an_awaited_service_may_not_run_for_ever(project: Project) -> None:
    text = (
        "services:\n  a:\n    image: x\n    depends_on:\n"
        "      b: {condition: service_completed_successfully}\n  b: {image: x, restart: always}\n"
    )
    (problem,) = project.problems(text)
    assert "another service waits for it to complete" in problem


@pytest.mark.parametrize("name", ["a" * 64, "-a", ".", "..", "a b", "ünïcode", "a/b"])
def test_names_of_services_are_checked(project: Project, name: str) -> None:
    problems = project.problems(f"services:\n  '{name}': {{image: x}}\n")
    assert any("cannot be a name" in problem for problem in problems)


def test_neither_image_nor_build(project: Project) -> None:
    (problem,) = project.problems("services:\n  web: {user: a}\n")
    assert problem == (
        "compose.yaml:2:8: services.web: has neither an image nor a build. Add `image:`"
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("container_name: x", "4:5: services.web.container_name: becomes an alias"),
        ("attach: true", "concerns only the terminal of `compose up`"),
        ("develop: {watch: [{path: ., action: sync, target: /x}]}", "is used by `compose watch`"),
        ("links: ['other:o']", "the name o is known to every service on the network"),
        ("depends_on: [other]", "orders the first start only"),
        ("depends_on: {other: {condition: service_started, restart: true}}",
         "a restart of other does not restart this service"),
        ("build: .", "the image lab-web is built only by `apply --build`"),
        ("ports: [{target: 80, published: 80, mode: ingress}]", "not yet on every node"),
        ("network_mode: host\nports: ['80:80']", "publishes nothing"),
        ("deploy: {endpoint_mode: vip}", "`vip` is not there yet"),
        ("deploy: {update_config: {order: start-first}}", "rolled out stop-first for now"),
        ("deploy: {update_config: {failure_action: rollback}}", "and pauses for now"),
        ("deploy: {rollback_config: {parallelism: 2}}", "a rollout that fails pauses for now"),
        ("build: {ssh: [default]}", "needs BuildKit, which `apply --build` does not use yet"),
        ("volumes: ['/srv/x:/x']", "/srv/x is a path of the node that runs the task"),
    ],
)  # fmt: skip
def test_a_notice(project: Project, body: str, sentence: str) -> None:
    found = project.notices(body, "  other: {image: x}\n")
    assert any(sentence in notice for notice in found), found


def test_secrets_are_told_to_be_unencrypted(project: Project) -> None:
    notices = project.notices(
        "secrets: [s]", "secrets: {s: {environment: S}}\n", environment={"S": "x"}
    )
    assert "secrets are stored unencrypted for now, and mounted from memory (tmpfs)" in notices[0]


def test_version_is_obsolete(project: Project) -> None:
    loaded = project.load("version: '3'\nservices:\n  web: {image: x}\n")
    assert "compose.yaml:1:1: version: is obsolete" in str(loaded.notices[0])


@pytest.mark.parametrize(
    "path", [row.path for row in rows.ROWS if row.standing is Standing.REFUSED]
)
def test_every_refused_key_is_refused_with_its_way_out(project: Project, path: str) -> None:
    row = next(row for row in rows.ROWS if row.path == path)
    assert row.way_out
    section, *parts = path.split(".")
    name = "web" if section == "services" else "n"
    if not parts:
        text = f"services:\n  web: {{image: x}}\n{section}: {{m: {{model: x}}}}\n"
    elif section == "services":
        text = f"services:\n  web: {{image: x, {parts[1]}: [x]}}\n"
    else:
        text = f"services:\n  web: {{image: x}}\n{section}: {{n: {{file: a, {parts[1]}: x}}}}\n"
    place = ".".join([section, *([name, *parts[1:]] if parts else [])])
    assert any(f": {place}: is not supported: {row.note}" in p for p in project.problems(text))
