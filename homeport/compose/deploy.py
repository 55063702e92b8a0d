"""`deploy:`, and what older keys beside it say of the same: `restart`, `scale`."""

from __future__ import annotations

from homeport.compose import quantities
from homeport.compose.view import View
from homeport.spec import (
    EndpointMode,
    FailureAction,
    Mode,
    RestartCondition,
    RestartPolicy,
    UpdateConfig,
    UpdateOrder,
)

REPLICAS_MAX = 10_000
ATTEMPTS_MAX = 1_000_000

MODES = {
    "replicated": Mode.REPLICATED,
    "global": Mode.GLOBAL,
    "replicated-job": Mode.REPLICATED_JOB,
    "global-job": Mode.GLOBAL_JOB,
}
_CONDITIONS = {
    "none": RestartCondition.NONE,
    "on-failure": RestartCondition.ON_FAILURE,
    "any": RestartCondition.ANY,
}
_ORDERS = {"stop-first": UpdateOrder.STOP_FIRST, "start-first": UpdateOrder.START_FIRST}
_ACTIONS = {
    "pause": FailureAction.PAUSE,
    "continue": FailureAction.CONTINUE,
    "rollback": FailureAction.ROLLBACK,
}
ENDPOINTS = {"vip": EndpointMode.VIP, "dnsrr": EndpointMode.DNSRR}


def mode(deploy: View | None) -> Mode:
    """How many tasks, and whether they end."""
    return deploy.choice("mode", MODES, Mode.REPLICATED) if deploy is not None else Mode.REPLICATED


def replicas(service: View, deploy: View | None, kind: Mode) -> int:
    """How many copies; `scale` and `deploy.replicas` must agree."""
    scale = service.at("scale")
    stated = deploy.at("replicas") if deploy is not None else None

    def parse(text: str) -> int:
        return quantities.whole(text, 0, REPLICAS_MAX)

    first = scale.read(parse, 1) if scale is not None else 1
    second = stated.read(parse, 1) if stated is not None else 1
    if scale is not None and stated is not None and first != second:
        scale.refuse("differs from deploy.replicas", "Remove one of the two")
    given = stated if stated is not None else scale
    if given is not None and kind.is_global:
        given.refuse(
            "a global service has one task on every node, and no number of replicas",
            "Remove it, or the mode",
        )  # fmt: skip
    return second if stated is not None else first


def restart(service: View, deploy: View | None, kind: Mode, *, must_end: bool) -> RestartPolicy:
    """When an ended container is started again; `deploy.restart_policy` wins over `restart`.

    Neither given: always, as in Swarm; on failure for jobs and for services that another one
    waits for to complete (`must_end`), since these are meant to end.
    """
    ends = kind.is_job or must_end
    policy = RestartPolicy(condition=RestartCondition.ON_FAILURE if ends else RestartCondition.ANY)
    given = service.at("restart")
    if given is not None:
        policy = _legacy(given) or policy
    section = deploy.at("restart_policy") if deploy is not None else None
    if section is not None:
        given = section
        policy = RestartPolicy(
            condition=section.choice(
                "condition", _CONDITIONS,
                RestartCondition.ON_FAILURE if ends else RestartCondition.ANY,
            ),
            delay_ms=section.duration_ms("delay"),
            max_attempts=section.whole("max_attempts", 0, ATTEMPTS_MAX),
            window_ms=section.duration_ms("window"),
        )  # fmt: skip
    elif given is None and must_end:
        service.notice(
            "is started again only after a failure, because another service waits for it to "
            "complete", 'Write `restart: "no"` if it must run once at most',
        )  # fmt: skip
    if given is not None and ends and policy.condition is RestartCondition.ANY:
        because = "a job" if kind.is_job else "another service waits for it to complete"
        given.refuse(
            f"would start this service again for ever, but it is meant to end: {because}",
            "Use `on-failure`",
        )  # fmt: skip
    return policy


def _legacy(given: View) -> RestartPolicy | None:
    text = given.as_printed()
    if text in ("no", "false"):
        return RestartPolicy(condition=RestartCondition.NONE)
    if text in ("always", "unless-stopped"):
        return RestartPolicy(condition=RestartCondition.ANY)
    name, colon, number = text.partition(":")
    if name == "on-failure":
        try:
            attempts = quantities.whole(number, 0, ATTEMPTS_MAX) if colon else 0
        except ValueError as error:
            given.refuse(str(error))
            return None
        return RestartPolicy(condition=RestartCondition.ON_FAILURE, max_attempts=attempts)
    given.refuse(
        f"{text[:40]!r} is not one of no, always, unless-stopped, on-failure, on-failure:COUNT"
    )
    return None


def update(deploy: View | None, key: str) -> UpdateConfig:
    """`update_config` or `rollback_config`."""
    section = deploy.at(key) if deploy is not None else None
    if section is None:
        return UpdateConfig()
    actions = dict(_ACTIONS)
    if key == "rollback_config":
        del actions["rollback"]
    ratio = section.at("max_failure_ratio")
    order = section.choice("order", _ORDERS, UpdateOrder.STOP_FIRST)
    action = section.choice("failure_action", actions, FailureAction.PAUSE)
    if key == "update_config":
        _tell(section, order, action)
    return UpdateConfig(
        parallelism=section.whole("parallelism", 0, REPLICAS_MAX, 1),
        delay_ms=section.duration_ms("delay"),
        monitor_ms=section.duration_ms("monitor", 5_000),
        max_failure_ratio=(
            ratio.read(lambda text: quantities.fraction(text, 0, 1), 0.0)
            if ratio is not None
            else 0.0
        ),
        order=order,
        failure_action=action,
    )


def _tell(section: View, order: UpdateOrder, action: FailureAction) -> None:
    """What is recorded and does not take effect yet."""
    stated = section.at("order")
    if stated is not None and order is UpdateOrder.START_FIRST:
        stated.notice("`start-first` is recorded, and rolled out stop-first for now")
    stated = section.at("failure_action")
    if stated is not None and action is FailureAction.ROLLBACK:
        stated.notice(
            "`rollback` is recorded, and pauses for now", "Apply the earlier file to go back"
        )


def endpoint_mode(deploy: View | None) -> EndpointMode:
    """What a service's name resolves to."""
    found = deploy.at("endpoint_mode") if deploy is not None else None
    if found is None or deploy is None:
        return EndpointMode.VIP
    mode = deploy.choice("endpoint_mode", ENDPOINTS, EndpointMode.VIP)
    if mode is EndpointMode.VIP:
        found.notice(
            "`vip` is not there yet: a service's name resolves to the addresses of its tasks",
            "Write `dnsrr` to say so",
        )  # fmt: skip
    return mode
