"""Every key of the Compose specification, and what Homeport makes of it: one row each.

This is the data behind the check of unknown and refused keys, behind the notices and behind
docs/compose.md; there is no second list. A key that Compose learns gets a row here first. `*` in a
path stands for any name, `[]` for any entry of a list.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from homeport.compose.shown import (
    CLUSTER,
    COUNTED,
    DEPENDENCIES,
    FAILED_ROLLOUT,
    GIVEN,
    LIMITS,
    LOADING,
    MOUNTS,
    NEIGHBOURS,
    NETWORKING,
    PREEMPTION,
    PROCESS,
    REPLICAS,
    ROLLOUT,
    SPREAD,
    TAINTED,
    WISHES,
    test_of,
)


class Standing(enum.Enum):
    """What becomes of a key."""

    MAPPED = "mapped"
    NOTICE = "mapped with a notice"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One key."""

    path: str
    standing: Standing
    field: str = ""  # where it arrives, in homeport/spec.py
    test: str = ""  # id of the test that shows the effect
    note: str = ""  # the notice, or why it is refused
    way_out: str = ""
    always: bool = (
        True  # False: the notice depends on the value, and the reader of the key gives it
    )

    @property
    def key(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2].removesuffix("[]")


def _mapped(path: str, field: str, test: str = "") -> Row:
    return Row(path=path, standing=Standing.MAPPED, field=field, test=test or test_of(path))


def _notice(
    path: str, note: str, *, field: str = "", test: str = "", way_out: str = "", always: bool = True
) -> Row:
    return Row(
        path=path, standing=Standing.NOTICE, field=field, note=note, way_out=way_out, always=always,
        test=(test or test_of(path)) if field else "",
    )  # fmt: skip


def _refused(path: str, note: str, way_out: str) -> Row:
    return Row(path=path, standing=Standing.REFUSED, note=note, way_out=way_out)


def _children(parent: str, field: str, names: str, test: str = "") -> tuple[Row, ...]:
    """Rows for keys and their fields; `key=name`: a field of another name; `key=`: none."""
    rows = []
    for name in names.split():
        key, is_renamed, target = name.partition("=")
        arrives = target if is_renamed else key
        rows.append(_mapped(f"{parent}.{key}", f"{field}.{arrives}".removesuffix("."), test))
    return tuple(rows)


_WINDOWS = "Homeport runs Linux containers"
_REAL_TIME = (
    "needs a kernel that schedules groups in real time; an engine on another kernel refuses the "
    "container"
)

TOP = (
    _notice("version", "is obsolete; Compose ignores it too", way_out="Remove the line"),
    _mapped("name", "StackSpec.name", LOADING + "name"),
    _mapped("include", "StackSpec", LOADING + "include"),
    *_children("include[]", "StackSpec", "path= env_file= project_directory=", LOADING + "include"),
    _mapped("services", "StackSpec.services", REPLICAS),
    _mapped("networks", "StackSpec.networks", NETWORKING + "networks"),
    _mapped("volumes", "StackSpec.volumes", MOUNTS + "volumes"),
    _mapped("configs", "StackSpec.files", MOUNTS + "configs"),
    _mapped("secrets", "StackSpec.files", MOUNTS + "secrets"),
    _refused(
        "models", "models need Docker's model runner, which Homeport does not start",
        "Run the model server as a service of its own and pass its address by `environment`",
    ),
)  # fmt: skip

