"""What happens in every worker before torch's process group is made, and before training begins.

Ray runs a backend's hooks on the workers' main threads; the training loop runs in another one.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any

import psutil
import ray.util
from ray.train.torch import TorchConfig

from cast_ray.training.stopping import listen_for_sigterm

__all__ = ["WorkersTorchConfig", "talk_over"]

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


def talk_over(address: str) -> None:
    """Make gloo, through which workers on CPUs talk, use the interface that has this address of the machine.

    By itself it uses the one that the machine's own name stands for. That is the loopback where the name is in
    /etc/hosts beside 127.0.1.1, as Debian writes it, and no other machine can connect to it. What the user has set
    stays.
    """
    if ipaddress.ip_address(address).is_loopback:
        return  # a cluster of one machine: any interface will do
    for name, each in psutil.net_if_addrs().items():
        if any(known.address == address for known in each):
            os.environ.setdefault(GLOO_INTERFACE, name)


def _talk_over_the_clusters_network() -> None:
    """In a worker: the network in which Ray knows its machine."""
    talk_over(ray.util.get_node_ip_address())


class _WorkersBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_talk_over_the_clusters_network)
        super().on_start(worker_group, backend_config)

    def on_training_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(listen_for_sigterm)


class WorkersTorchConfig(TorchConfig):
    """Ray's settings for torch, with workers that find each other on machines of any name, and heed a SIGTERM."""

    @property
    def backend_cls(self) -> type:
        return _WorkersBackend
