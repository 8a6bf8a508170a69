"""Whether the service may start: beside what Ray Serve already does on a cluster, and where a port is free."""

from __future__ import annotations

import socket

import pytest
from ports import free_ports
from rich.console import Console

from cast_ray.errors import UserError
from cast_ray.inference import hosting
from cast_ray.inference.hosting import RunningServe, check_beside, check_port

RUNNING = RunningServe(host="127.0.0.1", port=8000, paths={"shop": "/", "batch": None, "cast-ray-a": "/a"})


class Serve:
    """Stands for Ray Serve, and notes what is asked of it."""

    def __init__(self, running: RunningServe | None) -> None:
        self.running = running
        self.asked: list[tuple[object, ...]] = []

    def start(self, http_options) -> None:
        self.asked.append(("start", http_options["port"]))
        self.running = RunningServe(host=http_options["host"], port=http_options["port"], paths={})

    def run(self, app, name, route_prefix):
        self.asked.append(("run", name, route_prefix))
        paths = {**self.running.paths, name: route_prefix}
        self.running = RunningServe(host=self.running.host, port=self.running.port, paths=paths)
        raise KeyboardInterrupt  # as if somebody ended it

    def delete(self, name) -> None:
        self.asked.append(("delete", name))

    def shutdown(self) -> None:
        self.asked.append(("shutdown",))


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch):
    """Hosts on a cluster on which Ray Serve is as told; what it was asked for."""

    def hosted(running: RunningServe | None, *, port: int, path: str = "/") -> list[tuple[object, ...]]:
        stand_in = Serve(running)
        monkeypatch.setattr(hosting, "serve", stand_in)
        monkeypatch.setattr(hosting, "running_serve", lambda: stand_in.running)
        monkeypatch.setattr(hosting, "connect", lambda: False)
        monkeypatch.setattr(hosting.signal, "signal", lambda *_: None)
        try:
            hosting.host(None, address="127.0.0.1", port=port, path=path, console=Console(quiet=True))
        finally:
            hosted.asked = stand_in.asked
        return stand_in.asked

    return hosted


@pytest.fixture
def free_port() -> int:
    (port,) = free_ports(1)
    return port


def test_what_was_started_is_taken_down(hosted, free_port):
    assert hosted(None, port=free_port) == [("start", free_port), ("run", "cast-ray", "/"), ("shutdown",)]


def test_applications_of_others_stay(hosted):
    """Ray Serve listens on its port already: that is no reason against joining it."""
    expected = [("run", "cast-ray-clips-new", "/clips/new"), ("delete", "cast-ray-clips-new")]
    assert hosted(RUNNING, port=8000, path="/clips/new") == expected


@pytest.mark.parametrize(
    ("port", "path", "message"),
    [
        (8000, "/", r"application 'shop' of this cluster answers at / already; give another --path"),
        (8000, "/a", r"application 'cast-ray-a' of this cluster answers at /a already"),
        (9000, "/b", r"listens on 127\.0\.0\.1 port 8000, not on 127\.0\.0\.1 port 9000; .*--port 8000"),
    ],
)
def test_a_taken_path_or_another_address_is_refused_and_nothing_is_touched(hosted, port, path, message):
    with pytest.raises(UserError, match=message):
        hosted(RUNNING, port=port, path=path)
    assert hosted.asked == []


def test_a_free_path_beside_others_is_fine():
    check_beside(RUNNING, address="127.0.0.1", port=8000, path="/b", name="cast-ray-b")


def test_a_port_that_another_program_has_is_named(hosted, free_port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(UserError, match=rf"cannot listen on 127\.0\.0\.1 port {free_port}: Address already in use"):
            check_port("127.0.0.1", free_port)
        with pytest.raises(UserError, match="give another --port"):
            hosted(None, port=free_port)
        assert hosted.asked == []
    check_port("127.0.0.1", free_port)
