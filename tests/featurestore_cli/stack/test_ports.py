"""Ports: the wanted one when it is free, never one twice."""

import socket

import pytest

from featurestore_cli.stack.kafka import own_hosts
from featurestore_cli.stack.ports import RANGE, Ports, is_free


@pytest.mark.parametrize("host", own_hosts())
def test_a_port_that_is_taken_on_either_address_is_not_free(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        assert Ports().take(port) != port
    assert is_free(port)


def test_the_first_free_one_of_those_wanted_is_taken_once() -> None:
    ports = Ports()
    wanted = Ports().take()
    assert ports.take(0, wanted) == wanted
    other = ports.take(0, wanted)
    assert other != wanted
    assert other in RANGE


def test_a_port_that_was_chosen_is_not_chosen_by_another() -> None:
    mine = Ports()
    port = mine.take()
    assert Ports().take(port) != port
    mine.close()
    assert Ports().take(port) == port
