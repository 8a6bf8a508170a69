"""Through which network workers on CPUs talk: the one in which Ray knows their machine."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import psutil
import pytest

from cast_ray.training.backend import GLOO_INTERFACE, talk_over

INTERFACES = {
    "lo": [SimpleNamespace(family=socket.AF_INET, address="127.0.0.1")],
    "docker0": [SimpleNamespace(family=socket.AF_INET, address="172.17.0.1")],
    "ens5": [
        SimpleNamespace(family=psutil.AF_LINK, address="00:00:5e:00:53:01"),
        SimpleNamespace(family=socket.AF_INET, address="10.77.0.2"),
        SimpleNamespace(family=socket.AF_INET6, address="2001:db8::2"),
    ],
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with several interfaces, and nothing set by the user."""
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: INTERFACES)
    monkeypatch.setenv(GLOO_INTERFACE, "")  # so that it is put back afterwards
    monkeypatch.delenv(GLOO_INTERFACE)


@pytest.mark.parametrize("address", ["10.77.0.2", "2001:db8::2"])
def test_workers_talk_through_the_interface_that_has_the_nodes_address(address):
    talk_over(address)
    assert os.environ[GLOO_INTERFACE] == "ens5"


def test_an_interface_that_the_user_has_chosen_stays(monkeypatch):
    monkeypatch.setenv(GLOO_INTERFACE, "docker0")
    talk_over("10.77.0.2")
    assert os.environ[GLOO_INTERFACE] == "docker0"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.3", "10.99.0.9"])
def test_the_loopback_and_addresses_of_no_interface_choose_nothing(address):
    talk_over(address)
    assert GLOO_INTERFACE not in os.environ