SERVICE = (
    _mapped("services.*.image", "ContainerSpec.image"),
    _notice(
        "services.*.build", "is built only by `apply --build`, on the machine that runs it",
        field="BuildSpec", always=False, way_out="Run `homeport apply --build`",
    ),
    _mapped("services.*.annotations", "ContainerSpec.annotations"),
    _notice(
        "services.*.attach", "concerns only the terminal of `compose up`; nothing is attached here",
        way_out="Use `homeport logs`",
    ),
    _mapped("services.*.blkio_config", "ContainerSpec.block_io"),
    _mapped("services.*.blkio_config.weight", "BlockIO.weight"),
    _mapped("services.*.blkio_config.weight_device", "BlockIO.weight_devices"),
    _mapped("services.*.blkio_config.weight_device[].path", "ThrottleDevice.path"),
    _mapped("services.*.blkio_config.weight_device[].weight", "ThrottleDevice.rate"),
    *(
        row
        for way in ("read", "write")
        for unit in ("bps", "iops")
        for row in (
            _mapped(f"services.*.blkio_config.device_{way}_{unit}", f"BlockIO.{way}_{unit}"),
            *_children(
                f"services.*.blkio_config.device_{way}_{unit}[]", "ThrottleDevice", "path rate"
            ),
        )
    ),
    _mapped("services.*.cap_add", "ContainerSpec.cap_add"),
    _mapped("services.*.cap_drop", "ContainerSpec.cap_drop"),
    _mapped("services.*.cgroup", "ContainerSpec.cgroupns_mode"),
    _mapped("services.*.cgroup_parent", "ContainerSpec.cgroup_parent"),
    _mapped("services.*.command", "ContainerSpec.command"),
    _mapped("services.*.configs", "ContainerSpec.files"),
    *_children("services.*.configs[]", "FileMount", "source target uid gid mode"),
    _notice(
        "services.*.container_name",
        "becomes an alias on the service's networks; Homeport names containers itself",
        field="NetworkAttachment.aliases",
        way_out="Reach the container by this name, and find it with `homeport ps`",
    ),
    _refused(
        "services.*.cpu_count", f"is for Windows containers; {_WINDOWS}",
        "Limit the cores with `cpus`",
    ),
    _refused(
        "services.*.cpu_percent", f"is for Windows containers; {_WINDOWS}",
        "Limit the cores with `cpus`",
    ),
    _mapped("services.*.cpu_period", "CpuTuning.period_us"),
    _mapped("services.*.cpu_quota", "CpuTuning.quota_us"),
    _notice(
        "services.*.cpu_rt_period", _REAL_TIME, field="CpuTuning.rt_period_us",
        way_out="Leave it out where nodes refuse it",
    ),
    _notice(
        "services.*.cpu_rt_runtime", _REAL_TIME, field="CpuTuning.rt_runtime_us",
        way_out="Leave it out where nodes refuse it",
    ),
    _mapped("services.*.cpu_shares", "CpuTuning.shares"),
    _mapped("services.*.cpus", "ContainerSpec.limits.cpu_millis"),
    _mapped("services.*.cpuset", "CpuTuning.cpuset"),
    _refused("services.*.credential_spec", f"is for Windows containers; {_WINDOWS}", "Remove it"),
    _notice(
        "services.*.depends_on",
        "orders the first start only; later restarts and moves do not wait for it",
        field="ServiceSpec.depends_on", test=DEPENDENCIES,
        way_out="Let the program try again until what it needs answers",
    ),
    *_children(
        "services.*.depends_on.*", "Dependency", "condition required", DEPENDENCIES
    ),
    _notice(
        "services.*.depends_on.*.restart",
        "is recorded, but a restart of the other service does not restart this one",
        field="Dependency.restart", test=DEPENDENCIES, always=False,
        way_out="To restart both, remove them with `homeport rm` and `homeport apply` again",
    ),
    _notice("services.*.develop", "is used by `compose watch` only", way_out="Nothing to do"),
    _notice("services.*.develop.watch", "is used by `compose watch` only"),
    *(
        _notice(f"services.*.develop.watch[].{key}", "is used by `compose watch` only")
        for key in ("path", "action", "target", "ignore", "include", "initial_sync", "exec")
    ),
    *(
        _notice(f"services.*.develop.watch[].exec.{key}", "is used by `compose watch` only")
        for key in ("command", "user", "privileged", "working_dir", "environment")
    ),
    _mapped("services.*.device_cgroup_rules", "ContainerSpec.device_cgroup_rules"),
    _mapped("services.*.devices", "ContainerSpec.devices"),
    *_children("services.*.devices[]", "Device", "source target permissions"),
    _mapped("services.*.dns", "ContainerSpec.dns"),
    _mapped("services.*.dns_opt", "ContainerSpec.dns_options"),
    _mapped("services.*.dns_search", "ContainerSpec.dns_search"),
    _mapped("services.*.domainname", "ContainerSpec.domainname"),
    _mapped("services.*.entrypoint", "ContainerSpec.entrypoint"),
    _mapped("services.*.env_file", "ContainerSpec.env"),
    *_children("services.*.env_file[]", "ContainerSpec.env", "path= required= format="),
    _mapped("services.*.environment", "ContainerSpec.env"),
    _mapped("services.*.expose", "ContainerSpec.expose"),
    _mapped("services.*.extends", "ServiceSpec", LOADING + "extends"),
    *_children("services.*.extends", "ServiceSpec", "service= file=", LOADING + "extends"),
    _refused(
        "services.*.external_links", "containers outside the stack cannot be linked",
        "Put both on one network with `external: true`",
    ),
    _mapped("services.*.extra_hosts", "ContainerSpec.extra_hosts"),
    _mapped("services.*.gpus", "ContainerSpec.device_requests"),
    *_children(
        "services.*.gpus[]", "DeviceRequest", "capabilities count device_ids driver options"
    ),
    _mapped("services.*.group_add", "ContainerSpec.group_add"),
    _mapped("services.*.healthcheck", "ContainerSpec.health_check"),
    *_children(
        "services.*.healthcheck", "HealthCheck",
        "test interval=interval_ms timeout=timeout_ms start_period=start_period_ms "
        "start_interval=start_interval_ms retries disable=test",
    ),
    _mapped("services.*.hostname", "ContainerSpec.hostname"),
    _mapped("services.*.init", "ContainerSpec.init"),
    _notice(
        "services.*.ipc", "`service:` and `container:` are refused: the two containers may be on "
        "different nodes", field="ContainerSpec.ipc_mode", always=False,
    ),
    _mapped("services.*.isolation", "ContainerSpec.isolation"),
    _mapped("services.*.label_file", "ContainerSpec.labels"),
    _mapped("services.*.labels", "ContainerSpec.labels"),
    _notice(
        "services.*.links",
        "an alias holds for all services on the network that the two share, not for this one alone",
        field="NetworkAttachment.aliases", always=False,
    ),
    _mapped("services.*.logging", "ContainerSpec.logging"),
    *_children("services.*.logging", "Logging", "driver options"),
    _mapped("services.*.mac_address", "ContainerSpec.mac_address"),
    _mapped("services.*.mem_limit", "ContainerSpec.limits.memory_bytes"),
    _mapped("services.*.mem_reservation", "ContainerSpec.memory_reservation_bytes"),
    _mapped("services.*.mem_swappiness", "ContainerSpec.memory_swappiness"),
    _mapped("services.*.memswap_limit", "ContainerSpec.memory_swap_bytes"),
    _refused(
        "services.*.models", "models need Docker's model runner, which Homeport does not start",
        "Run the model server as a service of its own and pass its address by `environment`",
    ),
    _notice(
        "services.*.network_mode", "`service:` and `container:` are refused: the two containers "
        "may be on different nodes", field="ContainerSpec.network_mode", always=False,
    ),
    _mapped("services.*.networks", "ContainerSpec.networks"),
    *_children(
        "services.*.networks.*", "NetworkAttachment",
        "aliases interface_name ipv4_address ipv6_address link_local_ips mac_address driver_opts "
        "priority gw_priority",
    ),
    _mapped("services.*.oom_kill_disable", "ContainerSpec.oom_kill_disable"),
    _mapped("services.*.oom_score_adj", "ContainerSpec.oom_score_adj"),
    _notice(
        "services.*.pid", "`service:` and `container:` are refused: the two containers may be on "
        "different nodes", field="ContainerSpec.pid_mode", always=False,
    ),
    _mapped("services.*.pids_limit", "ContainerSpec.limits.pids"),
    _mapped("services.*.platform", "ContainerSpec.platform"),
    _notice(
        "services.*.ports", "published on the node that runs the task; `mode: ingress` on every "
        "node arrives with the cluster's network", field="ContainerSpec.ports", always=False,
    ),
    *_children(
        "services.*.ports[]", "Port", "target published host_ip protocol mode name app_protocol"
    ),
    _mapped("services.*.post_start", "ContainerSpec.post_start"),
    *_children(
        "services.*.post_start[]", "Hook", "command user privileged working_dir environment=env"
    ),
    _mapped("services.*.pre_stop", "ContainerSpec.pre_stop"),
    *_children(
        "services.*.pre_stop[]", "Hook", "command user privileged working_dir environment=env"
    ),
    _mapped("services.*.privileged", "ContainerSpec.privileged"),
    _mapped("services.*.profiles", "StackSpec.services", LOADING + "profiles"),
    _refused(
        "services.*.provider", "providers are programs of the machine that runs Compose",
        "Start what it provides outside the stack, and pass its address by `environment`",
    ),
    _mapped("services.*.pull_policy", "ContainerSpec.pull_policy"),
    _mapped("services.*.pull_refresh_after", "ContainerSpec.pull_refresh_ms"),
    _mapped("services.*.read_only", "ContainerSpec.read_only"),
    _mapped("services.*.restart", "ServiceSpec.restart"),
    _mapped("services.*.runtime", "ContainerSpec.oci_runtime"),
    _mapped("services.*.scale", "ServiceSpec.replicas", REPLICAS),
    _notice(
        "services.*.secrets",
        "secrets are stored unencrypted for now, and mounted from memory (tmpfs) on the node",
        field="ContainerSpec.files",
    ),
    *_children("services.*.secrets[]", "FileMount", "source target uid gid mode"),
    _mapped("services.*.security_opt", "ContainerSpec.security_opt"),
    _mapped("services.*.shm_size", "ContainerSpec.shm_size_bytes"),
    _mapped("services.*.stdin_open", "ContainerSpec.stdin_open"),
    _mapped("services.*.stop_grace_period", "ContainerSpec.stop_grace_ms"),
    _mapped("services.*.stop_signal", "ContainerSpec.stop_signal"),
    _notice(
        "services.*.storage_opt", "depends on the node's storage driver; an engine whose driver "
        "lacks the option refuses the container", field="ContainerSpec.storage_opt",
        way_out="Leave it out where nodes refuse it",
    ),
    _mapped("services.*.sysctls", "ContainerSpec.sysctls"),
    _mapped("services.*.tmpfs", "ContainerSpec.mounts"),
    _mapped("services.*.tty", "ContainerSpec.tty"),
    _mapped("services.*.ulimits", "ContainerSpec.ulimits"),
    *_children("services.*.ulimits.*", "Ulimit", "soft hard"),
    _refused(
        "services.*.use_api_socket", "would hand the container this user's registry passwords",
        "Mount the engine's socket: `- /var/run/docker.sock:/var/run/docker.sock`",
    ),
    _mapped("services.*.user", "ContainerSpec.user"),
    _mapped("services.*.userns_mode", "ContainerSpec.userns_mode"),
    _mapped("services.*.uts", "ContainerSpec.uts_mode"),
    _notice(
        "services.*.volumes", "a relative source belongs to the machine that runs `apply`, an "
        "absolute one to every node", field="ContainerSpec.mounts", always=False,
    ),
    *_children("services.*.volumes[]", "Mount", "type=kind source target read_only consistency"),
    _mapped("services.*.volumes[].bind", "Mount"),
    *_children(
        "services.*.volumes[].bind", "Mount",
        "propagation=bind_propagation create_host_path=bind_create_host_path "
        "recursive=bind_recursive selinux=bind_selinux",
    ),
    _mapped("services.*.volumes[].volume", "Mount"),
    *_children(
        "services.*.volumes[].volume", "Mount",
        "labels=volume_labels nocopy=volume_nocopy subpath=volume_subpath",
    ),
    _mapped("services.*.volumes[].tmpfs", "Mount"),
    *_children(
        "services.*.volumes[].tmpfs", "Mount", "size=tmpfs_size_bytes mode=tmpfs_mode"
    ),
    _mapped("services.*.volumes[].image", "Mount"),
    _mapped("services.*.volumes[].image.subpath", "Mount.volume_subpath"),
    _refused(
        "services.*.volumes_from", "two containers cannot share mounts when they may be on "
        "different nodes", "Name the volumes, and mount them in both services",
    ),
    _mapped("services.*.working_dir", "ContainerSpec.working_dir"),
)  # fmt: skip

