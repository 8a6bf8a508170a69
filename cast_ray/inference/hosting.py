"""How the service is started on a cluster, beside what others serve there, kept until it is stopped, and taken down."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from ray import serve
from ray.serve.context import _get_global_client  # nothing public tells where a running Ray Serve listens
from ray.serve.schema import ServeInstanceDetails
from rich.console import Console

from cast_ray.cluster import connect
from cast_ray.errors import UserError

__all__ = ["RunningServe", "check_beside", "check_port", "host", "running_serve"]

NAME = "cast-ray"
"""Of the application on the cluster; with the path where that is not /."""
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class RunningServe:
    """A Ray Serve that is on the cluster already."""

    host: str | None
    port: int
    paths: Mapping[str, str | None]
    """By application, the path below which it answers."""


def host(app: serve.Application, *, address: str, port: int, path: str, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM; then everything that was started here is gone, and nothing else.

    Args:
        app: see `cast_ray.inference.serving.application`.
        address: to listen on, of the machine that runs the cluster's head.
        port: likewise.
        path: below which it answers, such as /.
        console: where it says that it is ready.

    Raises:
        UserError: the port or the path is taken, or the model cannot be loaded.
    """
    name = NAME + path.rstrip("/").replace("/", "-")
    local = connect()
    before = None if local else running_serve()
    if before is None:
        check_port(address, port)
    else:
        check_beside(before, address=address, port=port, path=path, name=name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # joining the cluster has set another one
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        with console.status("starting the service"):
            if before is None:
                serve.start(http_options={"host": address, "port": port})
            logging.getLogger("ray.serve").setLevel(logging.WARNING)  # starting has set it
            handle = serve.run(app, name=name, route_prefix=path)
            problem = handle.problem.remote().result()
        if problem:
            raise UserError(problem)
        url = f"http://{address}:{port}{path.rstrip('/')}/"
        console.print(f"ready: {url}  (Ctrl-C ends it)", highlight=False, soft_wrap=True)
        while True:
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        if local:  # nobody else is there, and the cluster may have got the same signal: ask it nothing
            serve.shutdown()
        else:
            _take_down(name, started_serve=before is None)


def running_serve() -> RunningServe | None:
    """What Ray Serve does on the cluster, None if it does not run."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    details = ServeInstanceDetails(**client.get_serve_details())
    options = client.http_config
    return RunningServe(
        host=options.host,
        port=options.port,
        paths={name: application.route_prefix for name, application in details.applications.items()},
    )


def check_beside(running: RunningServe, *, address: str, port: int, path: str, name: str) -> None:
    """Raise `UserError` if the service cannot be one more of those that a running Ray Serve has."""
    if (running.host, running.port) != (address, port):
        raise UserError(
            f"Ray Serve runs on this cluster already and listens on {running.host} port {running.port}, not on "
            f"{address} port {port}; it has one address for all: give --host {running.host} --port {running.port}, or "
            "end it with `serve shutdown`, which ends its applications too"
        )
    for other, taken in running.paths.items():
        if other == name or taken == path:
            raise UserError(
                f"application '{other}' of this cluster answers at {taken} already; give another --path, such as "
                f"--path /clips, or end it with `serve shutdown`, which ends all applications"
            )


def check_port(address: str, port: int) -> None:
    """Raise `UserError` if another program listens there."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise UserError(f"cannot listen on {address} port {port}: {error.strerror}; give another --port") from error


def _take_down(name: str, *, started_serve: bool) -> None:
    """Remove the application; Ray Serve too if it was started for it and nobody has joined it since."""
    running = running_serve()
    if running is None:
        return
    if started_serve and not running.paths.keys() - {name}:
        serve.shutdown()
    elif name in running.paths:
        serve.delete(name)
