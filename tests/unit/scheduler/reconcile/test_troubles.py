"""The pause before the next look doubles with each trouble, up to a minute."""

from scheduler.reconcile.troubles import CONFLICT_SECONDS, TROUBLE_MAX_SECONDS, Troubles


def test_it_doubles_up_to_a_minute_for_each_service_apart():
    troubles = Troubles()
    assert [troubles.trouble("web") for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [troubles.trouble("web") for _ in range(2000)][-1] == TROUBLE_MAX_SECONDS
    assert troubles.trouble("db") == 1


def test_a_decision_ends_it():
    troubles = Troubles()
    troubles.trouble("web")
    troubles.are_over("web")
    assert troubles.trouble("web") == 1
    troubles.are_over("never had any")


def test_a_first_conflict_is_no_trouble_and_more_of_them_are():
    troubles = Troubles()
    assert troubles.conflict("web") == CONFLICT_SECONDS
    assert [troubles.conflict("web"), troubles.conflict("web")] == [1, 2]
    troubles.are_over("web")
    assert troubles.conflict("web") == CONFLICT_SECONDS