BUILD = (
    *_children(
        "services.*.build", "BuildSpec",
        "context dockerfile dockerfile_inline args labels target tags network extra_hosts "
        "shm_size=shm_size_bytes no_cache pull cache_from platforms isolation", CLUSTER + "build",
    ),
    *(
        _notice(
            f"services.*.build.{key}", "needs BuildKit, which `apply --build` does not use yet: "
            "it refuses this build",
            way_out="Build the image with `docker buildx build --load`, and apply without --build",
        )
        for key in (
            "additional_contexts", "secrets", "secrets[].source", "secrets[].target",
            "secrets[].uid", "secrets[].gid", "secrets[].mode", "ssh", "ulimits",
            "ulimits.*.soft", "ulimits.*.hard", "privileged", "entitlements",
        )
    ),
    _notice("services.*.build.cache_to", "the build cache stays on the machine that builds"),
    _notice("services.*.build.provenance", "no attestation is made: images go to nodes directly"),
    _notice("services.*.build.sbom", "no attestation is made: images go to nodes directly"),
)  # fmt: skip

_UPDATE = "parallelism delay=delay_ms monitor=monitor_ms max_failure_ratio"

DEPLOY = (
    _mapped("services.*.deploy", "ServiceSpec", REPLICAS),
    _mapped("services.*.deploy.mode", "ServiceSpec.mode"),
    _mapped("services.*.deploy.replicas", "ServiceSpec.replicas", REPLICAS),
    _notice(
        "services.*.deploy.endpoint_mode", "`vip` is not there yet: a service's name resolves to "
        "the addresses of its tasks, as with `dnsrr`", field="ServiceSpec.endpoint_mode",
        always=False,
    ),
    _mapped("services.*.deploy.labels", "ServiceSpec.labels"),
    _mapped("services.*.deploy.update_config", "ServiceSpec.update", ROLLOUT),
    *_children("services.*.deploy.update_config", "UpdateConfig", _UPDATE, ROLLOUT),
    _notice(
        "services.*.deploy.update_config.order", "`start-first` is recorded, and rolled out "
        "stop-first for now", field="UpdateConfig.order", test=ROLLOUT, always=False,
    ),
    _notice(
        "services.*.deploy.update_config.failure_action", "`rollback` is recorded, and pauses for "
        "now", field="UpdateConfig.failure_action", test=FAILED_ROLLOUT, always=False,
    ),
    _notice(
        "services.*.deploy.rollback_config", "is recorded; a rollout that fails pauses for now",
        way_out="Apply the earlier file to go back",
    ),
    *(
        _notice(f"services.*.deploy.rollback_config.{key}", "is recorded")
        for key in (
            "parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"
        )
    ),
    _mapped("services.*.deploy.restart_policy", "ServiceSpec.restart"),
    *_children(
        "services.*.deploy.restart_policy", "RestartPolicy",
        "condition delay=delay_ms max_attempts window=window_ms",
    ),
    _mapped("services.*.deploy.placement", "ServiceSpec.placement"),
    _mapped("services.*.deploy.placement.constraints", "PlacementSpec.constraints"),
    _mapped("services.*.deploy.placement.preferences", "PlacementSpec.spread"),
    _mapped("services.*.deploy.placement.preferences[].spread", "PlacementSpec.spread"),
    _mapped(
        "services.*.deploy.placement.max_replicas_per_node", "PlacementSpec.max_replicas_per_node"
    ),
    _mapped("services.*.deploy.resources", "ServiceSpec.reservations"),
    _mapped("services.*.deploy.resources.limits", "ContainerSpec.limits", LIMITS + "mem_limit"),
    _mapped(
        "services.*.deploy.resources.limits.cpus", "ContainerSpec.limits.cpu_millis",
        LIMITS + "cpus",
    ),
    _mapped(
        "services.*.deploy.resources.limits.memory", "ContainerSpec.limits.memory_bytes",
        LIMITS + "mem_limit",
    ),
    _mapped(
        "services.*.deploy.resources.limits.pids", "ContainerSpec.limits.pids",
        LIMITS + "pids_limit",
    ),
    _mapped("services.*.deploy.resources.reservations", "ServiceSpec.reservations"),
    _mapped(
        "services.*.deploy.resources.reservations.cpus", "ServiceSpec.reservations.cpu_millis"
    ),
    _mapped(
        "services.*.deploy.resources.reservations.memory", "ServiceSpec.reservations.memory_bytes"
    ),
    _mapped(
        "services.*.deploy.resources.reservations.generic_resources", "Resources.generic",
        COUNTED,
    ),
    *(
        _mapped(
            "services.*.deploy.resources.reservations.generic_resources[]."
            f"discrete_resource_spec{key}", "Resources.generic", COUNTED,
        )
        for key in ("", ".kind", ".value")
    ),
    _mapped(
        "services.*.deploy.resources.reservations.devices", "ContainerSpec.device_requests",
        LIMITS + "gpus",
    ),
    *_children(
        "services.*.deploy.resources.reservations.devices[]", "DeviceRequest",
        "capabilities count device_ids driver options", LIMITS + "gpus",
    ),
)  # fmt: skip

