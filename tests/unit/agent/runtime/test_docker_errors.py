"""What an engine's words mean, of 20.10 and of the newest."""

import pytest

from agent.runtime.base import Gone, Rejected, RuntimeFailure, Unavailable
from agent.runtime.docker_errors import failure, plain, taken_port


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (404, "No such container: shop-web-1.1.1", Gone),
        (404, "No such exec instance: 1234", Gone),
        (404, "No such image: nosuch:1", Rejected),
        (404, "network shop_front not found", Rejected),
        (
            400,
            'invalid mount config for type "bind": bind source path does not exist: /x',
            Rejected,
        ),
        (409, "Container 79f20d8f is not running", Rejected),
        (409, "removal of container 79f20d8f is already in progress", Unavailable),
        (500, 'OCI runtime create failed: exec: "/nosuch": no such file or directory', Rejected),
        (500, 'connection error: desc = "transport: dial unix containerd.sock"', Unavailable),
        (500, "mkdir /data/overlay2/x: no space left on device", Unavailable),
        (500, "context deadline exceeded", Unavailable),
        (500, "connection closed: unavailable", Unavailable),
        (500, "error reading from server: EOF: unavailable: unknown", Unavailable),
        (500, "rpc error: code = Unavailable desc = error reading from server", Unavailable),
        (500, 'exec: "x: unavailable": executable file not found in $PATH', Rejected),
        (503, "whatever", Unavailable),
    ],
)
def test_an_engine_s_words_are_understood(
    status: int, words: str, kind: type[RuntimeFailure]
) -> None:
    found = failure(status, words, "start it")
    assert type(found) is kind
    assert str(found).startswith("cannot start it")


@pytest.mark.parametrize(
    ("words", "port"),
    [
        (
            "driver failed programming external connectivity on endpoint x (1f): Bind for"
            " 0.0.0.0:8080 failed: port is already allocated",
            (8080, ""),
        ),
        (
            "driver failed programming external connectivity on endpoint x (1f): Error starting"
            " userland proxy: listen tcp4 127.0.0.1:80: bind: address already in use",
            (80, "tcp"),
        ),
        (
            "driver failed programming external connectivity: listen udp 0.0.0.0:53: bind:"
            " address already in use",
            (53, "udp"),
        ),
        (
            "failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use",
            (8080, "tcp"),
        ),
        ('exec: "/nosuch": no such file or directory', None),
        ("address already in use", None),
    ],
)
def test_a_taken_port_is_found_in_the_words(words: str, port: tuple[int, str] | None) -> None:
    assert taken_port(words) == port


def test_the_layers_around_a_message_are_taken_off() -> None:
    words = (
        "failed to create shim: OCI runtime create failed: container_linux.go:380: starting"
        ' container process caused: exec: "/x"'
    )
    assert plain(words) == 'starting container process caused: exec: "/x"'
