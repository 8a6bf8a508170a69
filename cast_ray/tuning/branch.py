"""How a trial goes on from a checkpoint that Tune gives it: its own run's, or a better trial's, with other settings.

The latter is what population based training does: the better run's latest checkpoint is copied into a new run, as if
that had come so far with the new settings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pyarrow.fs as pafs

from cast_ray.config import RunConfig
from cast_ray.data.storage import filesystem, written_whole
from cast_ray.errors import UserError
from cast_ray.training.checkpoint import FILES, STATE_FILE
from cast_ray.training.folder import complete_checkpoints

__all__ = ["go_on"]

FROM = "-from-"
"""In the name of a run, between its trial and the trial whose checkpoint it went on from."""


def go_on(source: str, config: RunConfig) -> RunConfig:
    """The configuration with the name of the run that is to go on.

    Args:
        source: path or URI of the run whose checkpoint the trial was given.
        config: of the trial, with its name.

    Raises:
        UserError: the other trial's run has no checkpoint.
    """
    run = source.rpartition("/")[2]
    if run.partition(FROM)[0] == config.name:  # the trial was only interrupted
        return dataclasses.replace(config, name=run)
    return _branch(source, config)


def _branch(source: str, config: RunConfig) -> RunConfig:
    """A new run with the latest checkpoint of another and the settings of `config`."""
    storage, root = filesystem(source)
    checkpoints = complete_checkpoints(storage, root)
    if not checkpoints:
        raise UserError(f"the run {source} has no complete checkpoint to go on from; start the search anew")
    folder, state = list(checkpoints.items())[-1]
    other = source.rpartition("/")[2].partition(FROM)[0]
    settings = hashlib.sha256(repr(config).encode()).hexdigest()[:6]
    name = f"{config.name}{FROM}{other}-{state.position.epoch}-{state.position.step}-{settings}"
    branched = dataclasses.replace(config, name=name)
    target_storage, target = filesystem(f"{config.storage}/{name}/{folder}")
    if target_storage.get_file_info(f"{target}/{STATE_FILE}").type == pafs.FileType.File:
        return branched
    target_storage.create_dir(target, recursive=True)
    for file in FILES:
        with storage.open_input_stream(f"{root}/{folder}/{file}") as opened:
            content = opened.read()
        if file == STATE_FILE:  # the last one: it makes the checkpoint complete
            content = json.dumps(json.loads(content) | {"config": branched.to_dict()}, indent=2).encode()
        with written_whole(target_storage, f"{target}/{file}") as sink:
            sink.write(content)
    return branched
