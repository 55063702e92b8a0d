"""Which scheduler is tried next, and after what pause."""

from agent.dialing import Dialing

ALL = ("a", "b", "c")


def failing(dialing: Dialing, *, lasted: float = 0.0, pause: float = 0.0) -> tuple[float, float]:
    return dialing.ended(lasted, pause_seconds=pause, leader="")


def test_schedulers_take_turns() -> None:
    dialing = Dialing()
    assert [dialing.next(ALL) for _ in range(4)] == ["a", "b", "c", "a"]


def test_the_first_retry_comes_at_once_and_the_pauses_double_up_to_a_limit() -> None:
    dialing = Dialing()
    found = [failing(dialing)[1] for _ in range(9)]
    assert found == [0.0, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]
    for _ in range(2000):
        assert failing(dialing)[1] == 2.0


def test_after_a_session_that_lasted_the_next_try_comes_at_once() -> None:
    dialing = Dialing()
    for _ in range(5):
        failing(dialing)
    assert failing(dialing, lasted=10.0)[1] == 0.0
    assert failing(dialing)[1] == 0.2
    for _ in range(5):
        failing(dialing)
    assert failing(dialing, lasted=1.5)[1] == 0.5


def test_the_scheduler_that_answered_is_tried_first() -> None:
    dialing = Dialing()
    dialing.next(ALL)
    assert dialing.next(ALL) == "b"
    dialing.answered()
    assert [dialing.next(ALL), dialing.next(ALL)] == ["b", "c"]


def test_the_leader_that_was_named_is_tried_at_once_and_only_once() -> None:
    dialing = Dialing()
    dialing.next(ALL)
    assert dialing.ended(0.0, pause_seconds=5.0, leader="z") == (0.0, 0.0)
    assert [dialing.next(ALL), dialing.next(ALL)] == ["z", "b"]
    assert failing(dialing, pause=5.0) == (5.0, 0.2)


def test_the_leader_that_was_named_is_tried_at_once_after_many_failures_too() -> None:
    dialing = Dialing()
    for _ in range(8):
        dialing.next(ALL)
        failing(dialing)
    dialing.next(ALL)
    assert dialing.ended(0.0, pause_seconds=0.0, leader="z") == (0.0, 0.0)


def test_a_named_leader_that_names_another_is_believed_after_a_pause() -> None:
    dialing = Dialing()
    for named in ("y", "z"):
        dialing.next(ALL)
        pauses = dialing.ended(0.0, pause_seconds=0.0, leader=named)
    assert pauses == (0.0, 0.2)
    assert dialing.next(ALL) == "z"


def test_a_named_leader_that_does_not_answer_is_not_tried_twice_in_a_row() -> None:
    dialing = Dialing()
    assert dialing.next(("a", "b")) == "a"
    dialing.ended(0.0, pause_seconds=0.0, leader="b")
    assert dialing.next(("a", "b")) == "b"
    dialing.ended(3.0, pause_seconds=0.0, leader="")
    assert [dialing.next(("a", "b")), dialing.next(("a", "b"))] == ["a", "b"]
