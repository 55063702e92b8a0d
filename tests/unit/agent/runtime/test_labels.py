"""What is written on a container is read again."""

from dataclasses import replace

from agent.runtime.base import (
    FENCE_TOKEN,
    LABEL_FENCE_TOKEN,
    LABEL_GENERATION,
    LABEL_SPEC_HASH,
)
from agent.runtime.labels import (
    LABEL_POST_START,
    container_labels,
    container_name,
    generation_of,
    load_hooks,
    reserved,
    spec_hash,
    task_of,
)
from homeport.model import ServiceId, task_id
from homeport.spec import Hook
from tests.contract.works import work


def test_a_name_follows_from_the_task_alone() -> None:
    assert container_name(task_id(ServiceId("shop-web.api-1f"), 12, 3)) == "shop-web.api-1f.12.3"


def test_hooks_travel_on_the_container() -> None:
    hooks = (
        Hook(command=("sh", "-c", "echo 'ü'"), user="root", privileged=True, env=(("A", "1"),)),
        Hook(command=("true",), working_dir="/x"),
    )
    assert load_hooks(container_labels("c", work(post_start=hooks))[LABEL_POST_START]) == hooks
    assert load_hooks("") == ()


def test_the_generation_survives_and_nonsense_is_none() -> None:
    assert generation_of(container_labels("c", work(generation=9))) == 9
    assert generation_of({LABEL_GENERATION: "nine"}) == 0


def test_only_our_own_labels_are_reserved() -> None:
    assert reserved((("dev.homeport.task", "x"), ("dev.homeportal", "y"))) == ["dev.homeport.task"]


def test_a_task_label_that_is_no_task_is_nobody_s() -> None:
    labels = container_labels("c", work())
    assert task_of({**labels, "dev.homeport.task": "what"}, "c") is None
    assert task_of(None, "c") is None


def test_equal_specs_have_equal_hashes() -> None:
    one, two = work(user="1"), work(user="2")
    assert spec_hash(one.generation.spec.container) == spec_hash(
        work(user="1").generation.spec.container
    )
    assert (
        container_labels("c", one)[LABEL_SPEC_HASH] != container_labels("c", two)[LABEL_SPEC_HASH]
    )


def test_another_fence_token_changes_no_spec() -> None:
    first = work()
    second = replace(first, assignment=replace(first.assignment, fence_token=9))
    before, after = container_labels("c1", first), container_labels("c1", second)
    assert {key for key in after if before[key] != after[key]} == {LABEL_FENCE_TOKEN}
    assert (FENCE_TOKEN, "9") in second.env


def test_a_fence_token_cannot_be_made_up() -> None:
    made_up = work(env=((FENCE_TOKEN, "999"), ("A", "1")))
    assert made_up.env == (("A", "1"), (FENCE_TOKEN, "0"))