OURS = (
    _mapped("services.*.x-homeport", "ServiceSpec", CLUSTER + "node"),
    _notice(
        "services.*.x-homeport.exclusive", "at most one copy ever: where it could also run on "
        "another node, it stops 14 s after its node's last word from a scheduler",
        field="ServiceSpec.exclusive",
        test=CLUSTER + "exclusive",
    ),
    _mapped("services.*.x-homeport.runtime", "ServiceSpec.driver", PROCESS + "runtime"),
    _mapped("services.*.x-homeport.venv", "ContainerSpec.venv_requirements", PROCESS + "venv"),
    _mapped("services.*.x-homeport.node", "ServiceSpec.pin_node", CLUSTER + "node"),
    _mapped("services.*.x-homeport.priority", "ServiceSpec.priority", CLUSTER + "priority"),
    _mapped(
        "services.*.x-homeport.max_concurrent", "ServiceSpec.max_concurrent",
        CLUSTER + "max_concurrent",
    ),
    _mapped("services.*.x-homeport.device", "ServiceSpec.devices", GIVEN),
    *_children(
        "services.*.x-homeport.device[]", "DeviceNeed",
        "path=name id=name usb=name kind vendor model=models count share=share_millis "
        "shared=share_millis target", GIVEN,
    ),
    _mapped("services.*.x-homeport.strategy", "PlacementSpec.strategy", WISHES),
    _mapped("services.*.x-homeport.prefer", "PlacementSpec.preferences", WISHES),
    _mapped("services.*.x-homeport.prefer[].where", "Preference.constraint", WISHES),
    _mapped("services.*.x-homeport.prefer[].weight", "Preference.weight", WISHES),
    _mapped("services.*.x-homeport.spread", "PlacementSpec.spread_rules", SPREAD),
    *_children(
        "services.*.x-homeport.spread[]", "SpreadRule", "over=key max_skew weight",
        SPREAD,
    ),
    *(
        row
        for side in ("near", "apart")
        for row in (
            _mapped(
                f"services.*.x-homeport.{side}", "PlacementSpec.neighbours", NEIGHBOURS
            ),
            *_children(
                f"services.*.x-homeport.{side}[]", "Neighbour", "service label over=key weight",
                NEIGHBOURS,
            ),
        )
    ),
    _mapped(
        "services.*.x-homeport.tolerations", "PlacementSpec.tolerations", TAINTED
    ),
    _mapped(
        "services.*.x-homeport.preempts", "ServiceSpec.preempts",
        PREEMPTION + "room_is_made_and_plan_events_and_explain_say_so",
    ),
    _mapped(
        "services.*.x-homeport.preemptible", "ServiceSpec.preemptible",
        PREEMPTION + "what_is_not_preemptible_stays",
    ),
    _mapped(
        "services.*.x-homeport.min_replicas", "ServiceSpec.min_replicas",
        PREEMPTION + "a_minimum_is_left_running",
    ),
)  # fmt: skip

