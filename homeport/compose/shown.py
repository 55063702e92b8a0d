"""Which test shows what a key of a Compose file does: on a real engine, or on a cluster.

Named by the test's id, so that a test can ask whether all of them exist. A key of a service that
stands in no list of this module is about the container's program.
"""

from __future__ import annotations

CLUSTER = "tests/e2e/test_compose_cluster.py::test_"
STACKS = "tests/e2e/test_stacks.py::test_"
REPLICAS = STACKS + "replicas_are_spread_over_the_nodes_and_answer_on_their_ports"
ROLLOUT = STACKS + "a_change_replaces_one_slot_at_a_time"
FAILED_ROLLOUT = STACKS + "a_bad_image_stops_the_rollout_with_its_reason"
DEPENDENCIES = STACKS + "the_dependency_was_healthy_before_what_depends_on_it_started"
LOADING = "tests/unit/homeport/compose/test_project.py::test_"
PLACING = "tests/integration/test_placing.py::test_"
COUNTED = PLACING + "generic_resources_are_counted"
SPREAD = PLACING + "a_service_is_spread_over_a_label"
TAINTED = PLACING + "a_taint_sends_away_and_keeps_away"
WISHES = PLACING + "wishes_choose_nodes"
NEIGHBOURS = PLACING + "neighbours_are_near_and_apart"
PREEMPTION = "tests/integration/test_preemption.py::test_"
PROCESS = "tests/contract/test_process_options.py::test_"

PROGRAM = "tests/contract/test_docker_options.py::test_"
LIMITS = "tests/contract/test_docker_limits.py::test_"
MOUNTS = "tests/contract/test_docker_mounts.py::test_"
NETWORKING = "tests/contract/test_docker_networking.py::test_"

_OF_A_SERVICE = {
    name: file
    for file, names in (
        (
            LIMITS,
            # what it may do
            "cap_add cap_drop privileged read_only security_opt devices device_cgroup_rules gpus "
            "sysctls ulimits "
            # how much it may use
            "cpus cpu_quota cpu_period cpu_shares cpuset cpu_rt_runtime cpu_rt_period isolation "
            "mem_limit memswap_limit mem_swappiness mem_reservation oom_kill_disable oom_score_adj "
            "pids_limit shm_size blkio_config storage_opt "
            # which world it sees
            "ipc pid uts cgroup userns_mode network_mode cgroup_parent runtime",
        ),
        (MOUNTS, "volumes tmpfs configs secrets"),
        (
            NETWORKING,
            "networks links mac_address dns dns_opt dns_search extra_hosts expose ports",
        ),
    )
    for name in names.split()
}

GIVEN = LIMITS + "devices_that_a_task_was_given"


def test_of(path: str) -> str:
    """`services.*.ports[].target` is shown by `test_ports`, and so on."""
    parts = [part.removesuffix("[]") for part in path.split(".")]
    section, names = parts[0], [part for part in parts[2:] if part != "*"]
    match section:
        case "services" if names and names[0] == "deploy":
            return CLUSTER + "_".join(names[:2])
        case "services":
            return _OF_A_SERVICE.get(names[0], PROGRAM) + names[0]
        case "networks":
            return NETWORKING + "_".join(("network", *names[:1]))
        case "volumes":
            return MOUNTS + "_".join(("volume", *names[:1]))
        case _:
            return MOUNTS + section  # configs and secrets
