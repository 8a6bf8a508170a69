"""How the service is started on a cluster, kept until somebody stops it, and taken down."""

from __future__ import annotations

import logging
import signal
import socket
import time
from contextlib import closing

from ray import serve
from rich.console import Console

from cast_ray.cluster import connect
from cast_ray.errors import UserError

__all__ = ["host"]

NAME = "cast-ray"
"""Of the application on the cluster."""
LOOK_EVERY_S = 1.0


def host(app: serve.Application, *, address: str, port: int, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM; then everything that was started here is gone.

    Args:
        app: see `cast_ray.inference.serving.application`.
        address: to listen on, of the machine that runs the cluster's head.
        port: likewise.
        console: where it says that it is ready.

    Raises:
        UserError: the port is taken, or the model cannot be loaded.
    """
    _check_port(address, port)
    local = connect()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # joining the cluster has set another one
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        with console.status("starting the service"):
            serve.start(http_options={"host": address, "port": port})
            logging.getLogger("ray.serve").setLevel(logging.WARNING)  # starting has set it
            handle = serve.run(app, name=NAME, route_prefix="/")
            problem = handle.problem.remote().result()
        if problem:
            raise UserError(problem)
        console.print(f"ready: http://{address}:{port}  (Ctrl-C ends it)", highlight=False, soft_wrap=True)
        while True:
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        if local:
            serve.shutdown()
        else:  # others may have applications there
            serve.delete(NAME)


def _check_port(address: str, port: int) -> None:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise UserError(f"cannot listen on {address} port {port}: {error.strerror}; give another --port") from error