NETWORK = (
    _mapped("networks.*.name", "NetworkSpec.engine_name"),
    *_children(
        "networks.*", "NetworkSpec",
        "driver driver_opts internal attachable enable_ipv4 enable_ipv6 labels "
        "external=external_name",
    ),
    _mapped("networks.*.external.name", "NetworkSpec.external_name"),
    _mapped("networks.*.ipam", "NetworkSpec.subnets"),
    _mapped("networks.*.ipam.driver", "NetworkSpec.ipam_driver"),
    _mapped("networks.*.ipam.options", "NetworkSpec.ipam_options"),
    _mapped("networks.*.ipam.config", "NetworkSpec.subnets"),
    *_children(
        "networks.*.ipam.config[]", "SubnetSpec", "subnet gateway ip_range aux_addresses"
    ),
)  # fmt: skip

VOLUME = (
    _mapped("volumes.*.name", "VolumeSpec.engine_name"),
    *_children("volumes.*", "VolumeSpec", "driver driver_opts labels external=external_name"),
    _mapped("volumes.*.external.name", "VolumeSpec.external_name"),
)

_EXTERNAL_FILE = (
    "there is no store of configs and secrets outside of stacks yet",
    "Give the content with `file`, `content` or `environment`",
)

STORED = (
    _mapped("configs.*.file", "FileSpec.data"),
    _mapped("configs.*.content", "FileSpec.data"),
    _mapped("configs.*.environment", "FileSpec.data"),
    _mapped("configs.*.labels", "FileSpec.labels"),
    _notice(
        "configs.*.name", "configs belong to their stack; this name is not used",
        way_out="Remove it",
    ),
    _refused("configs.*.external", *_EXTERNAL_FILE),
    _refused(
        "configs.*.template_driver", "templates are not filled in",
        "Fill the file in before `apply`, or use `content` with ${VARIABLES}",
    ),
    _mapped("secrets.*.file", "FileSpec.data"),
    _mapped("secrets.*.environment", "FileSpec.data"),
    _mapped("secrets.*.labels", "FileSpec.labels"),
    _notice(
        "secrets.*.name", "secrets belong to their stack; this name is not used",
        way_out="Remove it",
    ),
    _refused("secrets.*.external", *_EXTERNAL_FILE),
    _refused(
        "secrets.*.driver", "secret drivers are plugins of Swarm",
        "Give the content with `file` or `environment`",
    ),
    _refused(
        "secrets.*.driver_opts", "secret drivers are plugins of Swarm",
        "Give the content with `file` or `environment`",
    ),
    _refused(
        "secrets.*.template_driver", "templates are not filled in",
        "Fill the file in before `apply`",
    ),
)  # fmt: skip

ROWS: tuple[Row, ...] = (
    *TOP, *SERVICE, *BUILD, *DEPLOY, *OURS, *NETWORK, *VOLUME, *STORED,
)  # fmt: skip
"""Every key, in the order of the documentation."""

OPEN = frozenset(
    {
        "services.*.depends_on", "services.*.networks", "services.*.ulimits",
        "services.*.build.ulimits", "services", "networks", "volumes", "configs", "secrets",
    }
)  # fmt: skip
"""Maps whose keys are names that the user chooses."""
