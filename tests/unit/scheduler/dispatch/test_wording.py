"""Orders in the wire's words: the spec of a service is the same for each node that is told."""

from homeport import codec
from homeport.model import OrderId, ServiceGeneration, ServiceId
from homeport.spec import ContainerSpec, ServiceSpec
from scheduler.dispatch import wording
from scheduler.dispatch.assignments import Orders
from scheduler.dispatch.wording import Wording

WEB = ServiceId("shop-web-1")


def edition(generation=1, image="web"):
    spec = ServiceSpec(name="web", container=ContainerSpec(image=image))
    return ServiceGeneration(service=WEB, generation=generation, spec=spec)


def told(words, *specs):
    orders = Orders(order=OrderId(cluster="c"), applies_to=None, specs=specs)
    message = words.message(orders)
    return [codec.from_message(ServiceGeneration, each) for each in message.assignments.specs]


def test_a_spec_is_told_as_it_is_also_when_it_is_told_again():
    words = Wording()
    assert told(words, edition()) == told(words, edition()) == [edition()]


def test_a_newer_spec_of_the_same_service_is_told_and_not_the_one_of_before():
    words = Wording()
    told(words, edition())
    assert told(words, edition(2, "web:2")) == [edition(2, "web:2")]
    # A service that was removed and restored: the same name and number, another content.
    assert told(words, edition(2, "web:3")) == [edition(2, "web:3")]


def test_what_is_kept_has_a_bound(monkeypatch):
    monkeypatch.setattr(wording, "KEPT_MAX", 2)
    words = Wording()
    for number in range(5):
        service = ServiceId(f"s{number}")
        spec = ServiceGeneration(service=service, generation=1, spec=ServiceSpec(name="s"))
        assert told(words, spec) == [spec]
        assert len(words._specs) <= 2
