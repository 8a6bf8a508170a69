"""What holds in every test process; the environment is set before torch and Ray are imported."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cast_ray.data.manifest import Manifest
    from cast_ray.data.media import MediaFormat
    from cast_ray.data.shards import ShardedDataset

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

# On a busy machine an example can take a hundred times as long as on an idle one.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The machine's cores belong to several processes, and one thread adds in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sharded() -> Callable[..., ShardedDataset]:
    """Prepares a dataset in this process, without Ray."""
    from cast_ray.data.ingest import stored_clips
    from cast_ray.data.media import MediaFormat
    from cast_ray.data.shards import shard_plan, write_index, write_shard

    def sharded(manifest: Manifest, root: Path, media_format: MediaFormat | None = None) -> ShardedDataset:
        media_format = media_format or MediaFormat()
        rows = [
            write_shard(str(root), plan.path, stored_clips(plan.clips, media_format)) for plan in shard_plan(manifest)
        ]
        return write_index(str(root), manifest, media_format, rows)

    return sharded


class S3Server:
    """A server that speaks S3, on a port of its own; its data outlives a stop."""

    def __init__(self) -> None:
        self._port = 0
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A running S3 server, which this process's S3 URIs mean."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3Server()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """The URI of a new bucket; `s3_server.environment` takes other processes there."""
    import pyarrow.fs as pafs

    name = f"bucket-{uuid.uuid4().hex}"
    pafs.FileSystem.from_uri(f"s3://{name}?allow_bucket_creation=true")[0].create_dir(name)
    return f"s3://{name}"
