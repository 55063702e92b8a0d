"""Where `up` listens: where it is told, or on a free port where that one is taken."""

import socket

import click
import pytest

from homeport.cli import up


def test_a_free_port_is_taken_as_it_is_and_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert up.free_address(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_port_0_is_any_free_one_and_in_silence(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named, _, port = up.free_address(f"{host}:0").rpartition(":")
    assert named == host
    assert int(port) > 0
    assert capsys.readouterr().err == ""


def test_a_port_that_is_taken_is_replaced_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        chosen = up.free_address(address)
    assert chosen != address
    port = chosen.rpartition(":")[2]
    assert capsys.readouterr().err == f"{address} is in use; taking port {port} instead.\n"


@pytest.mark.parametrize("address", ["", "7070", ":7070", "pi4", "pi4:", "pi4:x", "pi4:70700"])
def test_what_is_no_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(click.UsageError, match=r"is not HOST:PORT, such as 127\.0"):
        up.free_address(address)


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(up.StartFailed, match=r"cannot listen on 192\.0\.2\.77:7070: "):
        up.free_address("192.0.2.77:7070")  # a network that is only for documentation
